"""How many processors this process may use: not all that the machine has, in a container or a job of a batch system."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["processors_allowed"]

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def processors_allowed(own_groups: Path = _OWN_GROUPS, groups: Path = _GROUPS) -> int:
    """Processors that this process may use at a time.

    Parameters
    ----------
    own_groups, groups : Path
        Where Linux lists the control groups of a process, and where these are.

    Returns
    -------
    int
        Those that it may run on (its affinity), or fewer where a control group has a quota of their time: more
        threads than that would be stopped by the kernel again and again. At least 1.
    """
    quotas = _quotas(own_groups, groups)
    return max(1, min(len(os.sched_getaffinity(0)), *(math.ceil(quota) for quota in quotas), 1 << 20))


def _quotas(own_groups: Path, groups: Path) -> list[float]:
    """Processors' worth of time that a process and the groups above it may use."""
    quotas = []
    for line in _words(own_groups, separator="\n"):
        number, controllers, path = line.split(":", 2)
        # Version 2 of control groups has one tree, version 1 one for each controller.
        top = groups if number == "0" and not controllers else groups / "cpu"
        if top == groups or "cpu" in controllers.split(","):
            own = top / path.lstrip("/")
            # A container may see its own group as the top, whatever its path is called outside.
            places = [place for place in (own, *own.parents) if place.is_relative_to(top)]
            quotas += [quota for place in places if (quota := _quota(place)) is not None]
    return quotas


def _quota(group: Path) -> float | None:
    words = _words(group / "cpu.max") or [
        *_words(group / "cpu.cfs_quota_us"),
        *_words(group / "cpu.cfs_period_us"),
    ]
    # "max" and -1 stand for no limit.
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    return int(words[0]) / int(words[1])


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").strip().split(separator)
    except OSError:
        return []
