"""Sequences of unknown origin, read one by one and cut into units of work.

A FASTA or FASTQ file comes in twice: :func:`inspect` reads it before anything else happens, and says what is
wrong with it; :func:`units_of` cuts its records into units, which go to :mod:`nucpro.prediction.contigs`. A unit
is a fixed number of neighbouring chunks, of as many records as it takes, so that many short contigs and one
long chromosome keep a device equally busy. At most one record and the units under way are in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nucpro.errors import counted, first_few
from nucpro.formats.fasta import digest_line, holds_nothing, stream
from nucpro.formats.sequences import NUCLEOTIDES, advice_on
from nucpro.genomes.frames import (
    STANDARD,
    UNKNOWN,
    Chunks,
    OpenFrames,
    chunks_of,
    frame_bases,
    frame_id,
    genetic_code,
    open_frames,
)

__all__ = [
    "InputFacts",
    "IntVector",
    "Piece",
    "Unit",
    "UnitFrames",
    "frames_of",
    "inspect",
    "records_of",
    "shown_paths",
    "units_of",
]

_ALLOWED = NUCLEOTIDES.encode()
_SHOWN = 5
_NO_PROTEINS = "nucpro predict reads nucleotides, not proteins"


@dataclass(frozen=True)
class InputFacts:
    """Facts from one pass over the input.

    Parameters
    ----------
    records, bases : int
        Number of records and their total length.
    chunks : int
        Chunks that they are cut into.
    digest : str
        SHA-256 over ids and upper-case sequences: line width, compression and qualities do not count.
    problems : tuple of str
        One message for each kind of problem, naming the first records that have it.
    """

    records: int
    bases: int
    chunks: int
    digest: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """Neighbouring chunks of one record.

    Parameters
    ----------
    record : str
        Id of the record.
    length : int
        Bases of the whole record.
    chunks : Chunks
        The chunks, by their positions in the record; none for a record without bases.
    bases : bytes
        Upper-case bases from the first chunk's start to the last chunk's end.
    """

    record: str
    length: int
    chunks: Chunks
    bases: bytes


@dataclass(frozen=True)
class Unit:
    """What is scored, and kept on disk, at a time.

    Parameters
    ----------
    number : int
        Counted from 1.
    pieces : tuple of Piece
        In the order of the input.
    """

    number: int
    pieces: tuple[Piece, ...]

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return sum(len(piece.chunks) for piece in self.pieces)

    def __str__(self) -> str:
        return f"unit {self.number} (records {self.pieces[0].record} to {self.pieces[-1].record})"


def records_of(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield id and upper-case sequence of the records of files, one file after the other; empty files are fine.

    Raises
    ------
    FastaError
        A file cannot be parsed.
    """
    for path in paths:
        if not holds_nothing(path):
            yield from stream(path, fastq=True)


def inspect(paths: Sequence[Path], length: int) -> InputFacts:
    """Read the input once and gather what pre-flight needs to know.

    Parameters
    ----------
    paths : sequence of Path
        FASTA or FASTQ files, whose records are one input.
    length : int
        Bases of a full chunk.

    Raises
    ------
    FastaError
        A file cannot be parsed at all.
    """
    content, hashes = hashlib.sha256(), array("q")
    records = bases = chunks = 0
    foreign: list[str] = []
    advice = _NO_PROTEINS
    for name, sequence in records_of(paths):
        content.update(digest_line(name, sequence))
        # Eight bytes per record are enough to find duplicate ids; the ids themselves would fill the memory.
        hashes.append(hash(name))
        records, bases, chunks = records + 1, bases + len(sequence), chunks + -(-len(sequence) // length)
        if len(foreign) <= _SHOWN and (odd := sequence.translate(None, _ALLOWED)):
            advice = advice if foreign else advice_on(chr(odd[0])) or advice
            foreign.append(f"{name} has {chr(odd[0])!r} at position {sequence.index(odd[0]) + 1}")
    problems = [*_foreign_problem(paths, foreign, advice), *_duplicate_problem(paths, hashes)]
    return InputFacts(records, bases, chunks, content.hexdigest(), tuple(problems))


def shown_paths(paths: Sequence[Path]) -> str:
    """Name the files of an input in a message."""
    return f"{paths[0]}" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _foreign_problem(paths: Sequence[Path], foreign: list[str], advice: str) -> Iterator[str]:
    if foreign:
        shown = ", ".join(foreign[:_SHOWN]) + (" and more" if len(foreign) > _SHOWN else "")
        where = shown_paths(paths)
        yield f"{where}: characters outside {NUCLEOTIDES}: {shown}; correct or remove these records ({advice})"


def _duplicate_problem(paths: Sequence[Path], hashes: array[int]) -> Iterator[str]:
    values, times = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    suspects = set(values[times > 1].tolist())
    if not suspects:
        return
    # Equal hashes may be different ids, so those few are compared as they are.
    times_seen = Counter(name for name, _ in records_of(paths) if hash(name) in suspects)
    names = [name for name, seen in times_seen.items() if seen > 1]
    if names:
        yield (
            f"{shown_paths(paths)}: {counted(len(names), 'duplicate id')}: {first_few(names, _SHOWN)}; "
            "scores are identified by id, which ends at the first space of a header: give every record its own "
            "(mates of a read pair: append /1 and /2)"
        )


def units_of(records: Iterable[tuple[str, bytes]], length: int, chunks_per_unit: int) -> Iterator[Unit]:
    """Cut records into chunks and group these into units.

    Parameters
    ----------
    records : iterable of (str, bytes)
        Ids and upper-case sequences.
    length : int
        Bases of a full chunk; see :func:`nucpro.genomes.frames.chunks_of`.
    chunks_per_unit : int
        Chunks of a unit; the last one may have fewer.

    Yields
    ------
    Unit
        The same units for the same input, whatever was done with it before.
    """
    pieces: list[Piece] = []
    room, number = chunks_per_unit, 1
    for name, sequence in records:
        chunks = chunks_of(len(sequence), length)
        while True:
            if len(chunks) and not room:
                yield Unit(number, tuple(pieces))
                pieces, room, number = [], chunks_per_unit, number + 1
            pieces.append(_piece(name, sequence, chunks.take(slice(0, room))))
            room -= len(pieces[-1].chunks)
            chunks = chunks.take(slice(len(pieces[-1].chunks), None))
            if not len(chunks):
                break
    if pieces:
        yield Unit(number, tuple(pieces))


def _piece(name: str, sequence: bytes, chunks: Chunks) -> Piece:
    span = sequence[chunks.starts[0] : chunks.ends[-1]] if len(chunks) else b""
    return Piece(name, len(sequence), chunks, span)


_MOST_UNKNOWN = 0.5
"""Share of X above which a translation is ignored: a run of N translates to a frame without a stop."""

IntVector = npt.NDArray[np.int64]


@dataclass(frozen=True)
class UnitFrames:
    """Frames of one unit, by chunk and then F1, F2, F3, R1, R2, R3.

    Parameters
    ----------
    chunks : ndarray of int64, shape (frames,)
        Chunk of each frame, counted from 0 within the unit.
    frames : ndarray of int64, shape (frames,)
        Number of each frame, 0 to 5.
    ids : list of str
        ``RECORD_chunk_NFK``, as in the training data.
    nucleotides, proteins : list of bytes
        See :func:`nucpro.genomes.frames.frame_bases`; a protein is the whole translation.
    unknown : int
        Frames without a stop that are left out because most of their residues are X.
    """

    chunks: IntVector
    frames: IntVector
    ids: list[str]
    nucleotides: list[bytes]
    proteins: list[bytes]
    unknown: int

    def __len__(self) -> int:
        return len(self.ids)


def frames_of(unit: Unit) -> UnitFrames:
    """Find the frames of a unit that are scored.

    Parameters
    ----------
    unit : Unit
        It may contain ambiguous bases: a codon with one is translated to X. U counts as T.
    """
    # All records of a unit are translated together: a call for each of many short ones would take far longer.
    bases = b"".join(piece.bases for piece in unit.pieces).replace(b"U", b"T")
    places = _places(unit)
    known: list[tuple[int, bytes]] = []
    unknown = 0
    for group in open_frames(bases, 0, places, genetic_code(STANDARD)) if len(places) else ():
        says_something = _says_something(group)
        unknown += len(group.keys) - int(says_something.sum())
        proteins = map(bytes, group.residues[says_something])
        known += zip(group.keys[says_something].tolist(), proteins, strict=True)
    known.sort()
    keys = np.array([key for key, _ in known], dtype=np.int64)
    chunks, frames = np.divmod(keys, 6)
    nucleotides = [
        frame_bases(bases[places.starts[key // 6] : places.ends[key // 6]], key % 6, len(protein))
        for key, protein in known
    ]
    ids = _ids(unit, chunks, frames)
    return UnitFrames(chunks, frames, ids, nucleotides, [protein for _, protein in known], unknown)


def _says_something(group: OpenFrames) -> npt.NDArray[np.bool_]:
    share: npt.NDArray[np.float64] = (group.residues == UNKNOWN).mean(axis=1)
    return share <= _MOST_UNKNOWN


def _places(unit: Unit) -> Chunks:
    """Chunks of a unit by their positions in the concatenated bases of its pieces, numbered from 0."""
    starts, ends, offset = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for piece in unit.pieces:
        if len(piece.chunks):
            shift = offset - piece.chunks.starts[0]
            starts.append(piece.chunks.starts + shift)
            ends.append(piece.chunks.ends + shift)
            offset += len(piece.bases)
    return Chunks(np.arange(unit.chunks), np.concatenate(starts), np.concatenate(ends))


def _ids(unit: Unit, chunks: IntVector, frames: IntVector) -> list[str]:
    places = [(piece.record, number) for piece in unit.pieces for number in piece.chunks.numbers.tolist()]
    named = ((*places[chunk], frame) for chunk, frame in zip(chunks.tolist(), frames.tolist(), strict=True))
    return [frame_id(record, number, frame) for record, number, frame in named]
