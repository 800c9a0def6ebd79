"""An untrained classifier with its encoders, and a few real contigs."""

from __future__ import annotations

from pathlib import Path

import pytest
from predictions import GENOMES, Contig, card_of, read_contigs, save_classifier, write_contigs

from nucpro.classifier.card import ModelCard


@pytest.fixture(scope="session")
def contigs() -> list[Contig]:
    """The start of lambda, phiX174, two influenza segments, a lac operon, and an mRNA: all of the demo."""
    found = {
        contig.name: contig.bases
        for name in ("viral.1.1", "bacteria.1.1", "vertebrate_mammalian.1.1")
        for contig in read_contigs(GENOMES / f"{name}.genomic.fna.gz")
    }
    names = ("NC_001416.1", "NC_001422.1", "EU851978.1", "HM138502.1", "J01636.1", "NM_006141.1")
    return [Contig(name, found[name][:3000]) for name in names]


@pytest.fixture(scope="session")
def card(model: Path, dna_model: Path) -> ModelCard:
    """What a classifier of the vectors of both tiny models says of itself."""
    return card_of(model, dna_model)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> Path:
    """A folder as ``nucpro train`` writes it, of a classifier whose weights are random."""
    return save_classifier(tmp_path_factory.mktemp("classifiers") / "both", card)


@pytest.fixture
def fasta(tmp_path: Path, contigs: list[Contig]) -> Path:
    return write_contigs(tmp_path / "contigs.fasta", contigs)
