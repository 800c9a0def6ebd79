"""Lines of a run appear when they are said, also where output is a pipe, and without any variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nucpro.__main__
from folders import arguments

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")

# Runs a program that waits, before the second of its vector files gets its name, until a pipe is written to. Where
# that never happens, the clock of the system ends it.
PROGRAM = """
import os, runpy, signal, sys
program, pipe = sys.argv[1:3]
sys.argv[:3] = [program]
first, waited = "viral.1.1.identified_protein/output_1_ESM.pt", []
def wait(event, arguments):
    # Files are computed side by side: any but the first waits, whichever gets here.
    if event == "os.rename" and str(arguments[1]).endswith("_ESM.pt") and not str(arguments[1]).endswith(first):
        if not waited:
            waited.append(arguments[1])
            open(pipe).close()
sys.addaudithook(wait)
signal.alarm(300)
runpy.run_path(program, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (nucpro.__main__.__file__, ["extract"]),
        (ROOT / "scripts" / "extract_training_data.py", []),
    ],
    ids=["nucpro", "script"],
)
def test_the_first_file_is_reported_in_a_pipe_before_the_second_is_done(
    program: str | Path, command: list[str], data: Path, model: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = [sys.executable, "-c", PROGRAM, program, pipe, *command, *arguments(data, model)]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=plain) as run:
        assert run.stdout is not None
        told = next((line for line in run.stdout if "] Extracted" in line), None)
        assert told is not None, "nothing appears"
        assert told.startswith("[1/6]")
        pipe.write_text("")
        assert run.stdout.read().splitlines()[-1].startswith("Validation passed")
    assert run.returncode == 0


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["status", "--sequences-per-file", "4"], ["doctor", "--device", "cpu"]])
def test_an_answer_that_cannot_be_written_is_an_error_in_words(command: list[str], data: Path) -> None:
    words = [sys.executable, "-m", "nucpro", command[0], str(data), *command[1:]]
    with FULL.open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("standard output: cannot be written (No space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_run_goes_on_where_its_lines_and_its_log_cannot_be_written(data: Path, model: Path) -> None:
    (data / "extraction.log").symlink_to(FULL)
    words = [sys.executable, "-m", "nucpro", "extract", *arguments(data, model)]
    with FULL.open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
