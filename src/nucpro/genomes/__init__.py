"""Genomes from the RefSeq release: what is chosen, and how it gets into the data folder."""

from __future__ import annotations

from nucpro.genomes.catalogue import GROUPS, RemoteFile
from nucpro.genomes.dataset import build, recorded_lengths
from nucpro.genomes.download import DownloadReport, download
from nucpro.genomes.identification import FrameRecord
from nucpro.genomes.options import DEFAULT_COUNTS, DatasetOptions, DownloadOptions
from nucpro.genomes.paths import GenomePair
from nucpro.genomes.reports import Counts, DatasetReport, SourceReport

__all__ = [
    "DEFAULT_COUNTS",
    "GROUPS",
    "Counts",
    "DatasetOptions",
    "DatasetReport",
    "DownloadOptions",
    "DownloadReport",
    "FrameRecord",
    "GenomePair",
    "RemoteFile",
    "SourceReport",
    "build",
    "download",
    "recorded_lengths",
]
