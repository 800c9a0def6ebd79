"""FASTA records: reading, inspecting and splitting.

Files come from the data folder (or from a user of ``nucpro embed``). Records go to the encoders; facts about
a file (:class:`FastaFacts`) go to the pre-flight checks and the checkpoint. Existing parsers open files only
by name and stop after the first stream of some compressed files, so records are parsed here, from the text
that :mod:`nucpro.formats.unpacking` gives. The tests compare the result with needletail's.
"""

from __future__ import annotations

import codecs
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Self

from nucpro.errors import FastaError, counted, first_few, is_plain
from nucpro.formats.opening import UNKNOWN, is_pipe, looks_like
from nucpro.formats.sequences import NUCLEOTIDES, SequenceType, Tally, advice_on, looks_like_nucleotides
from nucpro.formats.unpacking import TextStream, open_text

__all__ = [
    "LONGEST_RECORD",
    "Checker",
    "FastaFacts",
    "Records",
    "bare_name",
    "count",
    "difference",
    "digest_line",
    "holds_nothing",
    "ids_digest",
    "inspect",
    "read",
    "require_usable",
    "split",
    "stream",
]

LONGEST_RECORD = 100_000_000
"""Largest record in bytes; the longest of the data sets have 10,000 bases. Reading one takes four times that memory."""

_BLOCK = 1 << 17
_MARK = b"\n>"
"""Start of a record, with the end of the line before it."""
_LOOKED_AHEAD = 8 << 20
"""Record size in bytes above which the length is determined before the record is read."""
_LINES_OF_FASTQ = 4
_LOOKED_AT = 512
_COPY_AGAIN = "copy or download the file again"
_SHOWN = 5
_SHOWN_LETTERS = 100


_PACKED = (".gz", ".bgz", ".bz2", ".xz", ".zst")
_SUFFIXES = (".fasta", ".fa", ".faa", ".fna", ".ffn", ".fas", ".fastq", ".fq")


def bare_name(path: Path) -> str:
    """Name of a sequence file without the suffixes of its compression and format."""
    name = path.name
    for suffixes in (_PACKED, _SUFFIXES):
        name = name.removesuffix(next((suffix for suffix in suffixes if name.endswith(suffix)), "")) or name
    return name


@dataclass(frozen=True, repr=False)
class Records:
    """All records of one FASTA file, in its order.

    Parameters
    ----------
    path : Path
        The file, for messages.
    ids : list of str
        Headers up to the first white space.
    sequences : list of bytes
        Upper-case residues or bases without line breaks.
    """

    path: Path
    ids: list[str]
    sequences: list[bytes]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Records: {len(self)} of {self.path}>"

    def digest(self) -> str:
        """SHA-256 over ids and upper-case sequences: line width, line ends and compression do not count.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        content = hashlib.sha256()
        for name, sequence in zip(self.ids, self.sequences, strict=True):
            content.update(digest_line(name, sequence))
        return content.hexdigest()


@dataclass(frozen=True, slots=True)
class FastaFacts:
    """Facts from one pass over a FASTA file.

    Parameters
    ----------
    records, letters, letters_read : int
        Number of records, their total length, and their total length with each cut at the limit.
    digest, ids_digest : str
        See :meth:`Records.digest` and :func:`ids_digest`.
    over_limit : int
        Records longer than the limit that was asked for.
    nucleotide : bool
        Whether a file of proteins looks like nucleotides; see :class:`nucpro.formats.sequences.Tally`.
    problems : tuple of str
        One message for each kind of problem, naming the first records that have it.
    """

    records: int
    letters: int
    letters_read: int
    digest: str
    ids_digest: str
    over_limit: int
    nucleotide: bool
    problems: tuple[str, ...]

    @classmethod
    def unknown(cls, records: int) -> Self:
        """Facts of a file that does not exist yet; only the number of records is known."""
        return cls(records, 0, 0, "", "", 0, False, ())


def _parse(
    path: Path, *, fastq: bool = False, longest: int | None = LONGEST_RECORD, allow_pipe: bool = False
) -> Iterator[_Batch]:
    """Header and sequence of each record, unchanged, several records at a time."""
    with open_text(path, FastaError, allow_pipe=allow_pipe) as text:
        first, blocks = _started(path, text, fastq)
        parse = _parse_fastq if first.startswith(b"@") else _parse_fasta
        yield from parse(path, blocks, longest or sys.maxsize)


def _started(path: Path, text: TextStream, fastq: bool) -> tuple[bytes, Iterable[bytes]]:
    """First block of a text, and all of its blocks; raises where it does not begin with a record."""
    blocks = _blocks(path, text)
    first = next(filter(None, (block.lstrip(b"\n") for block in blocks)), b"")
    _require_start(path, first, fastq)
    return first, chain((first,), blocks)


def _blocks(path: Path, text: TextStream) -> Iterator[bytes]:
    """Text without a byte order mark and carriage returns: a line feed ends each line."""
    first = text.read(_BLOCK)
    while b"\n" not in first and len(first) < _BLOCK and (more := text.read(_BLOCK)):
        first += more
    if not first:
        nothing = "is empty when unpacked" if text.is_packed else "the file is empty"
        raise FastaError(f"{path}: {nothing}; remove it or write it again")
    first = first.removeprefix(codecs.BOM_UTF8)
    # Before OS X, lines on a Macintosh ended with a carriage return alone. All others are part of a line's end, also
    # of one that a program made out of a whole line end.
    instead = b"" if b"\n" in first else b"\n"
    for block in chain((first,), iter(partial(text.read, _BLOCK), b"")):
        yield block.replace(b"\r", instead) if b"\r" in block else block


def _require_start(path: Path, start: bytes, fastq: bool) -> None:
    looks = looks_like(start[:_LOOKED_AT])
    is_fastq = looks == "a FASTQ file" and start.startswith(b"@")
    if (is_fastq and fastq) or (looks == "a FASTA file" and start.startswith(b">")):
        return
    if is_fastq:
        raise FastaError(f"{path}: record 1 is FASTQ (starts with '@'); convert it to FASTA first")
    found = start.partition(b"\n")[0][:20].decode("utf-8", "replace")
    is_named = looks not in (UNKNOWN, "a FASTA file", "a FASTQ file")
    reason = f"it is {looks}" if is_named else f"it starts with {found!a}"
    starts = "'>' or '@'" if fastq else "'>'"
    raise FastaError(
        f"{path}: cannot be read as {_kinds(fastq)}: {reason}; the file must start with {starts} and be complete"
    )


_Batch = list[tuple[bytes, bytes]]
"""Header and sequence of some records."""


class _Stretch(NamedTuple):
    """A block of text, and the record that reaches into it: its offset, and its bytes up to its end or the block's.

    `cut` is where the last record of the block begins; None where the whole block is of the one that reaches into it.
    """

    block: bytes
    start: int
    length: int
    cut: int | None


def _stretches(blocks: Iterable[bytes]) -> Iterator[_Stretch]:
    start = position = 0
    last = b"\n"
    for block in blocks:
        marks = last + block
        first, cut = marks.find(_MARK), marks.rfind(_MARK)
        end = position + (len(block) if first < 0 else first)
        yield _Stretch(block, start, end - start, None if cut < 0 else cut)
        start = start if cut < 0 else position + cut
        position += len(block)
        last = block[-1:] or last


def _parse_fasta(path: Path, blocks: Iterable[bytes], longest: int) -> Iterator[_Batch]:
    for text in _whole_records(path, blocks, longest):
        parts = text.split(_MARK)
        # Free the memory of a chromosome before its reader works with the batch.
        del text
        lines = [part.partition(b"\n") for part in parts]
        del parts
        batch = [(header, sequence.replace(b"\n", b"")) for header, _, sequence in lines]
        del lines
        yield batch


def _whole_records(path: Path, blocks: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """Texts of one or more whole records each, without the mark of their first."""
    pieces: list[bytes] = []
    is_bounded = longest == sys.maxsize
    for block, start, length, cut in _stretches(blocks):
        if length > _LOOKED_AHEAD and not is_bounded:
            # Checked only here: most files have short records, and are read once.
            _require_bounded(path, longest)
            is_bounded = not is_pipe(path)
        if length > longest:
            raise _too_long(path, start)
        pieces.append(block[:cut])
        if cut is not None:
            texts = [b"".join(pieces)[1:]]
            pieces = [block[cut:]]
            if texts[0]:
                yield texts.pop()
    texts = [b"".join(pieces)[1:]]
    pieces.clear()
    _require_sequence_at_end(path, texts[0])
    yield texts.pop()


def _require_sequence_at_end(path: Path, text: bytes) -> None:
    """Raise if a file ends with a header, as a truncated file does; a blank line is an empty sequence."""
    mark = text.rfind(_MARK)
    start = mark + len(_MARK) if mark >= 0 else 0
    end = text.find(b"\n", start)
    if end in (-1, len(text) - 1):
        header = text[start : start + _SHOWN_LETTERS].strip()
        raise FastaError(
            f"{path}: cannot be read as FASTA: it ends after a header ({header.decode('utf-8', 'replace')!a}), without "
            f"its sequence; {_COPY_AGAIN}"
        )


def _require_bounded(path: Path, longest: int) -> None:
    """Raise if a record exceeds the limit, before much of it is in memory."""
    if is_pipe(path):
        return
    with open_text(path, FastaError) as text:
        for _, start, length, _ in _stretches(_blocks(path, text)):
            if length > longest:
                raise _too_long(path, start)


def _parse_fastq(path: Path, blocks: Iterable[bytes], longest: int) -> Iterator[_Batch]:
    record: list[bytes] = []
    records = 0
    for line in _lines(path, blocks, longest):
        if not line and not record:
            continue  # blank lines between records are ignored
        record.append(line)
        if len(record) == _LINES_OF_FASTQ:
            records += 1
            yield [_fastq_record(path, records, record)]
            record = []
    if record:
        raise FastaError(
            f"{path}: cannot be read as FASTQ: it ends within record {records + 1}, after {len(record)} of "
            f"its {_LINES_OF_FASTQ} lines; {_COPY_AGAIN}"
        )


def _fastq_record(path: Path, number: int, lines: list[bytes]) -> tuple[bytes, bytes]:
    header, sequence, plus, qualities = lines
    if not header.startswith(b"@") or not plus.startswith(b"+"):
        problem = "is not four lines: '@' and id, sequence, '+', qualities"
    elif len(sequence) != len(qualities):
        problem = f"has {len(sequence)} bases and {len(qualities)} qualities"
    else:
        return header[1:], sequence
    raise FastaError(
        f"{path}: cannot be read as FASTQ: record {number} {problem}; {_COPY_AGAIN}, or convert it to FASTA"
    )


def _lines(path: Path, blocks: Iterable[bytes], longest: int) -> Iterator[bytes]:
    pieces: list[bytes] = []
    position = size = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        pieces.append(first)
        size += len(first)
        if size > longest:
            raise _too_long(path, position)
        if others:
            yield b"".join(pieces)
            yield from others[:-1]
            pieces, size = [others[-1]], len(others[-1])
        position += len(block)
    if last := b"".join(pieces):
        yield last


def _kinds(fastq: bool) -> str:
    return "FASTA or FASTQ" if fastq else "FASTA"


def _too_long(path: Path, start: int) -> FastaError:
    return FastaError(
        f"{path}: the record at byte {start:,} of its text has more than {LONGEST_RECORD:,} bytes; "
        "split it into records of the intended length"
    )


def holds_nothing(path: Path) -> bool:
    """Whether a file is empty, or decompresses to nothing.

    Raises
    ------
    FastaError
        It cannot be opened or unpacked.
    """
    with open_text(path, FastaError) as text:
        return not text.read(1)


def stream(
    path: str | Path, *, fastq: bool = False, longest: int | None = LONGEST_RECORD, allow_pipe: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the upper-case sequence of each record; memory does not grow with the file.

    Files may be plain or compressed with gzip, bzip2, xz or zstd, wrapped or not, with any line ends.

    Parameters
    ----------
    path : Path
        The file.
    fastq : bool
        Accept FASTQ too; qualities are ignored.
    longest : int, optional
        Largest record that is read into memory, in bytes; None for no limit.
    allow_pipe : bool
        Accept a pipe or standard input too; see :func:`nucpro.formats.opening.open_input`.

    Yields
    ------
    tuple of (str, bytes)
        Id and upper-case sequence of a record.

    Raises
    ------
    FastaError
        The file is missing, empty, cut short, of another format, or an id is missing, not UTF-8, or holds
        controls.
    """
    path, position = Path(path), 0
    for batch in _parse(path, fastq=fastq, longest=longest, allow_pipe=allow_pipe):
        names = _ids(path, position, [header for header, _ in batch])
        position += len(batch)
        sequences = _upper([sequence for _, sequence in batch])
        batch.clear()
        yield from zip(names, sequences, strict=True)


def _ids(path: Path, before: int, headers: Sequence[bytes]) -> list[str]:
    """Ids of records, numbered from `before`."""
    words = [header.split(None, 1) for header in headers]
    if all(words):
        names = [word[0].decode("utf-8", "replace") for word in words]
        together = "".join(names)
        # All at once, since nearly every id is plain; one that is not, or comes after white space, is looked for below.
        is_plain = together.isascii() and together.isprintable()
        if is_plain and all(map(bytes.startswith, headers, [word[0] for word in words])):
            return names
    names = [_first_word(header.decode("utf-8", "replace")) for header in headers]
    for position, name in enumerate(names, before + 1):
        _require_usable_id(path, position, name)
    return names


def _first_word(header: str) -> str:
    return header.split(maxsplit=1)[0] if header[:1].strip() else ""


def _upper(sequences: list[bytes]) -> list[bytes]:
    """Upper-case sequence; non-ASCII characters become question marks, which no alphabet has."""
    together = b"".join(sequences)
    if not together.isascii():
        # Before upper(), which would turn some of them into ASCII characters.
        sequences = [text.decode("utf-8", "replace").encode("ascii", "replace") for text in sequences]
    elif len(sequences) > 1 and together.upper() == together:
        return sequences
    del together
    return [sequence.upper() for sequence in sequences]


def _require_usable_id(path: Path, position: int, name: str) -> None:
    if not name or "\ufffd" in name:
        what = (
            f"is not valid UTF-8: {name[:_SHOWN_LETTERS]!a}; save the file as UTF-8, or use ASCII characters in ids"
            if name
            else "is missing; give every header an id after '>'"
        )
        raise FastaError(f"{path}: the id of record {position} {what}")
    if not is_plain(name):
        raise FastaError(
            f"{path}: the id of record {position} holds control characters: {name[:_SHOWN_LETTERS]!a}; "
            "remove them from its header"
        )


def read(path: str | Path, *, allow_pipe: bool = False) -> Records:
    """Read a FASTA file; see :func:`stream`.

    Parameters
    ----------
    path : str or Path
        The file, uncompressed or compressed.
    allow_pipe : bool
        Also read a pipe, and ``-`` for standard input.

    Returns
    -------
    Records
        Ids and upper-case sequences, in the order of the file.

    Raises
    ------
    FastaError
        As :func:`stream`.
    """
    records = Records(Path(path), [], [])
    for name, sequence in stream(path, allow_pipe=allow_pipe):
        records.ids.append(name)
        records.sequences.append(sequence)
    return records


def inspect(path: Path, alphabet: str, limit: int | None = None) -> FastaFacts:
    """Read a file once and collect the facts that pre-flight checks and resuming need.

    Parameters
    ----------
    path : Path
        FASTA file.
    alphabet : str
        Allowed characters, in upper case.
    limit : int, optional
        Length above which records are counted as too long.

    Returns
    -------
    FastaFacts
        Counts, digests and problems.

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
        nucleotide=alphabet != NUCLEOTIDES and looks_like_nucleotides(b"".join(records.sequences)),
        problems=tuple(_problems(records, alphabet)),
    )


def digest_line(name: str, sequence: bytes) -> bytes:
    """Contribution of one record to :meth:`Records.digest`, for readers that hold one record at a time."""
    return b"%b\t%b\n" % (name.encode(), sequence)


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 over the sorted ids: equal for two files that hold the same ids in any order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def require_usable(records: Records, alphabet: str) -> None:
    """Raise if records are empty, have duplicate ids, or hold characters outside the alphabet.

    Parameters
    ----------
    records : Records
        Records to check.
    alphabet : str
        Allowed characters, in upper case.

    Raises
    ------
    FastaError
        Names the file, the records, and for a character its position (counted from 1).
    """
    problems = _problems(records, alphabet)
    if problems:
        raise FastaError("\n".join(problems))


class Checker:
    """Finds unusable records, several records at a time; memory grows with their ids only.

    Parameters
    ----------
    path : Path
        The file, for messages.
    alphabet : str
        Allowed characters, in upper case.
    """

    def __init__(self, path: Path, alphabet: str) -> None:
        self._path = path
        self._alphabet = alphabet
        self._seen: set[str] = set()
        self._twice: dict[str, None] = {}
        self._empty: list[str] = []
        self._wrong: list[tuple[str, str, int]] = []
        self._looks = Tally(0, 0, 0)

    def add(self, ids: Sequence[str], sequences: Sequence[bytes]) -> None:
        """Check the next records."""
        self._empty += [name for name, sequence in zip(ids, sequences, strict=True) if not sequence]
        if not self._seen.isdisjoint(ids) or len(set(ids)) != len(ids):
            counts = Counter(ids)
            self._twice |= dict.fromkeys(n for n in counts if counts[n] > 1 or n in self._seen)
        self._seen.update(ids)
        # One pass over all characters in C decides the normal case; records are only searched when it fails.
        together = b"".join(sequences)
        if together.translate(None, self._alphabet.encode()):
            self._wrong += _wrong_letters(ids, sequences, self._alphabet.encode())
            self._looks += Tally.of(together)

    def problems(self) -> list[str]:
        """One message for each kind of problem, naming the first records that have it."""
        problems = []
        if self._empty:
            count = len(self._empty)
            problems.append(
                f"{self._path}: {counted(count, 'record')} without a sequence: {first_few(self._empty, _SHOWN)}; "
                "remove such records"
            )
        if self._twice:
            problems.append(
                f"{self._path}: {counted(len(self._twice), 'duplicate id')}: {first_few(list(self._twice), _SHOWN)}; "
                "ids must be unique in a file, and an id ends at the first space of its header"
            )
        if self._wrong:
            places = [
                f"{name} has {letter!r} at position {position}" for name, letter, position in self._wrong
            ]
            problems.append(
                f"{self._path}: characters outside {self._alphabet}: {first_few(places, _SHOWN)}; correct or remove "
                f"these records{self._advice()}"
            )
        return problems

    def _advice(self) -> str:
        if self._alphabet == NUCLEOTIDES and self._looks.sequence_type is SequenceType.PROTEIN:
            return " (they look like proteins, and nucleotides are expected here)"
        advice = advice_on(self._wrong[0][1])
        return f" ({advice})" if advice else ""


def _problems(records: Records, alphabet: str) -> list[str]:
    checker = Checker(records.path, alphabet)
    checker.add(records.ids, records.sequences)
    return checker.problems()


def _wrong_letters(
    ids: Sequence[str], sequences: Sequence[bytes], allowed: bytes
) -> Iterator[tuple[str, str, int]]:
    """Id, character and position (from 1) of the first character outside the alphabet, for each such record."""
    for name, sequence in zip(ids, sequences, strict=True):
        foreign = sequence.translate(None, allowed)
        if foreign:
            yield name, chr(foreign[0]), sequence.index(foreign[0]) + 1


def difference(left: Iterable[str], right: Iterable[str]) -> tuple[list[str], list[str]]:
    """Ids that only the left list has, and those that only the right has, each in its own order."""
    left, right = list(left), list(right)
    in_left, in_right = set(left), set(right)
    return [name for name in left if name not in in_right], [name for name in right if name not in in_left]


def count(path: str | Path) -> int:
    """Number of records, streamed: memory does not grow with the file.

    Parameters
    ----------
    path : str or Path
        The file, uncompressed or compressed.

    Returns
    -------
    int
        Number of records.

    Raises
    ------
    FastaError
        The file cannot be parsed.
    """
    path = Path(path)
    with open_text(path, FastaError) as text:
        _, blocks = _started(path, text, fastq=False)
        return sum(part.count(_MARK) + 1 for part in _whole_records(path, blocks, LONGEST_RECORD))


def split(path: str | Path, folder: str | Path, records_per_file: int) -> int:
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
    path, folder = Path(path), Path(folder)
    records = chain.from_iterable(_parse(path))
    number = 0
    while chunk := list(islice(records, records_per_file)):
        number += 1
        with (folder / f"output_{number}.fa").open("wb") as part:
            part.writelines(b">%b\n%b\n" % record for record in chunk)
    return number
