"""Work beside the encoder: a queue of calls for worker processes, with few of them under way at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from nucpro.workers import Workers, result_of

__all__ = ["Background"]

_UNDER_WAY_PER_WORKER = 2


class Background:
    """Calls that run in worker processes while this process does something else.

    The first call that fails raises from :meth:`poll` or :meth:`drain`, so that a fault stops the run
    at once.

    Parameters
    ----------
    workers : Workers
        Where the calls run.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any], object]]] = deque()
        self._under_way: dict[Future[Any], Callable[[Any], object]] = {}

    def add(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        then: Callable[[Any], object],
        *,
        first: bool = False,
    ) -> None:
        """Queue ``function(*arguments)``; ``then(result)`` is called here, from :meth:`poll` or :meth:`drain`.

        Parameters
        ----------
        function, arguments
            What a worker calls; both picklable.
        then : callable
            Gets the result.
        first : bool
            Put it before everything that has not started.
        """
        entry = (function, arguments, then)
        if first:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)
        self._start()

    def poll(self) -> None:
        """Take what has finished, without waiting."""
        for future in [future for future in self._under_way if future.done()]:
            self._under_way.pop(future)(result_of(future))
        self._start()

    def drain(self) -> None:
        """Wait until everything is done."""
        self._start()
        while self._under_way:
            wait(self._under_way, return_when=FIRST_COMPLETED)
            self.poll()

    def _start(self) -> None:
        while self._waiting and len(self._under_way) < self._workers.count * _UNDER_WAY_PER_WORKER:
            function, arguments, then = self._waiting.popleft()
            self._under_way[self._workers.submit(function, *arguments)] = then
