"""What this process may use of its machine: cores and memory, within the limits of a batch system or a container.

Limits come from the set of cores that the process is bound to (``taskset``, SLURM) and from the control
groups it is in (https://docs.kernel.org/admin-guide/cgroup-v2.html, and version 1), each of which may be
narrower than those above.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

__all__ = ["cores", "free_memory", "memory_limit"]

_PROCESS = Path("/proc/self")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def cores(process: Path = _PROCESS, control_groups: Path = _CONTROL_GROUPS) -> int:
    """Whole cores that this process may use at a time, at least 1.

    Parameters
    ----------
    process : Path
        Folder of the process below ``/proc``.
    control_groups : Path
        Where control groups are mounted.
    """
    quotas = (_quota(folder) for folder in _groups(process, control_groups, "cpu"))
    return max(1, min([len(os.sched_getaffinity(0)), *(int(quota) for quota in quotas if quota is not None)]))


def memory_limit(process: Path = _PROCESS, control_groups: Path = _CONTROL_GROUPS) -> int | None:
    """Bytes of memory that this process may use with all others of its control groups; None without a limit.

    Parameters
    ----------
    process, control_groups : Path
        See :func:`cores`.
    """
    files = ("memory.max", "memory.limit_in_bytes")
    groups = _groups(process, control_groups, "memory")
    limits = [value for folder in groups for name in files for value in _numbers(folder / name)]
    return min(limits, default=None)


def free_memory() -> int | None:
    """Bytes that are free or can be freed, within the limit of a container; None where nothing tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit = memory_limit()
    return min([*found[:1], *([] if limit is None else [limit])], default=None)


def _quota(folder: Path) -> float | None:
    """Cores that the group of a folder may use; None where it has no limit."""
    # Version 2 has quota and period in one file, version 1 has a file for each, with -1 for no limit.
    numbers = _numbers(folder / "cpu.max") or [
        *_numbers(folder / "cpu.cfs_quota_us"),
        *_numbers(folder / "cpu.cfs_period_us"),
    ]
    match numbers:
        case [quota, period] if quota > 0 and period > 0:
            return quota / period
    return None


def _numbers(path: Path) -> list[int]:
    """Whole numbers in a file; none where it is not there, cannot be read or says something else (``max``)."""
    with suppress(OSError, ValueError):
        return [int(word) for word in path.read_text().split()]
    return []


def _groups(process: Path, control_groups: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups of the process, from its own up to the topmost visible one."""
    with suppress(OSError, ValueError):
        for line in (process / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            names = controllers.split(",") if controllers else []
            for top in _tops(control_groups, controllers, names, controller):
                own = PurePosixPath("/", path).relative_to("/")
                yield from (top / folder for folder in (own, *own.parents))


def _tops(control_groups: Path, controllers: str, names: list[str], controller: str) -> list[Path]:
    if not names:
        return [control_groups, control_groups / "unified"]
    return [control_groups / controllers, control_groups / controller] if controller in names else []
