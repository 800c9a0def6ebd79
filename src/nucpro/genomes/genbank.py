"""Annotated proteins from GenBank flat files.

``Y.genomic.gbff.gz`` comes in, one :class:`Annotation` per record goes to :mod:`nucpro.genomes.proteins`.
:mod:`nucpro.genomes.flatfile` reads the lines; one record at a time is in memory. Of a record only its coding
sequences (CDS) are read, and of these the ``/translation``, the ``/transl_table`` and whether they cross
the origin.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

from nucpro.errors import DataError, is_plain
from nucpro.formats.unpacking import open_text
from nucpro.genomes.flatfile import NO_ORGANISM, CodingSequence, FlatRecord, Organism, read_records
from nucpro.genomes.frames import STANDARD, is_known

__all__ = ["Annotation", "read_annotations"]

_READ_SIZE = 1 << 18
_RANGE = re.compile(r"(complement\()?[<>]?(\d+)\.\.[<>]?(\d+)\)?")
_JOIN = re.compile(r"(?:complement\()?join\((.*?)\){1,2}")

_KINDS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file", "get the file: git lfs pull"),
    (b"/annex/objects/", "is a pointer of git-annex, not the file", "get the file: git annex get"),
    (b"../.git/annex/", "is a pointer of git-annex, not the file", "get the file: git annex get"),
    (
        b"<",
        "is a web page or XML",
        "get the flat file itself, by nucpro download DATA or from NCBI's server (.gbff.gz)",
    ),
    (b"{", "is JSON", "get the flat file itself (.gbff.gz)"),
    (b"ID   ", "is in EMBL format", "convert it to GenBank, or get the record from NCBI (.gbff.gz)"),
    (b"##gff", "is GFF", "get the flat file of the same assembly (.gbff.gz); GFF holds no translations"),
    (b"#gff", "is GFF", "get the flat file of the same assembly (.gbff.gz); GFF holds no translations"),
    (b"#!gff", "is GFF", "get the flat file of the same assembly (.gbff.gz); GFF holds no translations"),
    (b"#gtf", "is GTF", "get the flat file of the same assembly (.gbff.gz); GTF holds no translations"),
    (b">", "is FASTA", "get the flat file of the same assembly (.gbff.gz)"),
    (b"@", "is FASTQ", "get the flat file of the genomes (.gbff.gz)"),
    (b"Seq-entry", "is ASN.1", "convert it with asn2gb, or get the flat file (.gbff.gz)"),
    (b"\xff\xfe", "is UTF-16", "save it as plain text (UTF-8)"),
    (b"\xfe\xff", "is UTF-16", "save it as plain text (UTF-8)"),
)
"""First bytes of other files in place of a GenBank file, their format, and the remedy."""


@dataclass
class Annotation:
    """Proteins of one GenBank record.

    Parameters
    ----------
    record : str
        Accession with version (``NC_001416.1``).
    proteins : dict of int to list of str
        Translations by number of the genetic code that the CDS names; the standard code where it names none.
    cds : int
        Coding sequences.
    without_translation : int
        Those without a ``/translation``, as pseudogenes are.
    across_origin : int
        Those that are joined across the origin of a circular record.
    of_unknown_code : int
        Those whose ``/transl_table`` is no number that NCBI lists; they count as standard.
    organism : Organism
        What the record is of.
    """

    record: str
    proteins: dict[int, list[str]] = field(default_factory=dict)
    cds: int = 0
    without_translation: int = 0
    across_origin: int = 0
    of_unknown_code: int = 0
    organism: Organism = NO_ORGANISM


def read_annotations(path: Path) -> Iterator[Annotation]:
    """Stream the records of a GenBank file, compressed or plain.

    Raises
    ------
    DataError
        The file is missing, empty, cut short, damaged or not in GenBank format; or a record has no accession.
    """
    number = 0
    with open_text(path, DataError) as text, io.BufferedReader(text, _READ_SIZE) as buffered:
        _require_genbank(path, buffered.peek(_LONGEST_START))
        for record in read_records(path, cast(BinaryIO, buffered)):
            number = record.number
            yield _annotation(path, record)
    if not number:
        raise DataError(f"{path}: holds no record (no line starts with LOCUS); {_NOTHING}")


_LONGEST_START = 1 << 12
_NOTHING = (
    "genomes without annotation give no reading frames: get the file with its records, or move the pair away"
)


def _require_genbank(path: Path, start: bytes) -> None:
    """Error for a file of another format."""
    text = start.lstrip()
    if not text:
        raise DataError(f"{path}: is empty; {_NOTHING}")
    for beginning, what, remedy in _KINDS:
        if text.removeprefix(b"\xef\xbb\xbf").startswith(beginning):
            raise DataError(f"{path}: {what}, expected a GenBank flat file; {remedy}")
    if b"\0" in start:
        raise DataError(
            f"{path}: holds binary data, expected a GenBank flat file; get the flat file (.gbff.gz)"
        )


def _annotation(path: Path, record: FlatRecord) -> Annotation:
    if not is_plain(record.name):
        raise DataError(
            f"{path}: record {record.number} has the name {record.name[:100]!a}, which holds control characters; "
            "correct it"
        )
    annotation = Annotation(record.name, organism=record.organism)
    for cds in record.cds:
        _add(annotation, cds, record.length or record.bases or 0)
    return annotation


def _add(annotation: Annotation, cds: CodingSequence, length: int) -> None:
    number = str(STANDARD) if cds.transl_table is None else cds.transl_table
    known = number.isdecimal() and is_known(int(number))
    annotation.cds += 1
    annotation.without_translation += not cds.translation
    annotation.across_origin += _crosses_origin(cds.location, length)
    annotation.of_unknown_code += not known
    if cds.translation:
        annotation.proteins.setdefault(int(number) if known else STANDARD, []).append(cds.translation)


def _crosses_origin(location: str, length: int) -> bool:
    """Whether a joined location crosses the origin of the record."""
    joined = _JOIN.fullmatch(location)
    parts = [_RANGE.fullmatch(part) for part in joined[1].split(",")] if joined else []
    return any(_follows(before, after, length) for before, after in pairwise(parts))


def _follows(before: re.Match[str] | None, after: re.Match[str] | None, length: int) -> bool:
    if before is None or after is None or bool(before[1]) != bool(after[1]):
        return False
    if before[1]:
        before, after = after, before
    return before[3] == str(length) and after[2] == "1"
