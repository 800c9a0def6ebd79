"""What a command imports before it can answer: seconds of torch, and a quarter of one of numpy, only where needed.

Seen from outside: Python itself lists what a process and its workers import. How long it takes is in
``benchmarks/starts.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import COMMANDS


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


def test_a_mistake_in_the_arguments_is_told_as_soon() -> None:
    assert not imported("bogus", code=2) & {"torch", "numpy"}
    assert not imported("extract", "--precision", "fp64", code=2) & {"torch", "numpy"}
