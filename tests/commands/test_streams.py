"""Standard streams as schedulers, daemons and full disks leave them: closed, or refusing."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

GENOMES = Path(__file__).resolve().parents[2] / "demo" / "genomes"
CLOSED = ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.fixture
def genomes(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in GENOMES.glob("viral*.gz"):
        shutil.copy(path, folder)
    return folder


def shell(command: str, redirection: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m nucpro {command} {redirection}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize("redirection", CLOSED)
def test_closed_streams_stop_nothing_and_no_file_gets_their_place(genomes: Path, redirection: str) -> None:
    made = shell(f"dataset {genomes} --length 300 --processes 2", redirection)
    assert made.returncode == 0
    assert "Traceback" not in made.stdout + made.stderr
    assert (genomes / "viral.1.1.identified_protein.fa").read_bytes().startswith(b">")
    assert (genomes / ".extraction.lock").read_bytes() == b""


@pytest.mark.parametrize("redirection", ["2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("command", "code"), [("--help", 0), ("nonsense", 2), ("status /nowhere", 3)])
def test_exit_codes_do_not_depend_on_streams(redirection: str, command: str, code: int) -> None:
    done = shell(command, redirection)
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["", "--help", "help", "--version", "extract --help", "help predict"])
def test_help_that_nobody_reads_ends_quietly(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "nucpro", *command.split()]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    full = shell(command, ">/dev/full")
    assert full.returncode == 1
    assert full.stderr.startswith("standard output: cannot be written (No space left on device)")


def test_an_answer_that_cannot_be_written_is_no_success(genomes: Path) -> None:
    done = shell(f"dataset {genomes} --length 300 --processes 1", ">/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "standard output: cannot be written (No space left on device), so the output is"
    )
    assert (genomes / "viral.1.1.identified_protein.fa").exists()


def test_messages_that_cannot_be_written_stop_nothing(genomes: Path) -> None:
    assert shell(f"dataset {genomes} --length 300 --processes 1", "2>/dev/full").returncode == 0


SURROUNDINGS = [
    {
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "HOME": "/nowhere",
        "TERM": "dumb",
        "COLUMNS": "0",
        "LINES": "0",
    },
    {
        "LANG": "xx_YY.nonsense",
        "LC_ALL": "xx_YY.nonsense",
        "HOME": "",
        "TERM": "",
        "COLUMNS": "junk",
        "TZ": "a/b",
    },
    {
        "PYTHONIOENCODING": "ascii",
        "NO_COLOR": "1",
        "FORCE_COLOR": "1",
        "COLUMNS": "-5",
        "PYTHONWARNINGS": "error",
    },
    {
        "OMP_NUM_THREADS": "0",
        "CUDA_VISIBLE_DEVICES": "none,junk",
        "TMPDIR": "/nowhere",
        "HF_HOME": "/proc/nowhere",
    },
    {"MPLCONFIGDIR": "/nowhere", "MPLBACKEND": "module://nowhere", "XDG_CACHE_HOME": "/proc/nowhere"},
    {"TQDM_DISABLE": "junk", "TQDM_NCOLS": "junk", "TQDM_MININTERVAL": "junk", "http_proxy": "junk"},
]


@pytest.mark.parametrize("variables", SURROUNDINGS, ids=str)
def test_odd_surroundings_change_nothing(genomes: Path, variables: dict[str, str]) -> None:
    done = shell(f"dataset {genomes} --length 300 --processes 2", "", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert "192 of 1746 frames kept" in done.stdout
    look = shell(f"inspect {genomes}", "", **variables)
    assert (look.returncode, look.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        *("extract --device cpu --data-dir", "validate", "status", "inspect", "report", "split", "download"),
        *("doctor", "predict --model model --device cpu"),
        "embed INPUT --device cpu -o",
    ],
)
def test_a_name_that_no_file_system_takes_is_reported_in_one_line(tmp_path: Path, command: str) -> None:
    name = tmp_path / ("x" * 300 + (".npz" if command.endswith("-o") else ""))
    (tmp_path / "x.fa").write_text(">a\nMK\n")
    done = shell(f"{command.replace('INPUT', str(tmp_path / 'x.fa'))} {name}", "")
    assert done.returncode == 3
    remedy = "give the path of an existing file or folder, or a shorter name"
    if command.endswith("-o"):
        remedy = "name another place with --output, or shorten the name"
    assert f"{name}" in done.stderr
    assert f"File name too long; {remedy}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_input_whose_name_no_file_system_takes_is_reported_in_one_line(tmp_path: Path) -> None:
    done = shell(f"embed -o {tmp_path}/x.pt {tmp_path}/{'x' * 300}", "")
    assert done.returncode == 3
    assert "cannot be read: File name too long" in done.stderr
    assert "Traceback" not in done.stderr


def on_terminal(columns: int, command: str, **variables: str) -> tuple[int, str]:
    """Exit code of a command and what it shows on a terminal of a width."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "nucpro", *command.split()],
        stdin=there,
        stdout=there,
        stderr=there,
        env={**os.environ, **variables},
    )
    os.close(there)
    shown = b""
    try:
        while block := os.read(here, 1 << 16):
            shown += block
    except OSError:  # Linux says so when the last holder of the other end is gone
        pass
    os.close(here)
    return process.wait(), shown.decode(errors="replace")


def test_the_doctor_wraps_its_lines_on_a_terminal(tmp_path: Path) -> None:
    missing = f"{tmp_path / 'nowhere'}"
    code, shown = on_terminal(80, f"doctor {missing} --device cpu", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    lines = shown.split("\r\n")
    assert code == 3
    # A path is never broken.
    assert [line for line in lines if len(line) > 80 and missing not in line] == []
    (first,) = (number for number, line in enumerate(lines) if line.startswith("problem  Protein model:"))
    assert lines[first + 1].startswith(" " * 26)


TERMINALS = [
    (0, {}),
    (1, {}),
    (20, {}),
    (80, {"TERM": "dumb"}),
    (80, {"COLUMNS": "0"}),
    (80, {"TERM": "nonsense", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}),
]


@pytest.mark.parametrize(("columns", "variables"), TERMINALS)
def test_odd_terminals_show_the_answer(genomes: Path, columns: int, variables: dict[str, str]) -> None:
    code, shown = on_terminal(columns, f"dataset {genomes} --length 300 --processes 1", **variables)
    assert (code, shown.count("192 of 1746 frames kept")) == (0, 1)
    code, shown = on_terminal(columns, f"status {genomes} --watch 0.1", **variables)
    assert code == 0
    assert "Run" in shown
