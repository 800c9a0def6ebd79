"""The folder in which the documentation's commands are typed: real genomes, untrained models of the real widths."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_blocks import ROOT, runnable
from doc_reader import Reader
from huggingface_hub import constants

import dna_stand_ins
import stand_ins
from nucpro.formats.fasta import stream
from nucpro.formats.sequences import SequenceType
from nucpro.options import DEFAULT_MODELS

GENOMES = ROOT / "demo" / "genomes"


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that holds models under the names of the published ones, on a machine without network."""
    cache = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        patch.setenv("HF_HUB_OFFLINE", "1")
        # They were read when the package was imported.
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        protein, dna = (
            snapshot_of(cache, sequence_type) for sequence_type in (SequenceType.PROTEIN, SequenceType.DNA)
        )
        stand_ins.make_checkpoint(protein, layers=1, feed_forward=64)
        dna_stand_ins.make_dna_checkpoint(dna, layers=1, feed_forward_width=64)
        dna_stand_ins.train_tokenizer(dna, ["ACGTTGCAAGGCTTAACCGTATCG" * 20])
        yield cache


def snapshot_of(cache: Path, sequence_type: SequenceType) -> Path:
    """Folder of the only commit of a model, as huggingface_hub lays it out; made where it is not there."""
    commit = f"{sequence_type:x<40}".encode().hex()[:40]
    repository = cache / f"models--{DEFAULT_MODELS[sequence_type].replace('/', '--')}"
    folder = repository / "snapshots" / commit
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, downloaded: Path) -> Path:
    """What a reader of the quick start has at its end: vectors, merged files, a classifier, scores."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(GENOMES, folder / "data", ignore=shutil.ignore_patterns("README.md"))
    for sequence_type, name in ((SequenceType.PROTEIN, "models"), (SequenceType.DNA, "dna_models")):
        shutil.copytree(snapshot_of(downloaded, sequence_type), folder / name)
    write_unknown(folder)
    reader = Reader(folder, here={})
    for block in runnable(ROOT / "docs" / "quick-start.md"):
        reader.follow(block)
    return folder


def write_unknown(folder: Path) -> None:
    """Contigs and reads to be scored: the first bases of the viral genomes."""
    records = [(name, bases[:900].decode()) for name, bases in stream(GENOMES / "viral.1.1.genomic.fna.gz")]
    (folder / "contigs.fasta").write_text("".join(f">{name}\n{bases}\n" for name, bases in records))
    reads = [f"@{name}\n{bases[:300]}\n+\n{'I' * 300}\n" for name, bases in records]
    (folder / "reads.fastq.gz").write_bytes(gzip.compress("".join(reads).encode()))
