"""Records of any sequence file: checked once before anything is computed, then read again in parts.

A part is computed and stored as a whole. At most a few parts are in memory; of the whole file only the ids.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucpro.errors import FastaError, UsageError
from nucpro.formats.fasta import Checker, Records, digest_line, read, stream
from nucpro.formats.sequences import (
    ALPHABETS,
    LIMITS,
    SequenceType,
    Tally,
    is_surely_bases,
    nucleotide_records,
)

__all__ = [
    "InputFacts",
    "Part",
    "PartFacts",
    "PartSize",
    "Sequences",
    "default_part_size",
    "inspect",
    "length_problem",
    "parts_of",
    "records_of",
    "require_proteins",
    "require_short",
]

Sequences = str | os.PathLike[str] | Records | Mapping[str, str | bytes] | Iterable[object]
"""Supported forms of records; see :func:`records_of`."""

_IN_MEMORY = Path("sequences given")
"""Placeholder for the file of records that come from none."""


@dataclass(frozen=True)
class PartSize:
    """Maximum size of a part.

    Parameters
    ----------
    records : int
        Most records of a part.
    length : int
        Residues or bases that end it; a longer record is a part of its own.
    """

    records: int
    length: int


_PART_SIZES = {"cuda": PartSize(10_000, 4_000_000), "cpu": PartSize(256, 64_000)}


_PART_BYTES = 2**29
"""Most bytes of the vectors of residues of a part: a few parts are in memory at a time."""


def default_part_size(device: str, residue_bytes: int = 0) -> PartSize:
    """Size of parts for a class of device: seconds of a GPU, and seconds to a minute of a CPU.

    Parameters
    ----------
    device : str
        Where they are computed.
    residue_bytes : int
        Bytes of the vector of a residue, where there are such: a part is then not larger than half a GiB.
    """
    size = _PART_SIZES[device.partition(":")[0]]
    length = _PART_BYTES // residue_bytes if residue_bytes else size.length
    return PartSize(size.records, max(1, min(size.length, length)))


@dataclass(frozen=True)
class Part:
    """Neighbouring records of one file, computed and kept at a time.

    Parameters
    ----------
    number : int
        Counted from 0, in the order of the file.
    records : Records
        The records, with the file's name.
    """

    number: int
    records: Records

    @property
    def size(self) -> int:
        """Residues or bases of all its records."""
        return sum(map(len, self.records.sequences))

    def __str__(self) -> str:
        ids = self.records.ids
        return f"{self.records.path}, records {ids[0]} to {ids[-1]}"


@dataclass(frozen=True)
class PartFacts:
    """Facts about a part from the first pass.

    Parameters
    ----------
    start, records : int
        Number of its first record, from 0, and how many it has.
    size : int
        Residues or bases of all its records.
    digest : str
        See :meth:`nucpro.formats.fasta.Records.digest`.
    """

    start: int
    records: int
    size: int
    digest: str


@dataclass(frozen=True)
class InputFacts:
    """Facts from one pass over an input.

    Parameters
    ----------
    ids : list of str
        Of all records, in their order.
    digest : str
        SHA-256 over ids and upper-case sequences.
    parts : tuple of PartFacts
        In the order of the file.
    long : list of str
        Ids of the records that are longer than the model reads.
    read : int
        Residues or bases of all records, without what is cut at that length.
    problems : tuple of str
        One message for each kind of problem.
    """

    ids: list[str]
    digest: str
    parts: tuple[PartFacts, ...]
    long: list[str]
    read: int
    problems: tuple[str, ...]


def inspect(path: Path, sequence_type: SequenceType, size: PartSize, *, is_sure: bool) -> InputFacts:
    """Read an input once, and collect the facts needed before anything is computed.

    Parameters
    ----------
    path : Path
        FASTA file.
    sequence_type : SequenceType
        Sequence type of its records.
    size : PartSize
        How it is cut into parts.
    is_sure : bool
        Accept proteins that look like nucleotides.

    Raises
    ------
    FastaError
        The file cannot be read at all.
    """
    look = _Look(path, sequence_type)
    for part in parts_of(path, stream(path), size):
        look.add(part.records)
    problems = look.checker.problems()
    if sequence_type is SequenceType.PROTEIN and not is_sure and not problems:
        problems += look.nucleotide_problems()
    return InputFacts(
        look.ids, look.digest.hexdigest(), tuple(look.parts), look.long, look.read, tuple(problems)
    )


class _Look:
    """Collects the facts of an input, part by part."""

    def __init__(self, path: Path, sequence_type: SequenceType) -> None:
        self.path = path
        self.limit = LIMITS[sequence_type]
        self.checker = Checker(path, ALPHABETS[sequence_type])
        self.ids: list[str] = []
        self.digest = hashlib.sha256()
        self.parts: list[PartFacts] = []
        self.long: list[str] = []
        self.read = 0
        self._tally = Tally(0, 0, 0)
        self._bases: list[str] = []

    def add(self, records: Records) -> None:
        """Check the records of the next part."""
        self.checker.add(records.ids, records.sequences)
        for name, sequence in zip(records.ids, records.sequences, strict=True):
            self.digest.update(digest_line(name, sequence))
            if len(sequence) > self.limit:
                self.long.append(name)
            self.read += min(len(sequence), self.limit)
            if is_surely_bases(sequence):
                self._bases.append(name)
        self._tally += Tally.of(b"".join(records.sequences))
        length = sum(map(len, records.sequences))
        self.parts.append(PartFacts(len(self.ids), len(records), length, records.digest()))
        self.ids += records.ids

    def nucleotide_problems(self) -> list[str]:
        """Refuse nucleotides, for which vectors of a protein model are meaningless."""
        found = self.ids if self._tally.sequence_type is SequenceType.DNA else self._bases
        remedy = "add --dna to embed nucleotides, or --protein if they are proteins"
        return [_nucleotide_problem(self.path, found[0], len(found), len(self.ids), remedy)] if found else []


def parts_of(path: Path, records: Iterable[tuple[str, bytes]], size: PartSize) -> Iterator[Part]:
    """Cut records into parts, which depend on nothing but the records and the size.

    Parameters
    ----------
    path : Path
        Where the records come from, for messages.
    records : iterable of (str, bytes)
        Ids and upper-case sequences.
    size : PartSize
        Maximum size of a part.
    """
    number, length = 0, 0
    part = Records(path, [], [])
    for name, sequence in records:
        is_full = len(part) == size.records or length + len(sequence) > size.length
        if len(part) and is_full:
            yield Part(number, part)
            number, length, part = number + 1, 0, Records(path, [], [])
        part.ids.append(name)
        part.sequences.append(sequence)
        length += len(sequence)
    if len(part):
        yield Part(number, part)


def records_of(sequences: Sequences) -> Records:
    """Records out of what people have.

    Parameters
    ----------
    sequences : path, Records, mapping or iterable
        Name of a FASTA file; records that were read; sequences by id; or sequences one after the other, each a str or
        bytes, a pair of id and sequence, or an object with ``id`` and ``seq`` (as Biopython's). Sequences without an
        id are called by their number, from 0. Upper and lower case are accepted.

    Returns
    -------
    Records
        Ids and upper-case sequences.

    Raises
    ------
    FastaError
        A file cannot be read, or there is nothing.
    UsageError
        It is none of these.
    """
    if isinstance(sequences, Records):
        return sequences
    if isinstance(sequences, str | os.PathLike):
        return read(_file_of(sequences), allow_pipe=True)
    given = sequences.items() if isinstance(sequences, Mapping) else sequences
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise UsageError(
            f"sequences are of type {type(sequences).__name__}; give a list or dict of them, or the name of a FASTA "
            "file"
        )
    records = Records(_IN_MEMORY, [], [])
    for number, one in enumerate(given):
        name, sequence = _named(one, number)
        records.ids.append(name)
        records.sequences.append(_letters(sequence, name))
    if not len(records):
        raise FastaError(f"{records.path}: no sequences; give at least one")
    return records


def _file_of(name: str | os.PathLike[str]) -> Path:
    path = Path(name)
    if isinstance(name, str) and not os.path.lexists(path) and name.isalpha():
        raise UsageError(f"{name[:50]!r} is no file; give a sequence in a list: [{name[:50]!r}]")
    return path


def _named(one: object, number: int) -> tuple[str, object]:
    if isinstance(one, tuple | list) and len(one) == 2:
        return str(one[0]), one[1]
    if hasattr(one, "id") and hasattr(one, "seq"):
        return str(one.id), str(one.seq)
    return str(number), one


def _letters(sequence: object, name: str) -> bytes:
    if isinstance(sequence, bytes):
        return sequence.upper()
    if isinstance(sequence, str):
        # What is no ASCII becomes a question mark, which no alphabet has.
        return sequence.encode("ascii", "replace").upper()
    raise UsageError(f"the sequence of {name!r} is of type {type(sequence).__name__}; give str or bytes")


def require_proteins(records: Records) -> None:
    """Refuse nucleotides, for which vectors of a protein model are meaningless.

    Raises
    ------
    FastaError
        It names the first.
    """
    if found := nucleotide_records(records.sequences):
        remedy = "load the encoder 'dna' for them, or give insist=True if they are proteins"
        first = records.ids[found[0]]
        raise FastaError(_nucleotide_problem(records.path, first, len(found), len(records), remedy))


def _nucleotide_problem(path: Path, first: str, count: int, total: int, remedy: str) -> str:
    return f"{path}: {count} of {total} records look like nucleotides, first {first!r}; {remedy}"


def require_short(records: Records, sequence_type: SequenceType) -> None:
    """Refuse records that are longer than the model reads.

    Raises
    ------
    FastaError
        It names the first.
    """
    pairs = zip(records.ids, records.sequences, strict=True)
    if long := [name for name, sequence in pairs if len(sequence) > LIMITS[sequence_type]]:
        remedy = "load the encoder with long='cut'"
        raise FastaError(length_problem(records.path, long, len(records), sequence_type, remedy))


def length_problem(
    path: Path, long: Sequence[str], total: int, sequence_type: SequenceType, remedy: str
) -> str:
    """Message for records that are longer than the model reads, where these are refused."""
    return (
        f"{path}: {len(long)} of {total} records are longer than the {LIMITS[sequence_type]} {sequence_type.unit} that "
        f"the model reads, first {long[0]!r}; remove them, or {remedy}"
    )
