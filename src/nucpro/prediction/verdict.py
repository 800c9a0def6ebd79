"""From scores of frames to a verdict on a chunk and on a whole sequence.

A score is the probability of a virus, from 0 to 1, rounded to six places where it is made, so that tables can
be recomputed from each other. The rules, in one place:

- a **chunk** has the score of its most decided frame, the one whose score is farthest from 0.5 (of equal ones
  the first). This is the original's rule: it compares the highest score for a virus with the highest against;
- a **sequence** has the mean score of its chunks, so that one frame cannot decide a chromosome. The most
  decided frame of all is named beside it (the original gives no verdict on whole sequences);
- a score of 0.5 or more says viral. Without a single frame that can be scored the verdict is undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass

from nucpro.layout import CLASS_NAMES

__all__ = ["DIGITS", "UNDETERMINED", "ChunkScore", "FrameScore", "SequenceScore", "prediction"]

DIGITS = 6
"""Places of a score after the point."""
UNDETERMINED = "undetermined"
"""Verdict where nothing could be scored."""


def prediction(score: float | None) -> str:
    """Name of the class that a score stands for."""
    return UNDETERMINED if score is None else CLASS_NAMES[score >= 0.5]


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
    def decidedness(self) -> float:
        """How far the score is from saying nothing, 0 to 0.5."""
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
        """The most decided frame."""
        return max(self.frames, key=lambda frame: frame.decidedness, default=None)

    @property
    def score(self) -> float | None:
        """Score of the most decided frame; None without a frame."""
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
    chunks, scored_chunks, viral_chunks : int
        All chunks, those with a frame that is scored, and those of them that say viral.
    highest : FrameScore or None
        The most decided frame of all.
    """

    record: str
    bases: int
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
        self.viral_chunks += best.score >= 0.5
        self._total += best.score
        if self.highest is None or best.decidedness > self.highest.decidedness:
            self.highest = best

    @property
    def score(self) -> float | None:
        """Mean score of the chunks that have one; None where none has."""
        return round(self._total / self.scored_chunks, DIGITS) if self.scored_chunks else None
