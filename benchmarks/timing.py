"""Time that a run takes on the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def wall_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time until the device has finished, with what the host does meanwhile."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
