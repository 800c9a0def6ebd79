"""The folder in which the documentation's commands are typed: real genomes, untrained models of the real widths."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from doc_blocks import ROOT, runnable
from doc_reader import Reader

import dna_stand_ins
import stand_ins
from nucpro.formats.fasta import stream

GENOMES = ROOT / "demo" / "genomes"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the quick start has at its end: vectors, merged files, a classifier, scores."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(GENOMES, folder / "data", ignore=shutil.ignore_patterns("README.md"))
    stand_ins.make_checkpoint(folder / "models", layers=1, feed_forward=64)
    dna_stand_ins.make_dna_checkpoint(folder / "dna_models", layers=1, feed_forward_width=64)
    dna_stand_ins.train_tokenizer(folder / "dna_models", ["ACGTTGCAAGGCTTAACCGTATCG" * 20])
    write_unknown(folder)
    reader = Reader(folder)
    for block in runnable(ROOT / "docs" / "quick-start.md"):
        reader.follow(block)
    return folder


def write_unknown(folder: Path) -> None:
    """Contigs and reads to be scored: the first bases of the viral genomes."""
    records = [(name, bases[:900].decode()) for name, bases in stream(GENOMES / "viral.1.1.genomic.fna.gz")]
    (folder / "contigs.fasta").write_text("".join(f">{name}\n{bases}\n" for name, bases in records))
    reads = [f"@{name}\n{bases[:300]}\n+\n{'I' * 300}\n" for name, bases in records]
    (folder / "reads.fastq.gz").write_bytes(gzip.compress("".join(reads).encode()))
