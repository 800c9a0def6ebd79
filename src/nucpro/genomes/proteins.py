"""Proteins and organisms of all records of one GenBank file; the proteins are kept on disk.

:class:`ProteinStore` takes annotations in the order of the GenBank file and gives them back in the order of
the FASTA file. The two orders may differ, and a file may hold more proteins than memory: the translations
are in a temporary file, and only their offsets are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import IO

from nucpro.genomes.flatfile import Organism
from nucpro.genomes.genbank import Annotation

__all__ = ["Absence", "ProteinStore", "Proteins"]

Proteins = dict[int, bytes]
"""Translations by number of their genetic code, joined with line ends."""


class Absence(Enum):
    """Why a FASTA record has no proteins."""

    UNKNOWN = "no GenBank record has its accession"
    OTHER_VERSION = "the GenBank record has another version of the accession"
    WITHOUT_CDS = "its GenBank record has no CDS"
    WITHOUT_TRANSLATION = "no CDS of its GenBank record has a translation"


@dataclass(frozen=True)
class _Place:
    offset: int
    sizes: tuple[tuple[int, int], ...]
    has_cds: bool
    organism: Organism


class ProteinStore:
    """Proteins by record.

    Parameters
    ----------
    file : binary file
        Empty temporary file for the translations.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, _Place] = {}
        self._accessions: set[str] = set()
        self._organisms: dict[Organism, Organism] = {}  # thousands of contigs are of one

    def add(self, annotation: Annotation) -> bool:
        """Keep an annotation; of two for one record the later one stays, as it did in VirNucPro.

        Returns
        -------
        bool
            True where the record is new, False where an earlier annotation was replaced.
        """
        is_new = annotation.record not in self._places
        offset = self._file.tell()
        sizes = tuple(
            (code, self._file.write(_text(annotation.proteins[code]))) for code in sorted(annotation.proteins)
        )
        organism = self._organisms.setdefault(annotation.organism, annotation.organism)
        self._places[annotation.record] = _Place(offset, sizes, annotation.cds > 0, organism)
        self._accessions.add(_unversioned(annotation.record))
        return is_new

    @property
    def first(self) -> str:
        """Name of the first record; empty where there is none."""
        return next(iter(self._places), "")

    def organism(self, record: str) -> Organism:
        """Organism of a record that exists."""
        return self._places[record].organism

    def get(self, record: str) -> Proteins | Absence:
        """Proteins of a record, or why there are none. Call after the last :meth:`add`."""
        place = self._places.get(record)
        if place is None:
            return Absence.OTHER_VERSION if _unversioned(record) in self._accessions else Absence.UNKNOWN
        if not place.sizes:
            return Absence.WITHOUT_TRANSLATION if place.has_cds else Absence.WITHOUT_CDS
        self._file.seek(place.offset)
        return {code: self._file.read(size) for code, size in place.sizes}


def _text(proteins: Iterable[str]) -> bytes:
    # Transcripts of one gene often have the same protein; one copy is enough to find a frame in.
    return "\n".join(dict.fromkeys(proteins)).encode()


def _unversioned(record: str) -> str:
    return record.partition(".")[0]
