"""What an unfinished prediction has done: one file a unit, in a folder inside the output folder.

Scored units come in, and are kept whole or not at all; when all are there, their chunks go to
:mod:`nucpro.prediction.tables` in the order of the input, and the folder is removed. The folder says what makes its
units, so that a run goes on with units of its own only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nucpro.errors import DataError, ModelError, StoreError
from nucpro.formats import decoded, remove_temporaries, write_document, write_text
from nucpro.formats.opening import read_input
from nucpro.genomes.frames import FRAME_NAMES
from nucpro.prediction.contigs import InputFacts, Unit
from nucpro.prediction.models import Models
from nucpro.prediction.options import OutputFolder, unit_number
from nucpro.prediction.verdict import ChunkScore, FrameScore, ScoredUnit

__all__ = [
    "StoredPiece",
    "StoredUnit",
    "Work",
    "difference",
    "make_record",
    "read_record",
    "remove_folder",
    "write_record",
]


@dataclass(frozen=True)
class StoredPiece:
    """Scores of neighbouring chunks of one record.

    Parameters
    ----------
    record : str
        Id of the record.
    bases : int
        Length of the whole record.
    chunks : tuple of ChunkScore
        None for a record without bases.
    """

    record: str
    bases: int
    chunks: tuple[ChunkScore, ...]


@dataclass(frozen=True)
class StoredUnit:
    """Scores of one unit as they were kept.

    Parameters
    ----------
    pieces : tuple of StoredPiece
        In the order of the input.
    unknown_frames, cut_frames : int
        See :class:`nucpro.prediction.contigs.UnitFrames` and :class:`nucpro.prediction.verdict.ScoredUnit`.
    """

    pieces: tuple[StoredPiece, ...]
    unknown_frames: int
    cut_frames: int


class Work:
    """The work folder.

    Parameters
    ----------
    folder : OutputFolder
        Of the prediction; held by this run.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder

    def start(self, record: Mapping[str, Any]) -> set[int]:
        """Make the folder, or clean up what a killed run left in it.

        Parameters
        ----------
        record : mapping
            Plain values that say what makes the units.

        Returns
        -------
        set of int
            Numbers of the units that are done.
        """
        work = self._folder.work
        if not self._folder.work_record.exists():
            # Units without a record are those of a folder that was being removed.
            self.remove()
            work.mkdir()
            write_record(self._folder.work_record, record)
        remove_temporaries(work)
        numbers = (unit_number(entry.name) for entry in work.iterdir())
        return {number for number in numbers if number is not None}

    def commit(self, unit: Unit, scored: ScoredUnit) -> None:
        """Keep the scores of a unit.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        content = {
            "pieces": [[piece.record, piece.length, piece.chunks.numbers.tolist()] for piece in unit.pieces],
            "starts": [start for piece in unit.pieces for start in piece.chunks.starts.tolist()],
            "ends": [end for piece in unit.pieces for end in piece.chunks.ends.tolist()],
            "chunks": scored.chunks.tolist(),
            "frames": scored.frames.tolist(),
            "residues": scored.residues,
            "scores": scored.scores,
            "unknown_frames": scored.unknown,
            "cut_frames": scored.cut,
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        write_text(self._folder.unit(unit.number), text + "\n")

    def units(self, count: int) -> Iterator[StoredUnit]:
        """Yield the units 1 to ``count``.

        Raises
        ------
        DataError
            One is missing or damaged.
        """
        for number in range(1, count + 1):
            path = self._folder.unit(number)
            try:
                yield _stored(decoded(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
                raise DataError(
                    f"{path}: is missing or damaged ({error}); remove it, then run again: only this unit is "
                    "scored again"
                ) from error

    def remove(self) -> None:
        """Remove the folder with everything in it.

        Raises
        ------
        StoreError
            It cannot be removed.
        """
        remove_folder(self._folder.work)


def _stored(content: dict[str, Any]) -> StoredUnit:
    frames: dict[int, list[FrameScore]] = {}
    numbers = [number for _, _, numbers in content["pieces"] for number in numbers]
    columns = (content[name] for name in ("chunks", "frames", "residues", "scores"))
    for chunk, frame, residues, score in zip(*columns, strict=True):
        found = FrameScore(numbers[chunk] + 1, FRAME_NAMES[frame], residues, score)
        frames.setdefault(chunk, []).append(found)
    places = zip(numbers, content["starts"], content["ends"], strict=True)
    chunks = (
        ChunkScore(number + 1, start + 1, end, tuple(frames.get(index, ())))
        for index, (number, start, end) in enumerate(places)
    )
    pieces = tuple(
        StoredPiece(record, bases, tuple(islice(chunks, len(numbers))))
        for record, bases, numbers in content["pieces"]
    )
    return StoredUnit(pieces, content["unknown_frames"], content["cut_frames"])


def read_record(path: Path) -> dict[str, Any]:
    """Read what says what made the files beside it.

    Raises
    ------
    DataError
        It cannot be read, or is damaged.
    """
    try:
        content = decoded(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no object")
    return content


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write what says what made the files beside it, whole or not at all."""
    write_document(path, record)


def remove_folder(path: Path) -> None:
    """Remove a folder with everything in it, or nothing where there is none.

    Raises
    ------
    StoreError
        It cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be removed: {error.strerror}; remove it yourself, then run again"
        ) from error


_FORMAT = 1
_RULES = 1
"""Raised when the same input and models begin to give other tables."""


def make_record(path: Path, facts: InputFacts, models: Models, length: int) -> dict[str, Any]:
    """Describe a prediction in plain values.

    Parameters
    ----------
    path : Path
        The input; its name is kept for people, its content decides.
    facts : InputFacts
        What is in it.
    models : Models
        Classifier and encoders.
    length : int
        Bases of a full chunk.
    """
    return {
        "format": _FORMAT,
        "rules": _RULES,
        "input": {
            "file": path.name,
            "sha256": facts.digest,
            "records": facts.records,
            "bases": facts.bases,
            "chunks": facts.chunks,
        },
        "classifier": {
            "sha256": hashlib.sha256(read_input(models.card_file, ModelError)).hexdigest(),
            "sides": list(models.card.sides),
        },
        "encoders": {
            str(side): {"key": found.recipe.key, "made_by": dict(found.recipe.made_by)}
            for side, found in models.identified.items()
        },
        "length": length,
    }


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Why what lies in a folder is not what a run would make now; None where it is.

    The answer is the end of a sentence whose subject is the prediction that is there.
    """
    if (found.get("format"), found.get("rules")) != (wanted["format"], wanted["rules"]):
        return "was made by another version of nucpro"
    if _part(found, "input", "sha256") != wanted["input"]["sha256"]:
        return f"is of another input ({_part(found, 'input', 'file')})"
    if _part(found, "classifier", "sha256") != wanted["classifier"]["sha256"]:
        return "was made by another classifier"
    for side, encoder in wanted["encoders"].items():
        if _part(found, "encoders", side, "key") != encoder["key"]:
            return f"was made with another {side} model, or another precision of it"
    if found.get("length") != wanted["length"]:
        return f"has chunks of {found.get('length')} bases, not {wanted['length']}"
    return None


def _part(content: object, *names: str) -> object:
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content
