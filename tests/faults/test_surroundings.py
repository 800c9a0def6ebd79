"""Clocks that jump, strict permissions, poor locales, a terminal that is gone, and very many files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scenarios import STRIKE, WHOLE, Baseline, Scenario, copied, state

from folders import Frame, add_dna, add_source, arguments, leftovers
from nucpro.cli import main

DISTANT_PAST, DISTANT_FUTURE = 1, 4_102_444_800
"""1970, and 2100, in seconds."""


@pytest.mark.points(0, 1)
@pytest.mark.parametrize("time", [DISTANT_PAST, DISTANT_FUTURE])
def test_files_from_another_time_are_like_all_others(
    part: int, parts: int, time: int, extracting: Baseline, data: Path
) -> None:
    set_times(data, time)
    assert extracting.scenario.repeat(data) == 0
    assert state(data) == extracting.final


def set_times(folder: Path, time: int) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time, time))


@pytest.mark.parametrize("time", [DISTANT_PAST, DISTANT_FUTURE], ids=["past", "future"])
def test_a_clock_that_jumps_between_runs_changes_nothing(
    time: int, extracting: Baseline, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs that seem older than their inputs, or not made yet: known by content, not by time."""
    assert extracting.scenario.repeat(data) == 0
    for path in data.rglob("*.pt"):
        os.utime(path, (time, time))
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.pt")}
    capsys.readouterr()
    assert extracting.scenario.repeat(data) == 0
    assert "Done:        6 of 6 files" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.pt")} == before
    assert state(data) == extracting.final


def run_in(
    before: list[str], scenario: Scenario, data: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [*before, sys.executable, "-m", "nucpro", *scenario.command(data)]
    return subprocess.run(command, capture_output=True, check=False, env={**os.environ, **environment})


def with_umask(mask: str) -> list[str]:
    return ["sh", "-c", f'umask {mask}; exec "$@"', "sh"]


def test_a_strict_umask_gives_private_files(extracting: Baseline, data: Path) -> None:
    result = run_in(with_umask("077"), extracting.scenario, data)
    assert result.returncode == 0, result.stderr
    assert state(data) == extracting.final
    assert {path.stat().st_mode & 0o777 for path in data.rglob("*_merged.pt")} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up rights: needs root")
@pytest.mark.points(0, 1)
def test_a_umask_that_allows_nothing_stops_the_run(
    part: int, parts: int, extracting: Baseline, data: Path
) -> None:
    """What was written cannot be read back, by nobody."""
    plain = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]
    result = run_in([*plain, *with_umask("777")], extracting.scenario, data)
    assert result.returncode in (1, 3)
    assert b"Permission denied" in result.stderr
    # Python itself cannot open the semaphores of worker processes then, and says so with a traceback of its own.
    assert b"please report" not in result.stderr
    for path in [path for path in data.rglob("*") if not path.stat().st_mode & 0o777]:
        path.chmod(0o755)
    extracting.require_recovery(data)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_that_knows_no_unicode(
    encoding: str, whole: bool, extracting: Baseline, tmp_path: Path
) -> None:
    if encoding != "ascii" and not whole:
        pytest.skip(WHOLE)
    data = copied(extracting.scenario.start, tmp_path / "dåta 数据")
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    result = run_in([], extracting.scenario, data, **poor)
    assert result.returncode == 0, result.stderr
    assert b"d\\xe5ta" in result.stdout or b"d\xe5ta" in result.stdout or b"\\udc" in result.stdout
    assert state(data) == extracting.final


@pytest.mark.points(0, 1)
def test_a_terminal_that_is_gone(part: int, parts: int, extracting: Baseline, data: Path) -> None:
    command = [sys.executable, "-m", "nucpro", *extracting.scenario.command(data)]
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert result.returncode == 0
    assert all(line.startswith(b"Warning: ") for line in result.stderr.splitlines()), result.stderr
    assert state(data) == extracting.final


@pytest.mark.points(0, 1)
def test_work_before_the_start_grows_in_proportion_to_the_files(
    part: int, parts: int, frames: dict[str, list[Frame]], model: Path, tmp_path: Path
) -> None:
    """Files opened, listed and renamed: none of them more than once for each file, however many there are."""
    counts = [events_of_a_check(frames["viral.1.1"], number, model, tmp_path) for number in (8, 16, 32)]
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


def events_of_a_check(frames: list[Frame], number: int, model: Path, tmp_path: Path) -> int:
    data = tmp_path / f"data{number}"
    data.mkdir()
    source = add_source(data, "viral.1.1", frames[:number], per_file=1)
    add_dna(source, range(1, number + 1))
    options = arguments(data, model, "--dry-run", "--sequences-per-file", "1")
    command = [sys.executable, str(STRIKE), str(data), "all:0:none", "extract", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sum(int(path.read_text()) for path in Path(f"{data}.events").glob("[mw]*"))


def test_nothing_is_left_by_a_run_that_only_looks(data: Path, model: Path) -> None:
    before = {str(path): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert main(["extract", *arguments(data, model, "--dry-run")]) == 0
    assert {str(path): path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    assert leftovers(data) == []
