"""Genomes from the RefSeq release: what is chosen, and how it gets into the data folder."""

from __future__ import annotations

from nucpro.download.catalogue import GROUPS, RemoteFile
from nucpro.download.downloading import DownloadProgress, DownloadReport, download
from nucpro.download.options import DEFAULT_COUNTS, DownloadOptions

__all__ = [
    "DEFAULT_COUNTS",
    "GROUPS",
    "DownloadOptions",
    "DownloadProgress",
    "DownloadReport",
    "RemoteFile",
    "download",
]
