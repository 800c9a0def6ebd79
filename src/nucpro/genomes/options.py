"""Options of ``nucpro download`` and ``nucpro dataset``: one frozen record each, validated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from nucpro.errors import UsageError
from nucpro.folder.paths import SEED
from nucpro.genomes.catalogue import GROUPS
from nucpro.machine import cores

__all__ = ["DEFAULT_COUNTS", "CodeChoice", "DatasetOptions", "DownloadOptions"]

DEFAULT_COUNTS: Mapping[str, int] = {
    "bacteria": 1,
    "archaea": 1,
    "fungi": 1,
    "protozoa": 1,
    "plant": 10,
    "invertebrate": 10,
    "vertebrate_mammalian": 10,
    "vertebrate_other": 10,
}
"""Pairs of files of each host group, as VirNucPro drew them."""

CodeChoice = Literal["standard", "auto"]
"""``standard``: all frames by the standard code; ``auto``: by the code of each CDS."""


@dataclass(frozen=True)
class DownloadOptions:
    """Choices of one run of ``nucpro download``.

    Parameters
    ----------
    server : str
        Address of the release folder, http or https.
    taxonomy_server : str
        Address of the folder with NCBI's taxonomy.
    counts : mapping of str to int
        Pairs of files for each host group; groups that are not named keep their default.
    seed : int
        Seed of the draw.
    connections : int
        Files that are fetched at the same time.
    attempts : int
        Requests for one file before it counts as failed; each resumes where the previous one ended.
    wait_s : float
        Seconds before the second request; each further wait is twice as long, at most a minute.
    timeout_s : float
        Seconds without a byte after which a connection counts as broken.
    replace : bool
        Replace files of another release, and files of a genome's name that were not downloaded.

    Raises
    ------
    UsageError
        A value is outside what is allowed.
    """

    server: str = "https://ftp.ncbi.nlm.nih.gov/refseq/release"
    taxonomy_server: str = "https://ftp.ncbi.nlm.nih.gov/pub/taxonomy"
    counts: Mapping[str, int] = field(default_factory=dict)
    seed: int = SEED
    connections: int = 3
    attempts: int = 8
    wait_s: float = 1.0
    timeout_s: float = 60.0
    replace: bool = False

    def __post_init__(self) -> None:
        for server in (self.server, self.taxonomy_server):
            address = urlsplit(server)
            if address.scheme not in ("http", "https") or not address.netloc:
                raise UsageError(
                    f"server {server!r} is not allowed; use an address that starts with https://"
                )
        for group, count in self.counts.items():
            if group not in GROUPS:
                raise UsageError(
                    f"group {group!r} does not exist; RefSeq's host groups are {', '.join(GROUPS)}"
                )
            if count < 0:
                raise UsageError(f"{count} pairs of {group} are not allowed; use 0 or more")
        if self.connections < 1 or self.attempts < 1:
            raise UsageError(
                f"{self.connections} connections and {self.attempts} attempts are not allowed; use at least 1 of each"
            )
        object.__setattr__(self, "counts", {**DEFAULT_COUNTS, **self.counts})


_SHORTEST = 3


@dataclass(frozen=True)
class DatasetOptions:
    """Choices of one run of ``nucpro dataset``.

    Parameters
    ----------
    length : int
        Bases of a full chunk: 300 and 500 are what published models were trained on, at least 3.
    genetic_code : {"standard", "auto"}
        ``standard`` translates every frame by the standard code, as VirNucPro did; ``auto`` by the code that
        each CDS names (``/transl_table``).
    workers : int
        Processes; each works on one pair of files at a time. By default one for each core that this process may use.
    replace : bool
        Make files again that were made with other options, or that nothing is recorded about.

    Raises
    ------
    UsageError
        A value is outside what is allowed.
    """

    length: int = 300
    genetic_code: CodeChoice = "standard"
    workers: int = field(default_factory=cores)
    replace: bool = False

    def __post_init__(self) -> None:
        if self.length < _SHORTEST:
            raise UsageError(f"length {self.length} is too short; a chunk needs at least {_SHORTEST} bases")
        if self.genetic_code not in get_args(CodeChoice):
            allowed = " or ".join(get_args(CodeChoice))
            raise UsageError(f"genetic code {self.genetic_code!r} is not allowed; use {allowed}")
        if self.workers < 1:
            raise UsageError(f"{self.workers} workers are not allowed; use at least 1")
