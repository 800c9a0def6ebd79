"""Paths of genomes and of the files made from them in a data folder.

For a RefSeq FASTA file ``X.genomic.fna.gz`` the partner is ``Y.genomic.gbff.gz`` in the same folder, with Y
the longest part of X that ends before a dot and has such a file: ``viral.1`` for ``viral.1.1``. From both
come the two FASTA files of :class:`nucpro.folder.paths.Source`, ``X.identified.json`` that records how, and
``X.organisms.tsv`` with what the records are of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nucpro.folder.paths import DataFolder, Source, natural_key, walk

__all__ = [
    "FASTA_SUFFIX",
    "GENBANK_SUFFIX",
    "GenomePair",
    "Genomes",
    "find_genomes",
    "manifest_path",
    "organisms_path",
]

FASTA_SUFFIX = ".genomic.fna.gz"
"""End of the name of a file with sequences."""
GENBANK_SUFFIX = ".genomic.gbff.gz"
"""End of the name of a file with annotated records."""

# A name that begins with a dot is of a file that is still being written.
_OF_GENOMES = re.compile(r"[^.].*\.(?:fna|gbff)(?:\..*)?", re.DOTALL)
_MANIFEST_SUFFIX = ".identified.json"


@dataclass(frozen=True)
class GenomePair:
    """A FASTA file of genomes with its GenBank partner, and the source that is made from them.

    Parameters
    ----------
    data_dir : Path
        The data folder, as the user named it.
    relative : str
        Path of the FASTA file below it, with ``/`` between components.
    genbank_name : str
        Name of the partner in the same folder.
    """

    data_dir: Path
    relative: str
    genbank_name: str

    @property
    def fasta(self) -> Path:
        """``X.genomic.fna.gz``."""
        return self.data_dir.joinpath(*PurePosixPath(self.relative).parts)

    @property
    def genbank(self) -> Path:
        """``Y.genomic.gbff.gz``."""
        return self.fasta.with_name(self.genbank_name)

    @property
    def source(self) -> Source:
        """Folder of the reading frames."""
        return _source(self.data_dir, self.relative.removesuffix(FASTA_SUFFIX))

    @property
    def manifest(self) -> Path:
        """``X.identified.json``."""
        return manifest_path(self.source)


@dataclass(frozen=True)
class Genomes:
    """All genomes of a data folder, naturally sorted.

    Parameters
    ----------
    pairs : tuple of GenomePair
        FASTA files with a partner.
    without_partner : tuple of str
        FASTA files without one, by path below the data folder.
    others : tuple of str
        Files that look like genomes, but are of no pair: packed otherwise, half downloaded, or without FASTA file.
    recorded : tuple of Source
        Sources of earlier runs that have a manifest, also where their genomes are gone.
    """

    pairs: tuple[GenomePair, ...]
    without_partner: tuple[str, ...]
    others: tuple[str, ...]
    recorded: tuple[Source, ...]

    @property
    def folders(self) -> list[Path]:
        """Folders that hold pairs, each once."""
        return list(dict.fromkeys(pair.fasta.parent for pair in self.pairs))


def manifest_path(source: Source) -> Path:
    """``X.identified.json``: how a source was made."""
    return source.nucleotide_fasta.with_name(f"{source.name}{_MANIFEST_SUFFIX}")


def organisms_path(source: Source) -> Path:
    """``X.organisms.tsv``: organism, taxon and lineage of the records of a source."""
    return source.nucleotide_fasta.with_name(f"{source.name}.organisms.tsv")


def find_genomes(data_dir: Path) -> Genomes:
    """Look for genomes in a data folder and its sub-folders.

    Symbolic links to folders are followed, each folder once; ``data_merge`` is never input.

    Parameters
    ----------
    data_dir : Path
        The data folder.

    Returns
    -------
    Genomes
        Pairs of files, and files that are of no pair.
    """
    pairs: list[GenomePair] = []
    without_partner: list[str] = []
    others: list[str] = []
    recorded: list[Source] = []
    merge_root = DataFolder(data_dir).merge_root
    for folder, names in walk(data_dir, lambda folder, name, _: folder / name == merge_root):
        used: set[str | None] = set()
        for name in names:
            relative = (folder / name).relative_to(data_dir).as_posix()
            if name.endswith(_MANIFEST_SUFFIX):
                recorded.append(_source(data_dir, relative.removesuffix(_MANIFEST_SUFFIX)))
            if name.endswith(FASTA_SUFFIX):
                partner = _partner(name, names)
                used |= {name, partner}
                if partner is None:
                    without_partner.append(relative)
                else:
                    pairs.append(GenomePair(data_dir, relative, partner))
        left = (name for name in names if name not in used and _OF_GENOMES.fullmatch(name))
        others += ((folder / name).relative_to(data_dir).as_posix() for name in left)
    return Genomes(
        pairs=tuple(sorted(pairs, key=lambda pair: natural_key(pair.relative))),
        without_partner=tuple(sorted(without_partner, key=natural_key)),
        others=tuple(sorted(others, key=natural_key)),
        recorded=tuple(sorted(recorded, key=lambda source: natural_key(source.relative))),
    )


def _source(data_dir: Path, stem: str) -> Source:
    return Source(data_dir, f"{stem}.identified_nucleotide.fa")


def _partner(fasta_name: str, names: Iterable[str]) -> str | None:
    stem = fasta_name.removesuffix(FASTA_SUFFIX)
    while stem:
        candidate = f"{stem}{GENBANK_SUFFIX}"
        if candidate in names:
            return candidate
        stem = stem.rpartition(".")[0]
    return None
