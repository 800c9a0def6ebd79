"""What an unfinished prediction has done: one file per unit, in a folder inside the output folder.

Scored units are stored atomically; when all are there, their chunks go to
:mod:`nucpro.prediction.tables` in the order of the input, and the folder is removed. The folder records what
makes its units, so that a run resumes only its own units.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from nucpro.errors import DataError, PreflightError, StoreError
from nucpro.formats import make_folder, records, remove_temporaries
from nucpro.formats.records import Count, Digest, Name, Within, part_of
from nucpro.formats.sequences import SequenceType
from nucpro.genomes.frames import FRAME_NAMES
from nucpro.prediction.contigs import InputFacts, Unit
from nucpro.prediction.models import Models
from nucpro.prediction.options import OutputFolder, unit_number
from nucpro.prediction.outputs import OUTPUTS
from nucpro.prediction.verdict import ChunkScore, FrameScore, ScoredUnit

__all__ = [
    "StoredPiece",
    "StoredUnit",
    "Work",
    "difference",
    "make_record",
    "read_record",
    "write_record",
]

logger = logging.getLogger(__name__)


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
            Plain values that determine the units.

        Returns
        -------
        set of int
            Numbers of the units that are done; those that are damaged are not, and are scored again.

        Raises
        ------
        PreflightError
            Something else has the folder's name.
        """
        work = self._folder.work
        if work.is_symlink() or (work.exists() and not work.is_dir()):
            raise PreflightError([f"{work}: is a link or a file; {_MOVE}"])
        make_folder(work)
        remove_temporaries(work)
        if not self._folder.work_record.exists():
            if any(work.iterdir()):
                raise PreflightError([f"{work}: holds files without a record; {_MOVE}"])
            write_record(self._folder.work_record, record)
        numbers = (unit_number(entry.name) for entry in work.iterdir())
        return {number for number in numbers if number is not None and self._is_whole(number)}

    def _is_whole(self, number: int) -> bool:
        try:
            self._read(number)
        except DataError as error:
            logger.warning("%s", error)
            return False
        return True

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
        records.write_record(self._folder.unit(unit.number), content, compact=True)

    def units(self, count: int) -> Iterator[StoredUnit]:
        """Yield the units 1 to ``count``.

        Raises
        ------
        DataError
            One is missing or damaged.
        """
        for number in range(1, count + 1):
            yield self._read(number)

    def _read(self, number: int) -> StoredUnit:
        path = self._folder.unit(number)
        kept = records.read_record(path, _Unit, "the unit", _SCORED_AGAIN)
        if kept is None:
            raise DataError(f"{path}: is missing; {_SCORED_AGAIN}")
        # Only a run that an earlier version began has units without a checksum.
        if not kept.is_sealed and self._begun_sealed:
            raise DataError(f"{path}: the unit is damaged (it has no checksum); {_SCORED_AGAIN}")
        try:
            return _stored(kept.content)
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{path}: the unit is damaged (its parts do not fit together: {error}); {_SCORED_AGAIN}"
            ) from error

    @cached_property
    def _begun_sealed(self) -> bool:
        kept = records.read_record(
            self._folder.work_record, _Record, "the record of a prediction", _NO_RECORD
        )
        return kept is None or kept.is_sealed

    def remove(self) -> None:
        """Remove the folder with the files written into it; files of other origin are kept.

        Raises
        ------
        StoreError
            It cannot be removed.
        """
        work = self._folder.work
        if work.is_symlink() or not work.is_dir():
            return
        remove_temporaries(work)
        units = [path for path in work.iterdir() if unit_number(path.name) is not None]
        try:
            # The record is removed last: units without it would be treated as files of other origin.
            for path in (*units, self._folder.work_record):
                path.unlink(missing_ok=True)
            work.rmdir()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise StoreError(
                    f"{work}: cannot be removed: {error.strerror}; remove it yourself, then run again"
                ) from error


_MOVE = "move it away, then run again"
_SCORED_AGAIN = "run again: only this unit is scored again"
_NO_RECORD = "predict again with --replace"


@dataclass(frozen=True)
class _Unit:
    """A unit as it is kept: pieces of records with the numbers of their chunks, and a column a value."""

    pieces: list[tuple[str, Count, list[Count]]]
    starts: list[Count]
    ends: list[Count]
    chunks: list[Count]
    frames: list[Annotated[int, Within(0, len(FRAME_NAMES) - 1)]]
    residues: list[Count]
    scores: list[Annotated[float, Within(0, 1)]]
    unknown_frames: Count
    cut_frames: Count


def _stored(unit: _Unit) -> StoredUnit:
    frames: dict[int, list[FrameScore]] = {}
    numbers = [number for _, _, numbers in unit.pieces for number in numbers]
    for chunk, frame, residues, score in zip(
        unit.chunks, unit.frames, unit.residues, unit.scores, strict=True
    ):
        found = FrameScore(numbers[chunk] + 1, FRAME_NAMES[frame], residues, score)
        frames.setdefault(chunk, []).append(found)
    places = zip(numbers, unit.starts, unit.ends, strict=True)
    chunks = [
        ChunkScore(number + 1, start + 1, end, tuple(frames.get(index, ())))
        for index, (number, start, end) in enumerate(places)
    ]
    rest = iter(chunks)
    pieces = tuple(
        StoredPiece(record, bases, tuple(islice(rest, len(numbers))))
        for record, bases, numbers in unit.pieces
    )
    return StoredUnit(pieces, unit.unknown_frames, unit.cut_frames)


@dataclass(frozen=True)
class _Input:
    file: Name
    sha256: Digest
    records: Count
    bases: Count
    chunks: Count


@dataclass(frozen=True)
class _Classifier:
    sha256: Digest
    sides: list[Name]


@dataclass(frozen=True)
class _Encoder:
    key: Digest
    made_by: dict[str, Any]


@dataclass(frozen=True)
class _Verdicts:
    """See :class:`nucpro.prediction.verdict.Rules`."""

    threshold: float
    min_length: Count


@dataclass(frozen=True)
class _Record:
    """What makes a prediction; of a finished one also what it gave, and the options that made more of it."""

    format: Count
    rules: Count
    input: _Input
    classifier: _Classifier
    encoders: dict[str, _Encoder]
    length: Count
    chunks_per_unit: Count | None = None
    verdicts: _Verdicts | None = None
    counts: dict[str, Count] | None = None
    outputs: dict[str, Digest] | None = None
    made: list[Name] | None = None


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of what made the files beside it.

    Raises
    ------
    DataError
        It cannot be read, or is damaged.
    """
    kept = records.read_record(path, _Record, "the record of a prediction", _NO_RECORD)
    if kept is None:
        raise DataError(f"{path}: is missing; predict again with --replace")
    plain = {name: value for name, value in asdict(kept.content).items() if value is not None}
    # Earlier versions did not record the digests of the tables.
    return plain if kept.is_sealed else {**plain, "made": [output.option for output in OUTPUTS]}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record of what made the files beside it, whole or not at all."""
    records.write_record(path, record)


_FORMAT = 1
_RULES = 1
"""Raised when the same input and models begin to give other tables."""


def make_record(name: str, facts: InputFacts, models: Models, length: int) -> dict[str, Any]:
    """Describe a prediction in plain values.

    Parameters
    ----------
    name : str
        Of the input, for people; its content decides.
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
            "file": name,
            "sha256": facts.digest,
            "records": facts.records,
            "bases": facts.bases,
            "chunks": facts.chunks,
        },
        "classifier": {
            "sha256": models.card_sha256,
            "sides": list(models.card.sides),
        },
        "encoders": {
            str(sequence_type): {"key": found.recipe.key, "made_by": dict(found.recipe.made_by)}
            for sequence_type, found in models.identified.items()
        },
        "length": length,
    }


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Why the content of a folder differs from the result of a run now; None if it is current.

    The answer is the end of a sentence whose subject is the prediction that is there.
    """
    if (found.get("format"), found.get("rules")) != (wanted["format"], wanted["rules"]):
        return "was made by another version of nucpro"
    if part_of(found, "input").get("sha256") != wanted["input"]["sha256"]:
        return f"is of another input ({part_of(found, 'input').get('file')})"
    if part_of(found, "classifier").get("sha256") != wanted["classifier"]["sha256"]:
        return "was made by another classifier"
    for sequence_type, encoder in wanted["encoders"].items():
        if part_of(part_of(found, "encoders"), sequence_type).get("key") != encoder["key"]:
            return (
                f"was made with another {SequenceType(sequence_type).word} model, or another precision of it"
            )
    if found.get("length") != wanted["length"]:
        return f"has chunks of {found.get('length')} bases, not {wanted['length']}"
    return None
