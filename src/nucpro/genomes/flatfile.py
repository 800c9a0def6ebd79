"""Records of a GenBank flat file, as far as their coding sequences and their organism go.

Lines come in, one :class:`FlatRecord` per record goes to :mod:`nucpro.genomes.genbank`. The layout is that of
NCBI's release notes (https://www.ncbi.nlm.nih.gov/genbank/release/current/, section 3.4): keywords of a
record start in column 1, the kind of a feature in column 6, its location and qualifiers in column 22. What is
indented more is read as Biopython reads it. A line that fits nothing is an error with its number, never
skipped: skipping it would lose the genes that follow. Lines that carry no gene (dates, references,
contigs, bases) may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from nucpro.errors import DataError, printable

__all__ = ["LONGEST_LINE", "NO_ORGANISM", "CodingSequence", "FlatRecord", "Organism", "read_records"]

LONGEST_LINE = 1 << 20
"""Bytes of a line; the format has lines of 80 columns, and some programs do not wrap qualifiers."""

_QUALIFIERS = 21
"""Columns in front of locations and qualifiers."""
_BLANK = b" " * _QUALIFIERS
_KIND = re.compile(rb"(?=.*[A-Za-z]{2})[A-Za-z0-9_'*-]+")
_SECTION = re.compile(rb"[A-Z][A-Z_]+(?= |$)")
_FEATURE = re.compile(rb" *CDS +\S|.*FEATURES +Location/Qualifiers")
_LENGTH = re.compile(rb"\s(\d+)\s+([A-Za-z]{2})\s")
_GAP = re.compile(rb"\[gap (\d+) bp\][^\n]*")
_TAXON = re.compile(rb'/db_xref="taxon:(\d{1,9})"')
_ORGANISM = re.compile(rb'/organism="([^"]*)"')
_HEADING_TEXT = b" " * 12
_NOT_BASES = b" 0123456789\t\r\n"
_FULL_LINE = 76
_BASES_OF_FULL_LINE = 60
# Headers of release files (GBVRL1.SEQ) have ten lines.
_MOST_IN_FRONT = 100
_PROTEIN = re.compile(rb"[A-Za-z*.-]*")


@dataclass
class CodingSequence:
    """A CDS feature.

    Parameters
    ----------
    location : str
        As it is written, without white space.
    translation : str
        Residues; empty where there are none. Of two qualifiers of a name the first counts.
    transl_table : str or None
        Its genetic code; None if not given.
    """

    location: str
    translation: str = ""
    transl_table: str | None = None


@dataclass(frozen=True)
class Organism:
    """Organism of a record.

    Parameters
    ----------
    name : str
        Of its first ``source`` feature, or its ORGANISM line; empty where there is neither.
    taxon : int or None
        Number of NCBI's taxonomy (``/db_xref="taxon:10710"``).
    lineage : tuple of str
        Names of the taxa above it, the widest first; GenBank does not record their ranks.
    """

    name: str = ""
    taxon: int | None = None
    lineage: tuple[str, ...] = ()


NO_ORGANISM = Organism()
"""Organism of a record that names none."""


@dataclass
class FlatRecord:
    """One record.

    Parameters
    ----------
    number, line : int
        Its place in the file, and that of its first line, counted from 1.
    name : str
        Accession with version; without one the accession, or the name of the LOCUS line.
    length : int or None
        Bases that the LOCUS line promises; None where it names none, as master records of projects do not.
    bases : int or None
        Bases below ORIGIN; None where there is no sequence.
    cds : list of CodingSequence
        In the order of the file.
    organism : Organism
        As far as it is named.
    """

    number: int
    line: int
    name: str = ""
    length: int | None = None
    bases: int | None = None
    cds: list[CodingSequence] = field(default_factory=list)
    organism: Organism = NO_ORGANISM


def read_records(path: Path, file: BinaryIO) -> Iterator[FlatRecord]:
    """Stream the records of a flat file.

    Parameters
    ----------
    path : Path
        Name of the file, for messages.
    file : binary file
        Its text.

    Raises
    ------
    DataError
        A line has no place in the format, a record is incomplete, or its sequence has not the length of its LOCUS line.
    """
    return _Reader(path, file).records()


class _Reader:
    """Goes through the lines once; every method begins with the line at hand and ends with one not yet used."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._read = file.readline
        self._number = 0
        self._line: bytes | None = b""
        self._record = FlatRecord(0, 0)

    def records(self) -> Iterator[FlatRecord]:
        self._next()
        self._skip_to_first()
        while self._line is not None:
            if self._line:
                yield self._one()
            self._next()

    def _next(self) -> bytes | None:
        line = self._read(LONGEST_LINE + 1)
        self._number += 1
        self._require_bounded(line)
        self._line = line.rstrip() if line else None
        return self._line

    def _fail(self, what: str, line: int | None = None) -> NoReturn:
        record = f"record {self._record.number}" if self._record.number else "before the first record"
        name = f" ({printable(self._record.name)[:100]})" if self._record.name else ""
        raise DataError(f"{self._path}: {record}{name}, line {line or self._number}: {what}")

    def _skip_to_first(self) -> None:
        if self._line is not None:
            self._line = self._line.removeprefix(b"\xef\xbb\xbf")
        while self._line is not None and not self._line.startswith(b"LOCUS "):
            if self._number > _MOST_IN_FRONT or self._line == b"//" or self._line.startswith(b"locus "):
                self._fail("no record begins here; the first line of one starts with LOCUS, in upper case")
            self._next()

    def _one(self) -> FlatRecord:
        self._record = FlatRecord(self._record.number + 1, self._number)
        self._locus()
        line = self._next()
        while line is not None and line != b"//":
            if line.startswith(b"LOCUS "):
                self._fail(
                    "a record begins before // ended this one; it is not complete: complete or remove it"
                )
            if line.startswith(b"FEATURES "):
                self._features()
            elif line.startswith(b"ORIGIN"):
                self._sequence()
            elif line.startswith(b"  ORGANISM "):
                self._lineage(line)
            else:
                self._heading(line)
                self._next()
            line = self._line
        self._require_complete(ended=line is not None)
        return self._record

    def _require_complete(self, *, ended: bool) -> None:
        record = self._record
        if not record.name:
            raise DataError(
                f"{self._path}: record {record.number} has no VERSION, ACCESSION or name; give it one"
            )
        if not ended and (record.bases is None or record.bases != record.length):
            self._fail("the file ends before // ended the record; it is not complete: complete or remove it")
        if record.length is not None and record.bases is not None and record.bases != record.length:
            self._fail(
                f"{record.bases} bases, but LOCUS (line {record.line}) promises {record.length}; "
                "lines are missing or damaged: correct or remove the record"
            )

    def _locus(self) -> None:
        line = self._line or b""
        if not line.startswith(b"LOCUS "):
            self._fail(
                f"expected LOCUS or the end of the file, found {_shown(line)}; remove what is no record"
            )
        if b"\r" in line:
            self._fail("the line ends are those of old Macintosh files (CR); convert them to LF")
        words = line.split(maxsplit=2)
        # The name may fill its columns up to the length, or leave them empty.
        self._record.name = "" if line[5:13].isspace() else words[1].decode(errors="replace")
        length = _LENGTH.search(line + b" ")
        if length and length[2].lower() in {b"bp", b"aa"}:
            self._record.length = int(length[1][:18])

    def _heading(self, line: bytes) -> None:
        if line.startswith((b"ACCESSION ", b"VERSION ")):
            words = line.split(maxsplit=2)
            # Old files have a GI number behind the version, and secondary accessions behind the first.
            self._record.name = words[1].decode(errors="replace") if len(words) > 1 else self._record.name
        elif line.startswith(b" ") and _FEATURE.match(line) and not line.startswith(b" " * 12):
            self._fail(f"{_shown(line)} is outside the table of features; FEATURES must start in column 1")

    def _lineage(self, line: bytes) -> None:
        """Read ORGANISM: a name, and below it the taxa that it belongs to."""
        lines = [line.removeprefix(b"  ORGANISM ")]
        while (following := self._next()) is not None and following.startswith(_HEADING_TEXT):
            lines.append(following)
        words = [_text_of(one) for one in lines]
        # Long names go on below; the lineage begins with the first line of names between semicolons.
        start = next((n for n, one in enumerate(words[1:], 1) if ";" in one or one.endswith(".")), len(words))
        lineage = " ".join(words[start:]).removesuffix(".").split(";")
        names = tuple(name.strip() for name in lineage if name.strip())
        self._record.organism = Organism(" ".join(words[:start]), lineage=names)

    def _features(self) -> None:
        """Read the table of features, up to the first line that does not belong to it."""
        self._next()
        while (line := self._line) is not None:
            if not line:
                self._next()
            elif line.startswith(b" ") or not self._ends_table(line):
                self._feature(line)
            else:
                return

    def _ends_table(self, line: bytes) -> bool:
        section = _SECTION.match(line)
        return line == b"//" or (section is not None and section[0] not in {b"CDS", b"LTR", b"STS", b"RBS"})

    def _feature(self, line: bytes) -> None:
        words, location = line[2:_QUALIFIERS].split(), line[_QUALIFIERS:].strip()
        if b"\t" in line[: _QUALIFIERS + 1]:
            self._fail(f"{_shown(line)} is indented by tabs; use spaces")
        if line[:2].strip() or len(words) != 1 or not _KIND.fullmatch(words[0]) or not location:
            self._fail(
                f"{_shown(line)} fits neither a feature (its kind in column 6, its location in column 22) "
                "nor a qualifier (in column 22); correct its indentation"
            )
        if words[0] != b"CDS" and words[0].upper() == b"CDS":
            self._fail(f"{_shown(line)} is written {_shown(words[0])}; a coding sequence must be called CDS")
        first = self._number
        lines = self._continued(location)
        if words[0] == b"CDS":
            self._record.cds.append(self._coding_sequence(first, lines))
        elif words[0] == b"source" and self._record.organism.taxon is None:
            self._source(lines)

    def _continued(self, location: bytes) -> list[bytes]:
        """Gather the lines of a feature without their indentation, up to the first line that is not its own."""
        lines = [location]
        read, number = self._read, self._number
        # This loop sees most lines of a file.
        while line := read(LONGEST_LINE + 1):
            number += 1
            if line.startswith(_BLANK) and len(line) <= LONGEST_LINE:
                lines.append(line.strip())
            elif line.strip() or len(line) > LONGEST_LINE:
                break
        self._number = number if line else number + 1
        self._line = line.rstrip() if line else None
        self._require_bounded(line)
        return lines

    def _require_bounded(self, line: bytes) -> None:
        if len(line) > LONGEST_LINE:
            self._fail(f"has more than {LONGEST_LINE:,} bytes; wrap it")

    def _source(self, lines: list[bytes]) -> None:
        text = b" ".join(lines)
        taxon, name = _TAXON.search(text), _ORGANISM.search(text)
        before = self._record.organism
        self._record.organism = Organism(
            _text_of(name[1]) if name else before.name, int(taxon[1]) if taxon else None, before.lineage
        )

    def _coding_sequence(self, first: int, lines: list[bytes]) -> CodingSequence:
        location, texts = _divided(lines)
        if location.count(b"(") != location.count(b")"):
            self._fail(
                f"the location {_shown(location)} in line {first} is not complete before this line; correct it, or the "
                "indentation"
            )
        found = CodingSequence(b"".join(location.split()).decode(errors="replace"))
        values: dict[bytes, bytes] = {}
        for text in texts:
            name, _, value = text.partition(b"=")
            if text.endswith(b"\n"):
                self._fail(
                    f"the quotation of {_shown(name)} in the feature of line {first} is not closed before this line, "
                    "or before a translation; close it, or correct the indentation"
                )
            if name.startswith(b"/transl"):
                values.setdefault(name[1:].strip(), value.strip().removeprefix(b'"').removesuffix(b'"'))
        found.translation = self._protein(b"".join(values.get(b"translation", b"").split()), first)
        if b"transl_table" in values:
            found.transl_table = values[b"transl_table"].strip().decode(errors="replace")
        return found

    def _protein(self, residues: bytes, line: int) -> str:
        whole = _PROTEIN.match(residues)
        if whole is None or whole.end() != len(residues):
            odd = residues[whole.end() if whole else 0 :]
            self._fail(
                f"the translation of the CDS in line {line} holds {_shown(odd)}, which is no residue; correct it"
            )
        return residues.decode()

    def _sequence(self) -> None:
        """Count the bases up to the end of the record."""
        bases = 0
        read, number = self._read, self._number
        while line := read(LONGEST_LINE + 1):
            number += 1
            # Nearly every line is a full one.
            if len(line) == _FULL_LINE and line[9:10] == b" " and line[20:21] == b" ":
                bases += _BASES_OF_FULL_LINE
            elif line.startswith((b"//", b"LOCUS ")):
                break
            else:
                bases += self._bases_of(line)
        self._number = number if line else number + 1
        self._line = line.rstrip() if line else None
        # Records that only refer to their contigs may have ORIGIN with nothing below it.
        self._record.bases = bases or None

    def _bases_of(self, line: bytes) -> int:
        gaps = sum(int(size[:18]) for size in _GAP.findall(line)) if b"[" in line else 0
        self._require_bounded(line)
        return gaps + len(_GAP.sub(b"", line).translate(None, _NOT_BASES))


def _divided(lines: list[bytes]) -> tuple[bytes, list[bytes]]:
    """Location and qualifiers of a feature, each qualifier with all its lines joined by line feeds.

    A qualifier whose quotation is not closed ends with a line feed.
    """
    location: list[bytes] = []
    texts: list[list[bytes]] = []
    quotes = 0
    for line in lines:
        if line.startswith(b"/") and (not quotes or line.startswith(b'/translation="')):
            texts.append([line])
            _mark_open(texts[-2:-1], quotes)
            value = line.partition(b"=")[2]
            quotes = _open_quotes(1, value[1:]) if value.startswith(b'"') else 0
        elif texts:
            texts[-1].append(line)
            quotes = _open_quotes(quotes, line) if quotes and b'"' in line else quotes
        else:
            location.append(line)
    _mark_open(texts[-1:], quotes)
    return b"".join(location), [b"\n".join(text) for text in texts]


def _mark_open(texts: list[list[bytes]], quotes: int) -> None:
    for text in texts:
        if quotes:
            text.append(b"")


def _open_quotes(before: int, text: bytes) -> int:
    """Quotes of a value so far; 0 where it is closed. A quote inside is doubled, and some programs forget to."""
    quotes = before + text.count(b'"')
    run = len(text) - len(text.rstrip(b'"'))
    is_closed = run % 2 == 1 or (run > 0 and quotes % 2 == 0)
    return 0 if is_closed else quotes


def _text_of(text: bytes) -> str:
    return printable(" ".join(text.decode(errors="replace").split()))


def _shown(text: bytes) -> str:
    return repr(_text_of(text)[:60])
