"""Kills, full disks and second runs under the commands that make files beside extraction and data sets.

Training, also of three models that are compared, prediction, export, report, single FASTA files, and the downloads of
genomes and of models from a server on the loopback interface.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scenarios import WHOLE, Baseline, baseline, copied, state
from test_no_room import as_root, require_full_disk_told, small_disk
from test_two_at_once import stopped

from nucpro.cli import main
from nucpro.formats import read_merged, write_merged

EMBEDDING = ("embed", "residues", "hdf5")
COMMANDS = (
    "train",
    "compare",
    "evaluate",
    "predict",
    "export",
    "report",
    *EMBEDDING,
    "download",
    "fetch_models",
)
FAST = ("train", "predict", *EMBEDDING, "fetch_models")
LOCKED = ("train", "compare", "evaluate", "predict", "export", "embed", "download", "fetch_models")
"""Commands of which a second one on the same output is refused; a report replaces its files at its end."""

__all__ = ["small_disk"]


@pytest.fixture(scope="session")
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Baseline]:
    """What undisturbed runs make, by command."""
    known: dict[str, Baseline] = {}

    def of(command: str) -> Baseline:
        if command not in known:
            known[command] = baseline(request.getfixturevalue(command), tmp_path_factory.mktemp(command))
        return known[command]

    return of


@pytest.fixture(params=COMMANDS)
def base(request: pytest.FixtureRequest, whole: bool, made: Callable[[str], Baseline]) -> Baseline:
    if not (whole or request.param in FAST):
        pytest.skip(WHOLE)
    return made(request.param)


@pytest.mark.points(1, 12)
def test_killed_at_any_instant(part: int, parts: int, base: Baseline, tmp_path: Path) -> None:
    data = copied(base.scenario.start, tmp_path / "data")
    point = base.point("main", part, parts)
    result = base.scenario.struck(data, f"{point}:SIGKILL")
    assert result.returncode == -9, f"not killed at {point} of {base.events}: {result.stderr}"
    base.require_whole_files(data)
    base.require_recovery(data)


@as_root
@pytest.mark.points(0, 6)
def test_a_disk_that_fills_up(part: int, parts: int, base: Baseline, small_disk: Path) -> None:
    require_full_disk_told(base, base.point("main", part, parts), small_disk)


@pytest.mark.points(0, 4)
@pytest.mark.parametrize("command", LOCKED)
def test_a_second_run_is_refused(
    part: int,
    parts: int,
    command: str,
    made: Callable[[str], Baseline],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = made(command)
    data = copied(base.scenario.start, tmp_path / "data")
    with stopped(base.scenario, data, base.point("main", part, parts, share=0.9)) as first:
        held = any(data.rglob("*.lock"))
        code = base.scenario.repeat(data)
        told = capsys.readouterr().err
        # Before the lock is taken, and after the last file, the other one is alone.
        assert not held or code == 0 or (code == 3 and f"in use by process {first.process.pid}" in told), told
    assert first.code in (0, 3), first.told
    assert base.scenario.repeat(data) == 0
    assert state(data) == base.final


@pytest.mark.points(0, 3)
def test_a_second_report_beside_it_changes_nothing(
    part: int, parts: int, made: Callable[[str], Baseline], tmp_path: Path
) -> None:
    base = made("report")
    data = copied(base.scenario.start, tmp_path / "data")
    with stopped(base.scenario, data, base.point("main", part, parts)) as first:
        assert base.scenario.repeat(data) == 0
        assert state(data) == base.final
    assert first.code == 0, first.told
    assert state(data) == base.final


@pytest.mark.points(0, 4)
@pytest.mark.parametrize("command", ["train", "predict", "export", "report", "embed"])
def test_limits_of_memory_are_told(
    part: int, parts: int, command: str, made: Callable[[str], Baseline], tmp_path: Path
) -> None:
    """A limit of address space, as batch systems and ``ulimit -v`` set it."""
    base = made(command)
    data = copied(base.scenario.start, tmp_path / "data")
    limit = ["prlimit", f"--as={(part + 1) * 400_000_000}", sys.executable, "-m", "nucpro"]
    result = subprocess.run(
        [*limit, *base.scenario.command(data)], capture_output=True, text=True, check=False, timeout=300
    )
    base.require_whole_files(data)
    base.require_recovery(data)
    assert result.returncode != 0 or state(data) == base.final
    if result.returncode != 0:
        assert "Out of memory" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr, result.stderr


def replace_merged(data: Path) -> None:
    """Put other vectors in the place of a merged file, as another run would."""
    path = min((data / "data_merge").rglob("*_merged.pt"))
    file = read_merged(path)
    write_merged(path, file.ids, file.vectors * 2, file.meta, file.label)


def replace_contigs(data: Path) -> None:
    fasta = data / "contigs.fasta"
    new = fasta.with_name("new")
    new.write_bytes(fasta.read_bytes().replace(b"ACG", b"AGG"))
    new.replace(fasta)


@pytest.mark.points(0, 5)
@pytest.mark.parametrize(("command", "change"), [("train", replace_merged), ("predict", replace_contigs)])
def test_an_input_that_is_replaced_meanwhile(
    part: int,
    parts: int,
    command: str,
    change: Callable[[Path], None],
    made: Callable[[str], Baseline],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Either the run tells that something changed, or all is of the old input or all of the new one."""
    base = made(command)
    fresh = copied(base.scenario.start, tmp_path / "fresh" / "data")
    change(fresh)
    assert base.scenario.repeat(fresh) == 0
    wanted = state(fresh)
    data = copied(base.scenario.start, tmp_path / "data")
    with stopped(base.scenario, data, base.point("main", part, parts)) as run:
        change(data)
    assert "please report" not in run.told
    if run.code == 0:
        outputs = {name: content for name, content in state(data).items() if name not in base.initial}
        of_one_input = [{name: final[name] for name in outputs} for final in (base.final, wanted)]
        assert outputs in of_one_input
    else:
        assert run.code in (1, 3), run.told
    code = base.scenario.repeat(data)
    if code != 0:
        told = capsys.readouterr().err
        assert code in (2, 3)
        assert "--replace" in told
        assert main([*base.scenario.command(data), "--replace"]) == 0
    assert state(data) == wanted


def test_a_clock_that_is_set_back_changes_nothing(made: Callable[[str], Baseline], tmp_path: Path) -> None:
    """Times of the next run lie before those of the files and records of the one before."""
    base = made("predict")
    data = copied(base.scenario.start, tmp_path / "data")
    point = base.point("main", 1, 2)
    assert base.scenario.struck(data, f"{point}:SIGKILL").returncode == -9
    for path in data.rglob("*"):
        os.utime(path, (4_102_444_800, 4_102_444_800))
    base.require_recovery(data)
