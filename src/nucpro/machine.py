"""What ends this process, and what it may use of its machine: cores and memory, within the limits that are set for it.

Limits come from the set of cores that the process is bound to (``taskset``, SLURM) and from the control
groups it is in (https://docs.kernel.org/admin-guide/cgroup-v2.html, and version 1), each of which may be
narrower than those above.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

__all__ = ["cores", "ending_signals", "free_memory"]

_PROCESS = Path("/proc/self")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_SYSTEM = Path("/proc/meminfo")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ending_signals() -> list[signal.Signals]:
    """Signals that ask this process to end, without those that it was started to ignore.

    A shell lets its background jobs ignore SIGINT; ``nohup`` lets a program ignore that its terminal closes (SIGHUP).

    Returns
    -------
    list of signal.Signals
        SIGINT, SIGTERM and SIGHUP, or some of them.
    """
    return [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def cores(process: Path = _PROCESS, control_groups: Path = _CONTROL_GROUPS) -> int:
    """Whole cores that this process may use at a time, at least 1.

    Parameters
    ----------
    process : Path
        Folder of the process below ``/proc``.
    control_groups : Path
        Where control groups are mounted.

    Returns
    -------
    int
        Number of cores.
    """
    quotas = (_quota(folder) for folder in _groups(process, control_groups, "cpu"))
    return max(1, min([len(os.sched_getaffinity(0)), *(int(quota) for quota in quotas if quota is not None)]))


def free_memory(
    process: Path = _PROCESS, control_groups: Path = _CONTROL_GROUPS, system: Path = _SYSTEM
) -> int | None:
    """Bytes that are free or can be freed, within the limits of control groups; None if unknown.

    Parameters
    ----------
    process, control_groups : Path
        See :func:`cores`.
    system : Path
        All memory according to the kernel, as in ``/proc/meminfo``.

    Returns
    -------
    int or None
        Bytes.
    """
    available = _named(system, "MemAvailable:")
    left = (_left(folder) for folder in _groups(process, control_groups, "memory"))
    return min(
        [*(1024 * size for size in available), *(size for size in left if size is not None)], default=None
    )


def _left(folder: Path) -> int | None:
    """Bytes that the group of a folder may still use; None where it has no limit."""
    limit = _numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes")
    if not limit:
        return None
    used = _numbers(folder / "memory.current") or _numbers(folder / "memory.usage_in_bytes")
    # Version 1 counts a group without its inner ones, and then with them.
    cached = _named(folder / "memory.stat", "total_inactive_file", "total_active_file") or _named(
        folder / "memory.stat", "inactive_file", "active_file"
    )
    return max(0, limit[0] - max(0, sum(used) - sum(cached)))


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
    """Whole numbers in a file; none if it is missing, unreadable or not a number (``max``)."""
    with suppress(OSError, ValueError):
        return [int(word) for word in path.read_text().split()]
    return []


def _named(path: Path, *names: str) -> list[int]:
    """Numbers that follow these words at the start of a line; none where the file cannot be read."""
    with suppress(OSError, ValueError):
        lines = (line.split() for line in path.read_text().splitlines())
        return [int(words[1]) for words in lines if words[:1] and words[0] in names]
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
