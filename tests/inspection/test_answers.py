"""Known answers: what ``nucpro doctor --models`` compares, and the script that keeps them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nucpro.cli import main
from nucpro.formats.sequences import SequenceType
from nucpro.inspection.answers import KEPT, Comparison, compare
from nucpro.options import Options

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.0), ("bf16", 1e-4)])
def test_real_weights_give_the_answers_that_are_kept(real_data: Path, precision: str, least: float) -> None:
    options = Options(device="cpu", precision=precision, protein_model=str(real_data / "esm2_8m"))
    found = compare(options, SequenceType.PROTEIN)
    assert found.agrees, str(found)
    assert found.largest > least
    assert found.reference.startswith("transformers ")


def test_other_weights_are_compared_with_themselves_in_float32(model: Path, dna_model: Path) -> None:
    options = Options(device="cpu", protein_model=str(model), dna_model=str(dna_model))
    for sequence_type in SequenceType:
        found = compare(options, sequence_type)
        assert found.agrees, str(found)
        assert "no answers are kept for these weights" in str(found)


@pytest.mark.parametrize("largest", [0.021, float("nan")])
def test_what_rounding_does_not_explain_is_no_agreement(largest: float) -> None:
    found = Comparison(largest, 0.02, "the reference")
    assert not found.agrees
    assert "beyond the 0.02 of rounding" in str(found)


def test_the_doctor_reports_on_each_model_that_is_here(
    model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--protein-model", str(model), "--dna-model", str(dna_model)]
    assert main(["doctor", "--models", "--device", "cpu", *models]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if "vectors differ" in line] == [
        "fine     Protein vectors",
        "fine     DNA vectors",
    ]


def test_the_script_keeps_answers_that_transformers_gave(real_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.json"
    shutil.copy(KEPT, output)
    script = [sys.executable, str(ROOT / "recipes" / "known_answers.py"), "--output", str(output)]
    done = subprocess.run([*script, str(real_data / "esm2_8m")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(output.read_text()).values()
    (kept,) = json.loads(KEPT.read_text()).values()
    assert answer["layers_compared"] == 6
    assert answer["largest_difference"] < 1e-4
    assert answer["columns"] == [pytest.approx(row, abs=1e-5) for row in kept["columns"]]
