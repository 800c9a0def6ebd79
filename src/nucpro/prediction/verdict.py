"""From scores of frames to a verdict on a chunk and on a whole sequence.

A score is the probability of a virus, from 0 to 1, rounded to six places where it is made, so that tables can
be recomputed from each other. The rules, in one place:

- a **chunk** has the score of its most confident frame, the one whose score is farthest from 0.5 (the first, if
  several are equal). This is the original's rule: it compares the highest score for a virus with the highest against;
- a **sequence** has the mean score of its chunks, so that one frame cannot decide a chromosome. The most confident
  frame of all is reported beside it (the original gives no verdict on whole sequences);
- a score that reaches the threshold (0.5, unless the classifier's card or an option says otherwise) means viral.
  Without a single frame that can be scored, and below the shortest length, the verdict is undetermined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from nucpro.errors import ExtractionError
from nucpro.folder.paths import CLASS_NAMES, VIRAL
from nucpro.formats.fasta import Records
from nucpro.formats.sequences import SequenceType
from nucpro.prediction.contigs import IntVector, Unit, UnitFrames, frames_of
from nucpro.state.history import Totals

if TYPE_CHECKING:
    from nucpro.classifier.model import Classifier
    from nucpro.embedding.encoder import FastaEncoder

__all__ = [
    "DIGITS",
    "UNDETERMINED",
    "ChunkScore",
    "FrameScore",
    "Rules",
    "ScoredUnit",
    "Scorer",
    "SequenceScore",
]

DIGITS = 6
"""Places of a score after the point."""
UNDETERMINED = "undetermined"
"""Verdict where nothing could be scored."""


@dataclass(frozen=True)
class Rules:
    """Rules that turn a score into a verdict; other rules give other verdicts of the same scores.

    Parameters
    ----------
    threshold : float
        Score from which on a frame, a chunk or a sequence is viral.
    min_length : int
        Bases below which a sequence is undetermined, whatever its score.
    """

    threshold: float = 0.5
    min_length: int = 0

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """Rules in a prediction's record; earlier versions record none."""
        return cls(**record.get("verdicts", {}))

    def __str__(self) -> str:
        return f"viral from a score of {self.threshold:g}, undetermined below {self.min_length} bases"

    def is_viral(self, score: float) -> bool:
        """Whether a score means viral."""
        return score >= self.threshold

    def verdict(self, score: float | None, bases: int | None = None) -> str:
        """Name of the class of a score, of a sequence with so many bases or of a part of one."""
        too_short = bases is not None and bases < self.min_length
        return UNDETERMINED if score is None or too_short else CLASS_NAMES[self.is_viral(score)]


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Score of one reading frame.

    Parameters
    ----------
    chunk : int
        Number of the chunk in its record, from 1.
    frame : str
        F1 to F3 or R1 to R3.
    residues : int
        Length of the translation.
    score : float
        Probability of a virus.
    """

    chunk: int
    frame: str
    residues: int
    score: float

    @property
    def confidence(self) -> float:
        """Confidence: distance of the score from 0.5, 0 to 0.5."""
        return abs(self.score - 0.5)


@dataclass(frozen=True, slots=True)
class ChunkScore:
    """Scores of one chunk.

    Parameters
    ----------
    number : int
        Number in its record, from 1.
    start, end : int
        First and last base in the record, counted from 1, both included.
    frames : tuple of FrameScore
        In the order F1, F2, F3, R1, R2, R3; none where all frames have a stop.
    """

    number: int
    start: int
    end: int
    frames: tuple[FrameScore, ...]

    @property
    def best(self) -> FrameScore | None:
        """The most confident frame."""
        return max(self.frames, key=lambda frame: frame.confidence, default=None)

    @property
    def score(self) -> float | None:
        """Score of the most confident frame; None without a frame."""
        best = self.best
        return None if best is None else best.score


@dataclass(slots=True)
class SequenceScore:
    """Scores of one record, gathered chunk by chunk.

    Parameters
    ----------
    record : str
        Its id.
    bases : int
        Its length.
    rules : Rules
        Of the verdicts.
    chunks, scored_chunks, viral_chunks : int
        All chunks, those with a frame that is scored, and those of them that are called viral.
    highest : FrameScore or None
        The most confident frame of all.
    """

    record: str
    bases: int
    rules: Rules = Rules()
    chunks: int = 0
    scored_chunks: int = 0
    viral_chunks: int = 0
    highest: FrameScore | None = None
    _total: float = 0.0

    def add(self, chunk: ChunkScore) -> None:
        """Take the next chunk of the record."""
        self.chunks += 1
        best = chunk.best
        if best is None:
            return
        self.scored_chunks += 1
        self.viral_chunks += self.rules.is_viral(best.score)
        self._total += best.score
        if self.highest is None or best.confidence > self.highest.confidence:
            self.highest = best

    @property
    def score(self) -> float | None:
        """Mean score of the chunks that have one; None where none has."""
        return round(self._total / self.scored_chunks, DIGITS) if self.scored_chunks else None


_VIRAL_COLUMN = CLASS_NAMES.index(VIRAL)


@dataclass(frozen=True)
class ScoredUnit:
    """Scores of the frames of a unit; without sequences, so that it is small to send between machines.

    Parameters
    ----------
    chunks, frames : ndarray of int64, shape (frames,)
        Chunk of each frame and number of the frame, see :class:`nucpro.prediction.contigs.UnitFrames`.
    residues : list of int
        Length of each translation.
    scores : list of float
        Probability of a virus, one per frame, rounded to six places.
    unknown : int
        Frames that are left out because most of their residues are X.
    cut : int
        Frames whose nucleotides or translation were longer than an encoder reads, and were truncated.
    """

    chunks: IntVector
    frames: IntVector
    residues: list[int]
    scores: list[float]
    unknown: int
    cut: int

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, frames: UnitFrames, scores: list[float], cut: int) -> Self:
        """Build from the stored fields of frames."""
        residues = [len(protein) for protein in frames.proteins]
        return cls(frames.chunks, frames.frames, residues, scores, frames.unknown, cut)


class Scorer:
    """Encoders and classifier on one device.

    Parameters
    ----------
    path : Path
        The input, for messages.
    encoders : mapping of SequenceType to FastaEncoder
        One per sequence type that the classifier uses, in the order of its columns.
    classifier : Classifier
        In evaluation mode; moved to the device of the encoders.
    """

    def __init__(
        self, path: Path, encoders: Mapping[SequenceType, FastaEncoder], classifier: Classifier
    ) -> None:
        self.encoders = encoders
        self._path = path
        self._device = next(iter(encoders.values())).embedder.encoder.device
        self._classifier = classifier.to(self._device)

    @property
    def totals(self) -> Totals:
        """What went through the encoders, added up."""
        return Totals(*map(sum, zip(*(encoder.totals for encoder in self.encoders.values()), strict=True)))

    def stop_writing(self) -> None:
        """Let the encoders write nothing more."""
        for encoder in self.encoders.values():
            encoder.stop_writing()

    def score(self, unit: Unit) -> ScoredUnit:
        """Score all frames of a unit; safe to call from several threads.

        Raises
        ------
        ExtractionError
            A value that is not finite, or a record that does not fit into memory.
        """
        frames = frames_of(unit)
        if not len(frames):
            return ScoredUnit.of(frames, [], 0)
        return ScoredUnit.of(frames, *self.scores_of(frames.ids, frames.nucleotides, frames.proteins))

    def scores_of(
        self, ids: list[str], nucleotides: list[bytes], proteins: list[bytes]
    ) -> tuple[list[float], int]:
        """Score frames by their sequences; returns the scores, and how many sequences were truncated."""
        sequences = {SequenceType.DNA: nucleotides, SequenceType.PROTEIN: proteins}
        vectors = {
            sequence_type: encoder.embed(Records(self._path, ids, sequences[sequence_type]))
            for sequence_type, encoder in self.encoders.items()
        }
        rows = np.concatenate([found.matrix for found in vectors.values()], axis=1)
        return self._classify(rows, ids), sum(found.truncated for found in vectors.values())

    def _classify(self, rows: npt.NDArray[np.float32], ids: list[str]) -> list[float]:
        import torch  # noqa: PLC0415 - the rules above are read without it

        probabilities = self._classifier.probabilities(torch.from_numpy(rows).to(self._device))
        scores = probabilities[:, _VIRAL_COLUMN].double().cpu().numpy()
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise ExtractionError(
                f"{self._path}: frame {ids[row]}: its score is {scores[row]}, expected 0 to 1; the classifier "
                "overflowed: train it again, or check how its data was scaled"
            )
        rounded: list[float] = scores.round(DIGITS).tolist()
        return rounded
