"""Training on real genomes with a real protein model, where these are there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from folders import Frame, add_source, read_frames
from nucpro.classifier.model import load
from nucpro.cli import main
from nucpro.folder.paths import DataFolder
from nucpro.genomes.dataset import build
from nucpro.genomes.options import DatasetOptions

KEPT = 6
"""Frames of each genome, so that embedding takes seconds on a CPU."""


def some_of_each(frames: list[Frame]) -> list[Frame]:
    genomes: dict[str, list[Frame]] = {}
    for frame in frames:
        genomes.setdefault(frame.name.rpartition("_chunk_")[0], []).append(frame)
    return [frame for found in genomes.values() for frame in found[:KEPT]]


def test_real_genomes_and_weights_give_a_model_with_its_encoders(
    real_data: Path, dna_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genomes, data = tmp_path / "genomes", tmp_path / "data"
    shutil.copytree(real_data / "refseq_mini", genomes)
    data.mkdir()
    build(genomes, DatasetOptions(length=300, workers=1))
    for source in DataFolder(genomes).walk_sources():
        add_source(data, source.name, some_of_each(read_frames(source)), per_file=3)
    common = ["--device", "cpu", "--sequences-per-file", "3"]
    assert main(["embed-dna", str(data), "--dna-model", str(dna_model), "--all", *common]) == 0
    model = ["--protein-model", str(real_data / "esm2_8m"), "--host-selection", "all"]
    assert main(["extract", "--data-dir", str(data), *model, *common]) == 0
    recipe = ["--epochs", "20", "--learning-rate", "0.002", "--bootstrap", "50", "--test", "0.3"]
    recipe += ["--device", "cpu", "--no-curves"]
    assert main(["train", str(data), "--compare", *recipe]) == 0
    said = capsys.readouterr().out
    assert "AUROC difference, both - dna: " in said
    _, card = load(data / "model" / "both")
    assert card.widths == {"dna": 768, "protein": 320}
    assert card.encoders["protein"] is not None
    assert card.encoders["protein"]["id"] == "esm2_8m"
    assert card.split["leak"] is None
    assert card.data["genomes"] >= 10
    assert card.training["best_epoch"] >= 1
    metrics = card.metrics["test"]
    assert metrics is not None
    assert 0 <= metrics["auroc"] <= 1
