"""``nucpro benchmark`` measures both encoders and prints a table that can be pasted; here they are tiny."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from nucpro.cli import main
from nucpro.errors import counted
from nucpro.inspection import speed

COMMAND = ["benchmark", "--device", "cpu", "--seconds", "0.05"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"width": 32, "layers": 1, "heads": 2, "feed_forward_width": 64}
    monkeypatch.setattr(speed, "ESM2_650M", replace(speed.ESM2_650M, **small))
    monkeypatch.setattr(speed, "DNABERT_S", replace(speed.DNABERT_S, **small))


def test_a_table_for_an_issue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f", {counted(torch.get_num_threads(), 'thread')}; fp32")
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| encoder", "| ESM-2 650M", "| DNABERT-S"]
    assert all(len(row) == 6 for row in rows)
    assert rows[1][2] == "plain torch: cpu is not an NVIDIA GPU"
    assert lines[-1].startswith("Matrix rate: ")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_figures_for_scripts(capsys: pytest.CaptureFixture[str], precision: str) -> None:
    assert main([*COMMAND, "--json", "--precision", precision]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["precision"] == precision
    assert figures["matrix_teraflops"] > 0
    for one in figures["speeds"]:
        assert one["sequences_per_s"] > 0
        assert one["teraflops"] > 0


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "4000"])
def test_a_time_that_means_nothing_is_refused(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    assert main(["benchmark", "--device", "cpu", "--seconds", seconds]) == 2
    assert "--seconds" in capsys.readouterr().err
