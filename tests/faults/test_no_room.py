"""Disks that are full, fail, become read-only or may no longer be written, in the middle of a run.

The run stops and says which file, why, and what to do; nothing is wrong under a final name; when the cause
is removed, the repeated run ends as one that was never disturbed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios import Baseline, copied
from strike import FILLER

SIZE = "48m"
"""Of the small disk."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, or gives up rights: needs root")
with_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (on Debian: apt install strace)"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, in memory."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(mount)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr!r}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def require_stop(base: Baseline, data: Path, result: subprocess.CompletedProcess[str], *told: str) -> None:
    """Stopped with path, reason and remedy; or it had written everything already."""
    if result.returncode == 0:
        assert "Validation passed" in result.stdout
    else:
        assert result.returncode in (1, 3), result.stderr
        assert str(data) in result.stderr
        for text in told:
            assert text in result.stderr
        assert "Traceback" not in result.stderr
        assert "please report" not in result.stderr
    base.require_whole_files(data)


@as_root
@pytest.mark.points(1, 25)
def test_a_disk_that_fills_up(part: int, parts: int, extracting: Baseline, small_disk: Path) -> None:
    data = copied(extracting.scenario.start, small_disk / "data")
    result = extracting.scenario.struck(data, f"{extracting.point('main', part, parts)}:fill")
    (data / FILLER).unlink()
    require_stop(extracting, data, result)
    if result.returncode == 1:
        assert "No space left on device" in result.stderr
        assert "free space on that disk, then run again" in result.stderr
    extracting.require_recovery(data)


def require_full_disk_told(base: Baseline, point: str, disk: Path) -> None:
    """Stopped with a remedy where the disk filled up, or done already; the repeated run ends as an undisturbed one."""
    data = copied(base.scenario.start, disk / "data")
    result = base.scenario.struck(data, f"{point}:fill")
    (data / FILLER).unlink()
    if result.returncode != 0:
        # Before the start, the run tells how much it needs.
        remedy = {1: "free space", 3: "of space available"}[result.returncode]
        assert remedy in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
    base.require_whole_files(data)
    base.require_recovery(data)


@as_root
@pytest.mark.points(0, 8)
def test_a_disk_that_fills_up_under_a_data_set(
    part: int, parts: int, building: Baseline, small_disk: Path
) -> None:
    require_full_disk_told(building, building.point("main", part, parts), small_disk)


@as_root
@pytest.mark.points(0, 8)
def test_a_disk_that_fills_up_under_a_split(
    part: int, parts: int, splitting: Baseline, small_disk: Path
) -> None:
    require_full_disk_told(splitting, splitting.point("main", part, parts), small_disk)


@as_root
@pytest.mark.points(0, 15)
def test_a_folder_that_becomes_read_only(part: int, parts: int, extracting: Baseline, tmp_path: Path) -> None:
    data = copied(extracting.scenario.start, tmp_path / "data")
    result = extracting.scenario.struck(data, f"{extracting.point('main', part, parts)}:freeze")
    subprocess.run(["umount", "-l", str(data)], check=False)
    require_stop(extracting, data, result, "Read-only file system")
    extracting.require_recovery(data)


@as_root
@pytest.mark.points(1, 15)
def test_permission_that_is_lost(part: int, parts: int, extracting: Baseline, tmp_path: Path) -> None:
    """Root without the right to override permissions is as any other user."""
    data = copied(extracting.scenario.start, tmp_path / "data")
    plain = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]
    point = extracting.point("main", part, parts)
    result = extracting.scenario.struck(data, f"{point}:forbid", before=plain)
    for folder in [data, *(path for path in data.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    require_stop(extracting, data, result, "Permission denied")
    extracting.require_recovery(data)


INJECTED = {
    "fsync:error=EIO": "Input/output error",
    "fsync:error=EDQUOT": "Disk quota exceeded",
    "rename:error=EROFS": "Read-only file system",
}


@with_strace
@pytest.mark.points(0, 6)
@pytest.mark.parametrize("injected", INJECTED)
def test_a_disk_that_fails_and_a_quota_that_ends(
    part: int, parts: int, injected: str, extracting: Baseline, tmp_path: Path
) -> None:
    """The N-th call of every thread fails: there are few in each, and with the last of them all is written."""
    data = copied(extracting.scenario.start, tmp_path / "data")
    call = injected.partition(":")[0]
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf"]
    inject = ["-e", f"trace={call}", "-e", f"inject={injected}:when={part + 1}"]
    result = extracting.scenario.struck(data, "main:0:SIGKILL", before=[*strace, *inject])
    require_stop(extracting, data, result, INJECTED[injected])
    extracting.require_recovery(data)


def test_a_limit_of_file_sizes(extracting: Baseline, tmp_path: Path) -> None:
    """Merged files do not fit, protein files do."""
    data = copied(extracting.scenario.start, tmp_path / "data")
    limited = ["prlimit", "--fsize=12000", sys.executable, "-m", "nucpro"]
    command = [*limited, *extracting.scenario.command(data)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    require_stop(extracting, data, result, "_merged.pt", "raise the limit of file sizes")
    assert result.returncode == 1
    extracting.require_recovery(data)
