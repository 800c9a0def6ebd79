"""Worker processes for work that must not slow the encoder down: checking, merging, validating.

Workers start fresh (never forked, so no CUDA state is copied), ignore the keyboard's interrupt, which
only the run itself answers, and end as soon as the run is gone, however it ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from types import TracebackType
from typing import Self, TypeVar

from nucpro.errors import WorkerError
from nucpro.processors import processors_allowed

__all__ = ["MOST_WORKERS", "Workers", "result_of"]

MOST_WORKERS = 4
"""Upper bound of worker processes: each holds one file pair in memory (about 0.3 GB), one keeps up with a GPU."""

_QUEUED_PER_WORKER = 4
_NOT_WORTH_A_POOL = 8

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Workers:
    """A pool of processes that is started when it is first needed.

    Parameters
    ----------
    count : int, optional
        Number of processes; by default the number of cores, at most :data:`MOST_WORKERS`.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or min(MOST_WORKERS, processors_allowed())
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(abandon=error is not None)

    @property
    def count(self) -> int:
        """Calls that can be made at a time."""
        return self._count

    @property
    def is_running(self) -> bool:
        """Whether workers run already, so that a call costs no start."""
        return self._pool is not None

    def submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Run ``function(*arguments)`` in a worker; all must be picklable."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=multiprocessing.get_context("spawn"), initializer=_become_worker
            )
        with _told_apart():
            return self._pool.submit(function, *arguments)

    def map(self, function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
        """Results as they are ready (the earlier call first), with a bounded number of calls under way.

        The first error ends the iteration; what had not started is dropped. Few calls are made right
        here when no worker runs yet: starting one takes longer.
        """
        arguments = list(arguments)
        if not self.is_running and len(arguments) <= _NOT_WORTH_A_POOL:
            yield from map(function, arguments)
            return
        pending: list[Future[Result]] = []
        for argument in arguments:
            pending.append(self.submit(function, argument))
            if len(pending) >= self.count * _QUEUED_PER_WORKER:
                yield from _taken(pending)
        while pending:
            yield from _taken(pending)

    def close(self, *, abandon: bool = False) -> None:
        """End the workers: after their work is done, or at once when the run failed.

        What an abandoned worker was writing is a temporary file, which the next run removes.
        """
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        if abandon:
            for process in list((pool._processes or {}).values()):
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _taken(pending: list[Future[Result]]) -> list[Result]:
    """Wait for the next results and take their calls out of those under way."""
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    ready = [future for future in pending if future in done]
    pending[:] = [future for future in pending if future not in done]
    return [result_of(future) for future in ready]


def result_of(future: Future[Result]) -> Result:
    """Result of a call.

    Raises
    ------
    WorkerError
        A worker process was killed.
    Exception
        What the call raised.
    """
    with _told_apart():
        return future.result()


@contextmanager
def _told_apart() -> Iterator[None]:
    """Say in words of our own that a worker process was killed."""
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process was killed, probably for lack of memory (each needs about 0.3 GB); free memory and "
            "run the same command again: everything that was finished is kept"
        ) from error


def _become_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
