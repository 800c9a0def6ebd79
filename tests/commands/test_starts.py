"""What a command imports before it can answer: seconds of torch, and a quarter of one of numpy, only where needed.

Seen from outside: Python itself lists what a process and its workers import. How long it takes is in
``benchmarks/starts.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import COMMANDS

from folders import PER_FILE, arguments, contents
from nucpro.cli import main


def imported(*arguments: str | Path, code: int = 0) -> set[str]:
    """Packages that ``nucpro ARGUMENTS`` imports, worker processes included."""
    command = [sys.executable, "-X", "importtime", "-m", "nucpro", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-2000:]
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join
)
def test_help_and_version_import_neither_torch_nor_numpy(arguments: list[str]) -> None:
    packages = imported(*arguments)
    assert "nucpro" in packages
    assert not packages & {"torch", "numpy"}
    # What finds the version takes a third of the time of all the rest.
    assert "email" not in packages or arguments == ["--version"]


def test_a_mistake_in_the_arguments_is_reported_as_soon() -> None:
    assert not imported("bogus", code=2) & {"torch", "numpy"}
    assert not imported("extract", "--precision", "fp64", code=2) & {"torch", "numpy"}
    assert "torch" not in imported("predict", "a.fa", "b.fa", code=2)


@pytest.fixture
def finished(data: Path, model: Path) -> Path:
    """A folder in which everything is done and recorded."""
    assert main(["extract", *arguments(data, model)]) == 0
    return data


def test_a_run_with_nothing_to_do_imports_no_torch(finished: Path, model: Path) -> None:
    before = contents(finished)
    assert "torch" not in imported("extract", *arguments(finished, model))
    assert contents(finished) == before
    assert "torch" not in imported("extract", *arguments(finished, model, "--dry-run"))
    assert "torch" not in imported("status", finished, "--sequences-per-file", PER_FILE)


def test_the_device_of_a_run_with_nothing_to_do_need_not_be_there(finished: Path, model: Path) -> None:
    on_a_gpu = [*arguments(finished, model), "--device", "cuda:7", "--precision", "fp32"]
    assert "torch" not in imported("extract", *on_a_gpu)


def test_dna_vectors_that_are_there_need_no_torch(finished: Path, dna_model: Path) -> None:
    made = (
        "embed-dna",
        finished,
        "--dna-model",
        dna_model,
        "--device",
        "cpu",
        "--sequences-per-file",
        PER_FILE,
    )
    assert "torch" not in imported(*made)


def test_work_to_do_imports_torch_and_checks_the_device(data: Path, model: Path) -> None:
    assert "torch" in imported("extract", *arguments(data, model, "--dry-run"))
    on_a_gpu = [*arguments(data, model, "--dry-run"), "--device", "cuda:7"]
    assert "torch" in imported("extract", *on_a_gpu, code=3)


def test_weights_are_read_once_for_a_folder(
    finished: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What counts is size, modification time and inode, so that a start need not read gigabytes."""
    weights = next(model.glob("*.safetensors"))
    facts, content = weights.stat(), weights.read_bytes()
    capsys.readouterr()
    try:
        with weights.open("r+b") as file:
            file.seek(-1, 2)
            file.write(bytes([content[-1] ^ 1]))
        os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert main(["extract", *arguments(finished, model, "--dry-run")]) == 0
        assert "Done:        6 of 6 files" in capsys.readouterr().out
        os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
        assert main(["extract", *arguments(finished, model, "--dry-run")]) == 3
        assert "6 of 6 protein files were made by tiny" in capsys.readouterr().err
    finally:
        weights.write_bytes(content)
