"""Where everything lies in the folder that a prediction is written to.

Nothing else in this room builds a path::

    OUT/
      sequences.tsv, chunks.tsv, frames.tsv          the result
      prediction.json                                what made it, counts, and the SHA-256 of the tables
      predictions.json                               the same result as one document, where asked for
      prediction_results.txt, prediction_results_highestscore.csv     with the original's names, where asked for
      plots/sequence_N.png                           along the sequence, where asked for; N as in the input
      unfinished/run.json, unfinished/unit_K.json    what a run that was stopped has done; gone at its end
      .prediction.lock
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OutputFolder", "unit_number"]

_UNIT = re.compile(r"unit_([1-9][0-9]*)\.json")
_PICTURE = re.compile(r"sequence_[1-9][0-9]*\.png")


def unit_number(name: str) -> int | None:
    """K of a file called ``unit_K.json``; None for any other name."""
    match = _UNIT.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class OutputFolder:
    """The folder of one prediction.

    Parameters
    ----------
    root : Path
        As the user named it.
    """

    root: Path

    @property
    def sequences(self) -> Path:
        """One line a record."""
        return self.root / "sequences.tsv"

    @property
    def chunks(self) -> Path:
        """One line a chunk."""
        return self.root / "chunks.tsv"

    @property
    def frames(self) -> Path:
        """One line a frame that was scored."""
        return self.root / "frames.tsv"

    @property
    def tables(self) -> tuple[Path, Path, Path]:
        """The three tables, in the order in which they are written."""
        return self.sequences, self.chunks, self.frames

    @property
    def record(self) -> Path:
        """What made the tables."""
        return self.root / "prediction.json"

    @property
    def document(self) -> Path:
        """Everything in one JSON document."""
        return self.root / "predictions.json"

    @property
    def original_frames(self) -> Path:
        """Scores of frames under the name that VirNucPro gives them."""
        return self.root / "prediction_results.txt"

    @property
    def original_chunks(self) -> Path:
        """Verdicts on chunks under the name that VirNucPro gives them."""
        return self.root / "prediction_results_highestscore.csv"

    @property
    def plots(self) -> Path:
        """Folder of the pictures."""
        return self.root / "plots"

    def plot(self, number: int) -> Path:
        """Picture of the record with this number in the input, counted from 1."""
        return self.plots / f"sequence_{number}.png"

    @property
    def lock(self) -> Path:
        """Held by the run that writes here."""
        return self.root / ".prediction.lock"

    @property
    def work(self) -> Path:
        """Folder of what is done of an unfinished run."""
        return self.root / "unfinished"

    @property
    def work_record(self) -> Path:
        """What makes the units of the work folder."""
        return self.work / "run.json"

    def unit(self, number: int) -> Path:
        """Scores of a unit."""
        return self.work / f"unit_{number}.json"

    def results(self) -> Iterator[Path]:
        """Files of a result that are there, whatever made them."""
        files = (self.record, *self.tables, self.document, self.original_frames, self.original_chunks)
        pictures = (
            path for path in sorted(self.plots.glob("sequence_*.png")) if _PICTURE.fullmatch(path.name)
        )
        return (path for path in (*files, *pictures) if path.exists())
