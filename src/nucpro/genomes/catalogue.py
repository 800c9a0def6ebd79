"""The files of a RefSeq release, and the choice among them.

The release's list of installed files (``release-catalog/release<N>.files.installed``: one MD5 sum and file
name per line, see the README on NCBI's server) comes in as text; the files to fetch go to
:mod:`nucpro.genomes.download`. Equal lists, counts and seed give an equal choice.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from nucpro.errors import DataError
from nucpro.folder.paths import VIRAL
from nucpro.formats.records import Matching

__all__ = ["GROUPS", "Catalogue", "Md5", "RemoteFile", "choose", "parse_catalogue"]

GROUPS = (
    "bacteria",
    "archaea",
    "fungi",
    "protozoa",
    "plant",
    "invertebrate",
    "vertebrate_mammalian",
    "vertebrate_other",
)
"""RefSeq's host groups, in the order in which VirNucPro drew from them."""

_NAME = re.compile(rf"({'|'.join((VIRAL, *GROUPS))})\.[0-9.]+\.genomic\.(?:fna|gbff)\.gz")
_MD5 = re.compile(r"[0-9a-f]{32}")
_GENBANK = ".genomic.gbff.gz"

Md5 = Annotated[str, Matching(_MD5.pattern)]
"""An MD5 sum in hexadecimal."""
Catalogue = Mapping[str, str]
"""MD5 sums of the genome files of a release, by file name."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of the release.

    Parameters
    ----------
    name : str
        File name, on the server and in the data folder.
    group : str
        RefSeq's group: the folder on the server.
    md5 : str
        MD5 sum that the release lists, in hexadecimal.
    """

    name: Annotated[str, Matching(_NAME.pattern)]
    group: Annotated[str, Matching("|".join((VIRAL, *GROUPS)))]
    md5: Md5


def parse_catalogue(text: str, origin: str) -> Catalogue:
    """Read a list of installed files; lines about other files than genomes are skipped.

    Parameters
    ----------
    text : str
        The list.
    origin : str
        Its address, for messages.

    Raises
    ------
    DataError
        A genome file has no MD5 sum, or none is listed.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        name = words[-1].rpartition("/")[2] if words else ""
        if not _NAME.fullmatch(name):
            continue
        if not _MD5.fullmatch(words[0].lower()):
            raise DataError(
                f"{origin}: line {number} has {words[0]!r} where the MD5 sum of {name} must be (32 hexadecimal "
                "digits, as in releases since 2022); use the server of a later release"
            )
        sums[name] = words[0].lower()
    if not sums:
        raise DataError(f"{origin}: lists no genome files; check the address of the server")
    return sums


def choose(catalogue: Catalogue, counts: Mapping[str, int], seed: int) -> list[RemoteFile]:
    """Choose the first pair of viral files, and a random sample of pairs of each host group.

    One generator draws from all groups in the order of :data:`GROUPS`, each time among the GenBank files in
    the order of their names: so does VirNucPro's script, whose draw this repeats for an equal release.

    Parameters
    ----------
    catalogue : mapping of str to str
        MD5 sums by file name.
    counts : mapping of str to int
        Pairs for each group; a group with fewer gives all it has.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of RemoteFile
        The FASTA file and the GenBank file of each pair, viral first.

    Raises
    ------
    DataError
        The release has no viral pair.
    """
    draw = random.Random(seed)
    viral = f"{VIRAL}.1"
    if viral not in _pairs(catalogue, VIRAL):
        raise DataError(
            f"the release lists no {viral}.1.genomic.fna.gz with {viral}{_GENBANK}; choose another server"
        )
    files = _files(catalogue, VIRAL, [viral])
    for group in GROUPS:
        pairs = _pairs(catalogue, group)
        files += _files(catalogue, group, draw.sample(pairs, min(counts[group], len(pairs))))
    return files


def _pairs(catalogue: Catalogue, group: str) -> list[str]:
    """Names before ``.genomic.gbff.gz`` of the GenBank files that have a first FASTA file, in order of names."""
    ends = (name for name in catalogue if name.startswith(f"{group}.") and name.endswith(_GENBANK))
    stems = (name.removesuffix(_GENBANK) for name in sorted(ends))
    return [stem for stem in stems if f"{stem}.1.genomic.fna.gz" in catalogue]


def _files(catalogue: Catalogue, group: str, stems: Sequence[str]) -> list[RemoteFile]:
    names = (name for stem in stems for name in (f"{stem}.1.genomic.fna.gz", f"{stem}{_GENBANK}"))
    return [RemoteFile(name, group, catalogue[name]) for name in names]
