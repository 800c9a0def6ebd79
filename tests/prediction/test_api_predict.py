"""Scores of sequences as tables, as a notebook takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from predictions import Contig, arguments, table

import nucpro
from nucpro.classifier.model import load
from nucpro.cli import main
from nucpro.errors import NucproError


def test_tables_are_those_of_the_command(
    fasta: Path, contigs: list[Contig], classifier: Path, model: Path, dna_model: Path, tmp_path: Path
) -> None:
    assert main(arguments(fasta, classifier, (model, dna_model))) == 0
    expected = {
        name: table(tmp_path / "contigs_prediction" / f"{name}.tsv") for name in ("sequences", "chunks")
    }
    options = {"device": "cpu", "protein_model": str(model), "dna_model": str(dna_model)}
    named = {contig.name: contig.bases.lower() for contig in contigs}
    for sequences in (str(fasta), named):
        found = nucpro.predict(sequences, str(classifier), **options)
        assert found.sequences["record"].tolist() == [row["record"] for row in expected["sequences"]]
        assert found.sequences["prediction"].tolist() == [row["prediction"] for row in expected["sequences"]]
        scores = [float(row["score"] or "nan") for row in expected["chunks"]]
        np.testing.assert_array_equal(found.chunks["score"].to_numpy(float), scores)
        assert len(found.frames) == found.counts["frames"]
        assert repr(found).startswith(f"<Prediction: {len(contigs)} sequences, ")
    kept = nucpro.predict(fasta, classifier, output=str(tmp_path / "kept"), **options)
    assert (tmp_path / "kept" / "sequences.tsv").exists()
    assert kept.sequences.equals(found.sequences)


def test_a_record_may_be_called_na(
    classifier: Path, model: Path, dna_model: Path, contigs: list[Contig]
) -> None:
    options = {"device": "cpu", "protein_model": str(model), "dna_model": str(dna_model)}
    found = nucpro.predict({"NA": contigs[0].bases, "x": "N" * 300}, classifier, **options)
    assert found.sequences["record"].tolist() == ["NA", "x"]
    assert found.sequences["score"].isna().tolist() == [False, True]


def test_mistakes_are_errors_of_nucpro(fasta: Path, classifier: Path, tmp_path: Path) -> None:
    for given, options, message in (
        (fasta, {"model": tmp_path / "none"}, "nucpro train"),
        (tmp_path / "none.fa", {"model": classifier}, "cannot be read"),
        (fasta, {"model": classifier, "lenght": 3}, "unknown options: lenght"),
    ):
        with pytest.raises(NucproError, match=message):
            nucpro.predict(given, device="cpu", **options)


def test_a_classifier_takes_arrays_and_names(classifier: Path) -> None:
    trained, card = load(str(classifier))
    rows = np.ones((2, card.input_width), np.float32)
    assert trained.probabilities(rows).sum(1).tolist() == pytest.approx([1, 1])
