"""Training data from annotated genomes.

RefSeq's genome files come in, FASTA files of reading frames go out: the first step of a data folder.
"""

from __future__ import annotations

from nucpro.dataset.building import DatasetProgress, build, recorded_lengths
from nucpro.dataset.identification import FrameRecord
from nucpro.dataset.options import DatasetOptions
from nucpro.dataset.paths import GenomePair
from nucpro.dataset.reports import Counts, DatasetReport, SourceReport

__all__ = [
    "Counts",
    "DatasetOptions",
    "DatasetProgress",
    "DatasetReport",
    "FrameRecord",
    "GenomePair",
    "SourceReport",
    "build",
    "recorded_lengths",
]
