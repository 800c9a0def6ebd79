"""Records of anyone's sequence file: looked at once before anything is computed, then read again in parts.

A part is what is computed, and kept, at a time. At most a few parts are in memory; of the whole file only the ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nucpro.formats.fasta import Checker, Records, digest_line, stream
from nucpro.formats.sequences import ALPHABETS, LIMITS, SequenceType, Tally, is_surely_bases

__all__ = ["InputFacts", "Part", "PartFacts", "PartSize", "inspect", "parts_of"]


@dataclass(frozen=True)
class PartSize:
    """Where a part ends.

    Parameters
    ----------
    records : int
        Most records of a part.
    length : int
        Residues or bases that end it; a longer record is a part of its own.
    """

    records: int
    length: int


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
    """What is known of a part after the first reading.

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
    """What one reading of an input tells.

    Parameters
    ----------
    ids : list of str
        Of all records, in their order.
    digest : str
        SHA-256 over ids and upper-case sequences.
    parts : tuple of PartFacts
        In the order of the file.
    over_limit : int
        Records that are longer than the model reads.
    problems : tuple of str
        One message for each kind of problem.
    """

    ids: list[str]
    digest: str
    parts: tuple[PartFacts, ...]
    over_limit: int
    problems: tuple[str, ...]


def inspect(path: Path, sequence_type: SequenceType, size: PartSize, *, is_sure: bool) -> InputFacts:
    """Read an input once, and gather what must be known before anything is computed.

    Parameters
    ----------
    path : Path
        FASTA file.
    sequence_type : SequenceType
        What it must hold.
    size : PartSize
        How it is cut into parts.
    is_sure : bool
        Take proteins that look like nucleotides.

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
    return InputFacts(look.ids, look.digest.hexdigest(), tuple(look.parts), look.over_limit, tuple(problems))


class _Look:
    """What is gathered of an input, part by part."""

    def __init__(self, path: Path, sequence_type: SequenceType) -> None:
        self.path = path
        self.limit = LIMITS[sequence_type]
        self.checker = Checker(path, ALPHABETS[sequence_type])
        self.ids: list[str] = []
        self.digest = hashlib.sha256()
        self.parts: list[PartFacts] = []
        self.over_limit = 0
        self._tally = Tally(0, 0, 0)
        self._bases: list[str] = []

    def add(self, records: Records) -> None:
        """Look at the records of the next part."""
        self.checker.add(records.ids, records.sequences)
        for name, sequence in zip(records.ids, records.sequences, strict=True):
            self.digest.update(digest_line(name, sequence))
            self.over_limit += len(sequence) > self.limit
            if is_surely_bases(sequence):
                self._bases.append(name)
        self._tally += Tally.of(b"".join(records.sequences))
        length = sum(map(len, records.sequences))
        self.parts.append(PartFacts(len(self.ids), len(records), length, records.digest()))
        self.ids += records.ids

    def nucleotide_problems(self) -> list[str]:
        """Refuse nucleotides, for which a protein model gives vectors that mean nothing."""
        found = self.ids if self._tally.side is SequenceType.DNA else self._bases
        if not found:
            return []
        return [
            f"{self.path}: {len(found)} of {len(self.ids)} records look like nucleotides, first "
            f"{found[0]}; add --dna to embed nucleotides, or --protein if they are proteins"
        ]


def parts_of(path: Path, records: Iterable[tuple[str, bytes]], size: PartSize) -> Iterator[Part]:
    """Cut records into parts, which depend on nothing but the records and the size.

    Parameters
    ----------
    path : Path
        Where the records come from, for messages.
    records : iterable of (str, bytes)
        Ids and upper-case letters.
    size : PartSize
        Where a part ends.
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
