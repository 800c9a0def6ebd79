"""Kills, full disks and second runs under the commands that make files beside extraction and data sets.

Training, also of three models that are compared, prediction, export, report, single FASTA files, and the downloads of
genomes and of models from a server on the loopback interface.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenarios import WHOLE, Baseline, Scenario, copied, state
from test_no_room import as_root, require_full_disk_told, small_disk
from test_two_at_once import stopped

from folders import arguments
from nucpro.cli import main

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


@as_root
def test_a_mount_point_is_refused_where_a_folder_is_renamed_to(
    residues: Scenario, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a volume of a container: known before anything is computed."""
    own = str(residues.start / "residues")
    command = [str(small_disk) if word == own else word for word in residues.command(residues.start)]
    assert main(command) == 3
    told = capsys.readouterr().err
    assert f"{small_disk}: is a mount point, which no folder can replace; name a new folder in it" in told, (
        told
    )
    assert list(small_disk.parent.iterdir()) == [small_disk]


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
def test_limits_of_memory_are_reported(
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


@pytest.fixture
def control_group() -> Iterator[Callable[[int], list[str]]]:
    """What starts a command in a control group of its own with so many MiB, of version 1 or 2."""
    top = Path("/sys/fs/cgroup")
    parent, name = (
        (top / "memory", "memory.limit_in_bytes") if (top / "memory").is_dir() else (top, "memory.max")
    )
    group = parent / f"nucpro_faults_{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group: {error}")
    try:
        if not (group / name).exists():
            pytest.skip("control groups do not count memory here")

        def limited(mebibytes: int) -> list[str]:
            (group / name).write_text(str(mebibytes << 20))
            return ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]

        yield limited
    finally:
        # Workers end when they notice that the run did.
        while (group / "cgroup.procs").read_text():
            os.sched_yield()
        group.rmdir()


@as_root
@pytest.mark.points(0, 6)
@pytest.mark.parametrize("command", ["extract", "train", "predict", "embed"])
def test_a_control_group_with_little_memory_damages_nothing(
    part: int,
    parts: int,
    command: str,
    made: Callable[[str], Baseline],
    control_group: Callable[[int], list[str]],
    tmp_path: Path,
) -> None:
    """A run that the system ends cannot tell of it; the next one goes on."""
    base = made(command)
    data = copied(base.scenario.start, tmp_path / "data")
    limit = [*control_group(120 + 40 * part), sys.executable, "-m", "nucpro"]
    result = subprocess.run(
        [*limit, *base.scenario.command(data)], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode in (0, 1, 3, -9), result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    reasons = ("a worker process was killed", "of memory are free", "Out of memory")
    assert result.returncode != 1 or any(reason in result.stderr for reason in reasons), result.stderr
    base.require_whole_files(data)
    base.require_recovery(data)


@as_root
@pytest.mark.points(0, 1)
def test_weights_that_do_not_fit_in_a_control_group_are_reported(
    part: int,
    parts: int,
    pristine: Path,
    control_group: Callable[[int], list[str]],
    tmp_path: Path,
) -> None:
    import stand_ins

    large = stand_ins.make_checkpoint(tmp_path / "large", width=640, layers=12, heads=20)
    data = copied(pristine, tmp_path / "data")
    command = [sys.executable, "-m", "nucpro", "extract", *arguments(data, large)]
    result = subprocess.run([*control_group(250), *command], capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert re.search(
        r"model large: its weights take 98\.7 MB, but only [0-9.]+ .?B of memory are free", result.stderr
    )
    assert main(command[3:]) == 0
