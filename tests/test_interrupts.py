"""A run that is killed at any point, and repeated, ends as if it had never been killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stand_ins
from folders import arguments, contents, copied, leftovers
from nucpro.cli import main

KILL_AT = Path(__file__).parent / "kill_at.py"
POINTS = 40
"""Points of SIGKILL, spread evenly over all events of an undisturbed run."""


def struck(data: Path, model: Path, point: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KILL_AT), str(data), point, "extract", *arguments(data, model)]
    # The mark is inherited by worker processes, so that they can be told from all others.
    marked = {**os.environ, "STARTED_FOR": str(data)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=marked)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pristine: Path, model: Path) -> tuple[Path, int]:
    """A folder after an undisturbed run, and the number of events of that run."""
    data = copied(pristine, tmp_path_factory.mktemp("undisturbed") / "data")
    result = struck(data, model, "0")
    assert result.returncode == 0, result.stderr
    return data, int(Path(f"{data}.events").read_text())


@pytest.mark.parametrize("part", range(POINTS))
def test_sigkill_at_any_point_loses_nothing(
    part: int, undisturbed: tuple[Path, int], data: Path, model: Path
) -> None:
    expected, events = undisturbed
    before, final = contents(data), contents(expected)
    point = 1 + part * (events - 1) // POINTS
    result = struck(data, model, str(point))
    assert result.returncode == -9, f"not killed at event {point} of {events}: {result.stderr}"
    for name, content in contents(data).items():
        # Whatever has its final name is whole: the new file, or the old one that it will replace.
        assert content in (final[name], before.get(name))
    assert main(["extract", *arguments(data, model)]) == 0
    assert contents(data) == final
    assert leftovers(data) == []


def test_two_killed_runs_in_a_row(undisturbed: tuple[Path, int], data: Path, model: Path) -> None:
    expected, events = undisturbed
    assert struck(data, model, str(events // 2)).returncode == -9
    assert struck(data, model, str(events // 4)).returncode == -9
    assert main(["extract", *arguments(data, model)]) == 0
    assert contents(data) == contents(expected)
    assert leftovers(data) == []


def test_a_killed_run_and_another_option(undisturbed: tuple[Path, int], data: Path, model: Path) -> None:
    _, events = undisturbed
    assert struck(data, model, str(events * 2 // 3)).returncode == -9
    other = data.with_name("other")
    shutil.copytree(data, other)
    assert main(["extract", *arguments(data, model, "--token-dropout", "off")]) == 0
    assert main(["extract", *arguments(other, model)]) == 0
    assert contents(other) == contents(undisturbed[0])
    assert main(["extract", *arguments(other, model, "--token-dropout", "off")]) == 0
    assert contents(other) == contents(data)


def test_a_killed_run_and_a_changed_fasta(undisturbed: tuple[Path, int], data: Path, model: Path) -> None:
    expected, events = undisturbed
    assert struck(data, model, str(events * 2 // 3)).returncode == -9
    changed = data / "viral.1.1.identified_protein" / "output_1.fa"
    changed.write_text(changed.read_text().replace("A", "G"))
    assert main(["extract", *arguments(data, model)]) == 0
    final, before = contents(data), contents(expected)
    assert {name for name in final if final[name] != before[name]} == {
        "viral.1.1.identified_protein/output_1_ESM.pt",
        "data_merge/viral.1.1_merged/output_1_merged.pt",
    }


def test_a_killed_run_and_another_model(
    undisturbed: tuple[Path, int], pristine: Path, data: Path, model: Path, tmp_path: Path
) -> None:
    _, events = undisturbed
    other = stand_ins.make_checkpoint(tmp_path / "other", width=16, layers=2, heads=2)
    assert struck(data, model, str(events * 2 // 3)).returncode == -9
    assert main(["extract", *arguments(data, other)]) == 0
    fresh = copied(pristine, tmp_path / "fresh")
    assert main(["extract", *arguments(fresh, other)]) == 0
    assert contents(data) == contents(fresh)


FULL = """
import resource, sys
from nucpro.cli.main import entry
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
sys.argv[0] = "nucpro"
entry()
"""


def test_a_disk_that_fills_up_stops_the_run_with_path_and_remedy(
    undisturbed: tuple[Path, int], data: Path, model: Path
) -> None:
    """A limit of the size of files stands for a full disk: merged files do not fit, protein files do."""
    command = [sys.executable, "-c", FULL, "extract", *arguments(data, model)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert "_merged.pt" in result.stderr
    assert "raise the limit of file sizes" in result.stderr
    assert leftovers(data) == []
    assert main(["extract", *arguments(data, model)]) == 0
    assert contents(data) == contents(undisturbed[0])


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_interrupt_ends_with_one_clear_line(
    share: float, name: str, code: int, undisturbed: tuple[Path, int], data: Path, model: Path
) -> None:
    expected, events = undisturbed
    result = struck(data, model, f"{int(events * share)}:{name}")
    assert result.returncode == code, result.stderr
    assert result.stderr.strip() == (
        "Interrupted. Everything that was finished is kept; run the same command again to continue."
    )
    assert main(["extract", *arguments(data, model)]) == 0
    assert contents(data) == contents(expected)
    assert leftovers(data) == []


def test_workers_never_outlive_a_killed_run(undisturbed: tuple[Path, int], data: Path, model: Path) -> None:
    _, events = undisturbed
    assert struck(data, model, str(events - 5)).returncode == -9
    # Workers end when the pipe to their parent closes; each look at all processes gives them time for it.
    looks = (processes_started_for(data) for _ in range(2000))
    assert next((found for found in looks if not found), None) == []


def processes_started_for(data: Path) -> list[str]:
    mark = f"STARTED_FOR={data}\0".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if (
                    mark in (process / "environ").read_bytes()
                    and b"fork" in (process / "cmdline").read_bytes()
                ):
                    found.append(process.name)
            except OSError:  # it ended meanwhile, or belongs to somebody else
                continue
    return found
