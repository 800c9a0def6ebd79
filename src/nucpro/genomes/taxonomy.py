"""Taxonomy of genomes: the table of organisms of a data set, and NCBI's taxonomy with its ranks.

GenBank records name an organism, its taxon and the names of the taxa above it; they do not record which of these names
is the genus. NCBI's dump (https://ftp.ncbi.nlm.nih.gov/pub/taxonomy/taxdump_readme.txt) does.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from nucpro.errors import DataError, UsageError, reason_of
from nucpro.formats.opening import open_input, read_input
from nucpro.genomes.flatfile import Organism

__all__ = ["DUMP_NAME", "RANKS", "Taxonomy", "organisms_table", "read_organisms"]

DUMP_NAME = "taxdump.tar.gz"
"""Name of NCBI's dump, on its server and in a data folder."""
RANKS = ("species", "genus", "subfamily", "family", "order", "class", "phylum")
"""Ranks that taxa can be grouped by."""

_HEAD = ("record", "taxon_id", "organism", "lineage")
_LONGEST_LINE = 1 << 20
_LARGEST = 50_000_000
"""Number of a taxon; in 2026 NCBI's largest is below 4 million, and each up to the largest takes five bytes."""
_REMEDY = "remove it, then run nucpro dataset DATA --length N again"


def organisms_table(organisms: Mapping[str, Organism]) -> bytes:
    """Write a TSV with one line per record; the lineage is joined by semicolons, the widest taxon first."""
    lines = [_HEAD]
    for record, organism in organisms.items():
        taxon = "" if organism.taxon is None else str(organism.taxon)
        lines.append((record, taxon, organism.name, "; ".join(organism.lineage)))
    return "".join("\t".join(line) + "\n" for line in lines).encode()


def read_organisms(path: Path) -> dict[str, Organism]:
    """Read a table of :func:`organisms_table`.

    Raises
    ------
    DataError
        The file cannot be read, or is no such table.
    """
    try:
        lines = read_input(path).decode().split("\n")[:-1]
        cells = [line.split("\t") for line in lines]
        if not cells or tuple(cells[0]) != _HEAD:
            raise ValueError(f"its first line is not {' '.join(_HEAD)}")
        return {
            record: Organism(
                name, int(taxon) if taxon else None, tuple(lineage.split("; ")) if lineage else ()
            )
            for record, taxon, name, lineage in cells[1:]
        }
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no table of organisms ({reason_of(error)}); {_REMEDY}") from error


class Taxonomy:
    """Ranks and ancestors of all taxa.

    Parameters
    ----------
    path : Path
        ``taxdump.tar.gz`` or ``new_taxdump.tar.gz``, or a folder with what is in it.

    Raises
    ------
    UsageError
        There is no such file or folder.
    DataError
        It holds no ``nodes.dmp``, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parents = array("i")
        self._ranks = bytearray()
        for taxon, parent, rank in _lines(path, "nodes.dmp", 3):
            number = self._number(taxon)
            missing = number + 1 - len(self._parents)
            if missing > 0:
                self._parents.extend([0] * missing)
                self._ranks.extend(bytes(missing))
            self._parents[number] = self._number(parent)
            self._ranks[number] = 1 + RANKS.index(rank) if rank in RANKS else 0
        if not self._parents:
            raise DataError(f"{path}: holds no taxa; fetch the taxonomy again")
        merged = _lines(path, "merged.dmp", 2, is_needed=False)
        self._merged = {self._number(old): self._number(new) for old, new in merged}

    def ancestor(self, taxon: int, rank: str) -> int | None:
        """Taxon of a rank that a taxon is or belongs to; None if there is none of that rank.

        Parameters
        ----------
        taxon : int
            Of a record; numbers that NCBI merged into others are followed.
        rank : str
            One of :data:`RANKS`.

        Raises
        ------
        DataError
            The taxonomy does not have the taxon.
        """
        wanted, start = 1 + RANKS.index(rank), taxon
        taxon = self._merged.get(taxon, taxon)
        for _ in range(100):
            parent = self._parents[taxon] if 0 <= taxon < len(self._parents) else 0
            if not parent:
                raise DataError(
                    f"{self._path}: has no taxon {start}; take a newer one (nucpro download DATA --taxonomy)"
                )
            if self._ranks[taxon] == wanted:
                return taxon
            if parent == taxon:
                return None
            taxon = parent
        raise DataError(f"{self._path}: the parents of taxon {start} form a circle; fetch the taxonomy again")

    def names(self, taxa: Iterable[int]) -> dict[int, str]:
        """Give scientific names of taxa; one without a name is called by its number."""
        wanted = {str(taxon): taxon for taxon in taxa}
        found = {taxon: f"taxon {taxon}" for taxon in wanted.values()}
        for number, name, _, kind in _lines(self._path, "names.dmp", 4, is_needed=False):
            if kind == "scientific name" and number in wanted:
                found[wanted[number]] = name
        return found

    def _number(self, text: str) -> int:
        if not text.isdecimal() or len(text) > 9 or int(text) > _LARGEST:
            raise DataError(f"{self._path}: holds {text[:40]!r}, expected a taxon; fetch the taxonomy again")
        return int(text)


def _lines(path: Path, name: str, fields: int, *, is_needed: bool = True) -> Iterator[list[str]]:
    """First fields of the lines of one file of the dump."""
    if not os.path.lexists(path):
        raise UsageError(
            f"{path}: no such file; fetch NCBI's taxonomy with nucpro download DATA --taxonomy, or name "
            f"{DUMP_NAME}, or the folder with its files, with --taxonomy"
        )
    try:
        if path.is_dir():
            if is_needed or (path / name).exists():
                open_input(path / name).close()
                with (path / name).open("rb") as file:
                    yield from _fields_of(path, name, file, fields)
            return
        # NCBI packs with gzip. Other packers are not tried: some take any memory that a few bytes claim.
        with open_input(path) as raw, _unpacked(raw) as tar, tarfile.open(fileobj=tar, mode="r:") as archive:
            file_in_it = _member(archive, name)
            if file_in_it is not None:
                yield from _fields_of(path, name, file_in_it, fields)
            elif is_needed:
                raise DataError(f"{path}: holds no {name}; name NCBI's {DUMP_NAME}")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)}); fetch it again") from error


def _unpacked(raw: io.FileIO) -> gzip.GzipFile | io.BufferedReader[io.FileIO]:
    is_packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if is_packed else io.BufferedReader(raw)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes] | None:
    for entry in archive:
        if entry.isfile() and entry.name.removeprefix("./") == name:
            return archive.extractfile(entry)
    return None


def _fields_of(path: Path, name: str, file: IO[bytes], fields: int) -> Iterator[list[str]]:
    for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), b""), 1):
        # A field is followed by a tab and a bar, and all but the first follow a tab.
        found = (
            line.decode("utf-8", "replace").rstrip("\n").removesuffix("\t|").split("\t|\t", fields)[:fields]
        )
        if len(found) < fields:
            raise DataError(
                f"{path}: {name}, line {number}: {line[:60]!r}, expected {fields} fields; fetch it again"
            )
        yield found
