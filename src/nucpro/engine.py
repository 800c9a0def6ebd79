"""The local engine: one unit of work after the other on one device, which never waits for files.

A few threads each take a file through reading, computing and writing. Computing is put on the device in
the order in which files get there, so that while one file is computed the next is read and the last is
written. However many files there are, only a few are held in memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["in_order"]

_FILES_UNDER_WAY = 3

Item = TypeVar("Item")


def in_order(items: Sequence[Item], unit: Callable[[Item], object]) -> Iterator[tuple[Item, float]]:
    """Run a unit of work for every item, a few at a time, and yield each item when its unit is done.

    Parameters
    ----------
    items : sequence
        The work, in order.
    unit : callable
        Does the work of one item; called in threads.

    Yields
    ------
    (item, float)
        The item, in the order of ``items``, and the seconds since the one before was done.

    Raises
    ------
    Exception
        The first error of a unit, at once; units that had not started are dropped.
    """
    upcoming = iter(items[_FILES_UNDER_WAY:])
    under_way: deque[tuple[Item, Future[object]]] = deque()
    clock = time.perf_counter()
    threads = ThreadPoolExecutor(_FILES_UNDER_WAY, "nucpro-file")
    try:
        under_way.extend((item, threads.submit(unit, item)) for item in items[:_FILES_UNDER_WAY])
        while under_way:
            item, future = under_way.popleft()
            future.result()
            under_way.extend((ahead, threads.submit(unit, ahead)) for ahead in islice(upcoming, 1))
            now = time.perf_counter()
            yield item, now - clock
            clock = now
    finally:
        # After an error nobody wants to wait for files that are still computed.
        threads.shutdown(wait=False, cancel_futures=True)
