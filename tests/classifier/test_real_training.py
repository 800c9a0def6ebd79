"""Training on real genomes with a real protein model, where these are there."""

from __future__ import annotations

import json
import re
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
    measured_again(data, model, dna_model, capsys)
    metrics = card.metrics["test"]
    assert metrics is not None
    assert 0 <= metrics["auroc"] <= 1


def measured_again(
    data: Path, protein: list[str], dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare, evaluate at other lengths and inspect the models; predict warns by what was measured."""
    folders = [data / "model" / name for name in ("both", "dna", "protein")]
    expected = json.loads((data / "model" / "comparison.json").read_text())
    capsys.readouterr()
    assert main(["compare", *map(str, folders), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for folder in folders:
        auroc = expected["models"][folder.name]["auroc"]["value"]
        assert f"{auroc:.4f} (n/a)" in shown
    both = folders[0]
    genomes = data.parent / "genomes"
    for path in genomes.glob("*.genomic.*"):
        shutil.copy(path, data)
    before = both.joinpath("model.safetensors").read_bytes()
    models = ["--protein-model", protein[1], "--dna-model", str(dna_model), "--device", "cpu"]
    command = ["evaluate", str(both), "--lengths", "150,300", "--frames-per-genome", "4", *models]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^test genomes +150 bases +300 bases$", shown, re.MULTILINE)
    _, card = load(both)
    assert list(card.lengths) == ["150", "300"]
    assert card.lengths["300"]["genomes"] >= 2
    assert 0 <= card.lengths["150"]["test"]["auroc"] <= 1
    assert both.joinpath("model.safetensors").read_bytes() == before
    assert main(["inspect", str(both)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^what +classifier$", shown, re.MULTILINE)
    assert "accuracy" in shown
    contigs = data.parent / "contigs.fa"
    contigs.write_text(">a\n" + "ATGGCTAAAGGT" * 20 + "\n")
    predict = ["predict", str(contigs), "--model", str(both), *models]
    assert main([*predict, "--length", "500", "-o", str(data.parent / "long")]) == 0
    assert "chunks of 500 bases; the classifier was tested at 150 to 300" in capsys.readouterr().err
    assert main([*predict, "--length", "200", "-o", str(data.parent / "short")]) == 0
    assert "tested at" not in capsys.readouterr().err
    # What is measured of a classifier later makes no other classifier of it.
    assert main([*command[:3], "200", *command[4:]]) == 0
    assert main([*predict, "--length", "200", "-o", str(data.parent / "short")]) == 0
    assert "already holds this prediction" in capsys.readouterr().out
