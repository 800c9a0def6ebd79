"""FASTA records: reading, inspecting and splitting.

Files come in from the data folder (or from a user of ``nucpro embed``); records go to the encoders, and
facts about a file (:class:`FastaFacts`) go to pre-flight and the record of what is done. Parsing is
needletail's; what counts as a usable record is decided here.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

import needletail

from nucpro.errors import FastaError, first_few, is_plain

__all__ = [
    "LONGEST_RECORD",
    "NUCLEOTIDES",
    "RESIDUES",
    "FastaFacts",
    "Records",
    "count",
    "difference",
    "ids_digest",
    "inspect",
    "read",
    "require_usable",
    "split",
    "stream",
]

NUCLEOTIDES = "ACGTURYSWKMBDHVN"
"""Letters of a nucleotide record: the four bases, U, and the IUPAC ambiguity codes."""
RESIDUES = "ACDEFGHIKLMNPQRSTVWYXBUZO"
"""Letters of a protein record: those for which ESM-2 has a residue token."""

LONGEST_RECORD = 100_000_000
"""Bytes of a record; the longest of the data sets have 10,000 letters. Reading one takes about four times as much."""

_BLOCK = 1 << 20
_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""What the parser unpacks, by the first bytes of such files."""
_NOT_READABLE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES)
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_SHOWN = 5
_SHOWN_LETTERS = 100


@dataclass(frozen=True)
class Records:
    """All records of one FASTA file, in its order.

    Parameters
    ----------
    path : Path
        The file, for messages.
    ids : list of str
        Headers up to the first white space.
    sequences : list of bytes
        Upper-case letters without line breaks.
    """

    path: Path
    ids: list[str]
    sequences: list[bytes]

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """SHA-256 over ids and upper-case sequences: line width, line ends and compression do not count."""
        content = hashlib.sha256()
        for name, sequence in zip(self.ids, self.sequences, strict=True):
            content.update(b"%b\t%b\n" % (name.encode(), sequence))
        return content.hexdigest()


@dataclass(frozen=True)
class FastaFacts:
    """What one reading of a FASTA file tells.

    Parameters
    ----------
    records, letters, letters_read : int
        Number of records, their total length, and their total length with each cut at the limit.
    digest, ids_digest : str
        See :meth:`Records.digest` and :func:`ids_digest`.
    over_limit : int
        Records longer than the limit that was asked for.
    problems : tuple of str
        One message for each kind of problem, naming the first records that have it.
    """

    records: int
    letters: int
    letters_read: int
    digest: str
    ids_digest: str
    over_limit: int
    problems: tuple[str, ...]

    @classmethod
    def unknown(cls, records: int) -> Self:
        """Facts of a file that is still to be made, of which only the number of records is known."""
        return cls(records, 0, 0, "", "", 0, ())


def _parse(path: Path, kinds: str = "FASTA") -> Iterator[needletail.Record]:
    try:
        _require_bounded(path)
        yield from needletail.parse_fastx_file(str(path))
    except (needletail.NeedletailError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _NOT_READABLE:
            raise FastaError(
                f"{path}: cannot be read: {error.strerror}; name a {kinds} file that is there and may be read"
            ) from error
        if path.is_file() and path.stat().st_size == 0:
            raise FastaError(f"{path}: the file is empty; remove it or make it again") from error
        starts = "'>'" if kinds == "FASTA" else "'>' or '@'"
        raise FastaError(
            f"{path}: cannot be read as {kinds}: {error}; the file must start with {starts} and be complete"
        ) from error


def stream(path: Path, *, fastq: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the upper-case letters of each record; memory does not grow with the file.

    Files may be plain or compressed with gzip, wrapped or not, with any line ends.

    Parameters
    ----------
    path : Path
        The file.
    fastq : bool
        Whether FASTQ is fine too; its qualities are not looked at.

    Raises
    ------
    FastaError
        The file is missing, empty, cut short, of another format, or an id is missing, not UTF-8, or holds
        controls.
    """
    records = _parse(path, "FASTA or FASTQ" if fastq else "FASTA")
    for position, record in enumerate(records, start=1):
        if record.is_fastq() and not fastq:
            raise FastaError(
                f"{path}: record {position} is FASTQ (starts with '@'); convert it to FASTA first"
            )
        _require_usable_id(path, position, record.name)
        # Letters outside ASCII become question marks, which no alphabet has; upper() would turn some into letters.
        yield record.name, record.seq.encode("ascii", "replace").upper()


def _require_usable_id(path: Path, position: int, name: str) -> None:
    if not name or "\ufffd" in name:
        what = "is not valid UTF-8" if name else "is missing"
        raise FastaError(f"{path}: the id of record {position} {what}; give every header an id after '>'")
    if not is_plain(name):
        raise FastaError(
            f"{path}: the id of record {position} holds control characters: {name[:_SHOWN_LETTERS]!a}; "
            "remove them from its header"
        )


def _require_bounded(path: Path) -> None:
    """Raise where a record is longer than any that is meant: the parser holds a whole one in memory."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(_ZSTANDARD):
        raise FastaError(f"{path}: is compressed with zstd; unpack it, or compress it with gzip")
    unpack = next((unpack for start, unpack in _PACKED.items() if magic.startswith(start)), None)
    if unpack is None and path.stat().st_size <= LONGEST_RECORD:
        return
    with (unpack or io.open)(path, "rb") as stream:
        start = _long_record(stream)
    if start is not None:
        raise FastaError(
            f"{path}: the record at byte {start:,} of its text has more than {LONGEST_RECORD:,} bytes; "
            "cut it into records of the length that is meant"
        )


def _long_record(stream: IO[bytes]) -> int | None:
    """Offset of the first record that is longer than the limit; None where there is none."""
    record = position = 0
    last = b"\n"
    # The parser says better what is wrong with a damaged file; up to there it reads what was read here.
    with suppress(EOFError, OSError, zlib.error, lzma.LZMAError):
        while block := stream.read(_BLOCK):
            starts = (last + block).find(b"\n>"), (last + block).rfind(b"\n>")
            if position + (len(block) if starts[0] < 0 else starts[0]) - record > LONGEST_RECORD:
                return record
            record = record if starts[1] < 0 else position + starts[1]
            position += len(block)
            last = block[-1:]
    return None


def read(path: Path) -> Records:
    """Read a FASTA file; see :func:`stream`.

    Raises
    ------
    FastaError
        As :func:`stream`.
    """
    records = Records(path, [], [])
    for name, sequence in stream(path):
        records.ids.append(name)
        records.sequences.append(sequence)
    return records


def inspect(path: Path, alphabet: str, limit: int | None = None) -> FastaFacts:
    """Read a file once and gather what pre-flight and resume need to know of it.

    Parameters
    ----------
    path : Path
        FASTA file.
    alphabet : str
        Upper-case letters that are allowed.
    limit : int, optional
        Length in letters above which records are counted as too long.

    Raises
    ------
    FastaError
        The file cannot be parsed at all.
    """
    records = read(path)
    lengths = [len(sequence) for sequence in records.sequences]
    limit = limit or max(lengths)
    return FastaFacts(
        records=len(records),
        letters=sum(lengths),
        letters_read=sum(min(length, limit) for length in lengths),
        digest=records.digest(),
        ids_digest=ids_digest(records.ids),
        over_limit=sum(length > limit for length in lengths),
        problems=tuple(_problems(records, alphabet)),
    )


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 over the sorted ids: equal for two files that hold the same ids in any order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def require_usable(records: Records, alphabet: str) -> None:
    """Raise where records are empty, appear twice, or hold letters outside the alphabet.

    Raises
    ------
    FastaError
        Names the file, the records, and for a letter its position (counted from 1).
    """
    problems = list(_problems(records, alphabet))
    if problems:
        raise FastaError("\n".join(problems))


def _problems(records: Records, alphabet: str) -> Iterator[str]:
    path = records.path
    empty = [name for name, sequence in zip(records.ids, records.sequences, strict=True) if not sequence]
    if empty:
        yield (
            f"{path}: {len(empty)} records without a sequence: {first_few(empty, _SHOWN)}; "
            "remove them from both sides"
        )
    if len(set(records.ids)) != len(records):
        twice = [name for name, times in Counter(records.ids).items() if times > 1]
        yield (
            f"{path}: {len(twice)} ids appear more than once: {first_few(twice, _SHOWN)}; "
            "ids must be unique in a file"
        )
    wrong = list(_wrong_letters(records, alphabet))
    if wrong:
        yield f"{path}: letters outside {alphabet}: {first_few(wrong, _SHOWN)}; correct or remove these records"


def _wrong_letters(records: Records, alphabet: str) -> Iterator[str]:
    allowed = alphabet.encode()
    # One pass over the whole file in C decides the normal case; records are only searched when it fails.
    if not b"".join(records.sequences).translate(None, allowed):
        return
    for name, sequence in zip(records.ids, records.sequences, strict=True):
        foreign = sequence.translate(None, allowed)
        if foreign:
            letter = chr(foreign[0])
            yield f"{name} has {letter!r} at position {sequence.index(foreign[0]) + 1}"


def difference(left: Iterable[str], right: Iterable[str]) -> tuple[list[str], list[str]]:
    """Ids that only the left, and only the right side holds, each in its own order."""
    left, right = list(left), list(right)
    in_left, in_right = set(left), set(right)
    return [name for name in left if name not in in_right], [name for name in right if name not in in_left]


def count(path: Path) -> int:
    """Number of records, streamed: memory does not grow with the file.

    Raises
    ------
    FastaError
        The file cannot be parsed.
    """
    return sum(1 for _ in _parse(path))


def split(path: Path, folder: Path, records_per_file: int) -> int:
    """Write ``output_1.fa``, ``output_2.fa``, … with single-line sequences into an existing folder.

    Parameters
    ----------
    path : Path
        FASTA file of any size; it is streamed.
    folder : Path
        Where the parts go.
    records_per_file : int
        Records of each part; the last may have fewer.

    Returns
    -------
    int
        Number of files written.

    Raises
    ------
    FastaError
        The file cannot be parsed.
    """
    records = _parse(path)
    number = 0
    while chunk := list(islice(records, records_per_file)):
        number += 1
        with (folder / f"output_{number}.fa").open("w", encoding="utf-8", newline="\n") as part:
            part.writelines(f">{record.id}\n{record.seq}\n" for record in chunk)
    return number
