"""Annotated proteins from GenBank flat files.

``Y.genomic.gbff.gz`` comes in, one :class:`Annotation` a record goes to :mod:`nucpro.dataset.proteins`.
Parsing is gb-io's; one record at a time is in memory. Of a record only its coding sequences (CDS) are
looked at, and of these the ``/translation``, the ``/transl_table`` and whether they cross the origin.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import gb_io

from nucpro.dataset.bounds import BoundedStream
from nucpro.dataset.codes import STANDARD, is_known
from nucpro.errors import DataError
from nucpro.text import is_plain

__all__ = ["Annotation", "read_annotations"]

_READ_SIZE = 1 << 18
_LONGEST_REASON = 300


@dataclass
class Annotation:
    """What one GenBank record says about its proteins.

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
    """

    record: str
    proteins: dict[int, list[str]] = field(default_factory=dict)
    cds: int = 0
    without_translation: int = 0
    across_origin: int = 0
    of_unknown_code: int = 0


def read_annotations(path: Path) -> Iterator[Annotation]:
    """Stream the records of a GenBank file that is compressed with gzip.

    Raises
    ------
    DataError
        The file is missing, cut short, damaged or not in GenBank format; or a record has no accession.
    """
    number = 0
    try:
        # gb-io asks for a few kilobytes at a time, for which gzip is slow.
        with (
            gzip.open(path, "rb") as file,
            io.BufferedReader(BoundedStream(cast(BinaryIO, file)), _READ_SIZE) as buffered,
        ):
            for number, record in enumerate(gb_io.iter(buffered), start=1):
                yield _annotation(path, number, record)
    # gb-io raises RuntimeError for what it cannot parse, and passes on what reading the file raises.
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        # The parser quotes lines of the file.
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise DataError(
            f"{path}: cannot be read after record {number}: {reason}; "
            "it must be a complete GenBank flat file compressed with gzip, so fetch it again"
        ) from error


def _annotation(path: Path, number: int, record: gb_io.Record) -> Annotation:
    # Old files have a GI number behind the version, and secondary accessions behind the first.
    names = (record.version or record.accession or record.name or "").split()
    if not names:
        raise DataError(f"{path}: record {number} has no VERSION, ACCESSION or name; give it one")
    if not is_plain(names[0]):
        raise DataError(
            f"{path}: record {number} has the name {names[0][:100]!a}, which holds control characters; fetch it again"
        )
    annotation = Annotation(names[0])
    for feature in record.features:
        if feature.kind == "CDS":
            _add(annotation, feature, record.length or len(record.sequence))
    return annotation


def _add(annotation: Annotation, feature: gb_io.Feature, length: int) -> None:
    qualifiers: dict[str, str] = {}
    for qualifier in feature.qualifiers:
        qualifiers.setdefault(qualifier.key, qualifier.value or "")
    translation = "".join(qualifiers.get("translation", "").split())
    number = qualifiers.get("transl_table", str(STANDARD)).strip()
    known = number.isdecimal() and is_known(int(number))
    annotation.cds += 1
    annotation.without_translation += not translation
    annotation.across_origin += _crosses_origin(feature.location, length)
    annotation.of_unknown_code += not known
    if translation:
        annotation.proteins.setdefault(int(number) if known else STANDARD, []).append(translation)


def _crosses_origin(location: gb_io.Location, length: int) -> bool:
    """Whether a joined location goes on at the start of the record after it reached its end."""
    if isinstance(location, gb_io.Complement):
        return _crosses_origin(location.location, length)
    if not isinstance(location, gb_io.Join):
        return False
    return any(
        _follows(before, after, length)
        for before, after in zip(location.locations, location.locations[1:], strict=False)
    )


def _follows(before: gb_io.Location, after: gb_io.Location, length: int) -> bool:
    if isinstance(before, gb_io.Complement) and isinstance(after, gb_io.Complement):
        return _follows(after.location, before.location, length)
    if not isinstance(before, gb_io.Range) or not isinstance(after, gb_io.Range):
        return False
    return before.end == length and after.start == 0
