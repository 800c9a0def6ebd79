"""The unit of work: from the bases of a unit to the scores of its frames.

A unit comes in (:mod:`nucpro.prediction.contigs`), its scores go to :mod:`nucpro.prediction.work`. Both encoders
and the classifier share one device. Threads score units at the same time: while one unit is computed the next
is translated and tokenised, and the last is written. The scores of a unit depend on that unit and on
nothing else, so that it may be computed again, or elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from nucpro.classifier.model import Classifier
from nucpro.encoders import FastaEncoder
from nucpro.errors import ExtractionError
from nucpro.fasta import Records
from nucpro.layout import CLASS_NAMES, VIRAL, Side
from nucpro.prediction.contigs import Unit
from nucpro.prediction.frames import IntVector, UnitFrames, frames_of
from nucpro.prediction.verdict import DIGITS
from nucpro.totals import Totals

__all__ = ["ScoredUnit", "Scorer"]

_VIRAL_COLUMN = CLASS_NAMES.index(VIRAL)


@dataclass(frozen=True)
class ScoredUnit:
    """Scores of the frames of a unit; without letters, so that it is small where it comes from another machine.

    Parameters
    ----------
    chunks, frames : ndarray of int64, shape (frames,)
        Chunk of each frame and number of the frame, see :class:`nucpro.prediction.frames.UnitFrames`.
    residues : list of int
        Length of each translation.
    scores : list of float
        Probability of a virus, one a frame, rounded to six places.
    unknown : int
        Frames that are left out because most of their residues are X.
    cut : int
        Frames whose nucleotides or translation were longer than an encoder reads, and were cut there.
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
        """Take what is kept of frames."""
        residues = [len(protein) for protein in frames.proteins]
        return cls(frames.chunks, frames.frames, residues, scores, frames.unknown, cut)


class Scorer:
    """Encoders and classifier on one device.

    Parameters
    ----------
    path : Path
        The input, for messages.
    encoders : mapping of Side to FastaEncoder
        One for each side that the classifier uses, in the order of its columns.
    classifier : Classifier
        In evaluation mode; moved to the device of the encoders.
    """

    def __init__(self, path: Path, encoders: Mapping[Side, FastaEncoder], classifier: Classifier) -> None:
        self.encoders = encoders
        self._path = path
        self._device = next(iter(encoders.values())).embedder.encoder.device
        self._classifier = classifier.to(self._device)

    @property
    def totals(self) -> Totals:
        """What went through the encoders, added up."""
        return Totals(*map(sum, zip(*(encoder.totals for encoder in self.encoders.values()), strict=True)))

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
        letters = {Side.DNA: frames.nucleotides, Side.PROTEIN: frames.proteins}
        vectors = {
            side: encoder.embed(Records(self._path, frames.ids, letters[side]))
            for side, encoder in self.encoders.items()
        }
        rows = np.concatenate([side.matrix for side in vectors.values()], axis=1)
        scores = self._classify(rows, frames.ids)
        return ScoredUnit.of(frames, scores, sum(side.truncated for side in vectors.values()))

    def _classify(self, rows: npt.NDArray[np.float32], ids: list[str]) -> list[float]:
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
