"""Worker processes for work that must not slow down the encoder: checking, merging, validating.

Workers are spawned (never forked, so no CUDA state is copied), do not import the main program, ignore
keyboard interrupts, which only the run itself handles, and end with the run, however it ends.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing.spawn
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from nucpro.errors import WorkerError
from nucpro.formats.opening import REMEDIES_OF_LIMITS
from nucpro.machine import cores, ending_signals, free_memory

__all__ = ["MOST_WORKERS", "Background", "Workers", "result_of", "starting_problems"]

logger = logging.getLogger(__name__)

MOST_WORKERS = 4
"""Upper bound of worker processes: each has one file pair in memory (about 0.3 GB), and one can keep up with a GPU."""

_MEMORY_PER_WORKER = 300_000_000
_QUEUED_PER_WORKER = 4
_NOT_WORTH_A_POOL = 8

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Workers:
    """A pool of processes that is started when it is first needed.

    Parameters
    ----------
    count : int, optional
        Number of processes; by default the cores that this process may use, at most :data:`MOST_WORKERS` and as many
        as fit in the free memory.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or min(MOST_WORKERS, cores(), _fitting())
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
        """Run ``function(*arguments)`` in a worker; all must be picklable.

        Raises
        ------
        WorkerError
            No worker can be started, or one was killed.
        """
        # A process that was interrupted before the pool knows of it would not be stopped with the others.
        with _signals_later(), _told_apart(), _working_folder_left_out():
            if self._pool is None:
                self._pool = self._new_pool()
            try:
                return self._pool.submit(function, *arguments)
            except OSError as error:
                if error.errno not in _OF_PROCESSES:
                    raise
                raise WorkerError(_not_started(error)) from error

    def _new_pool(self) -> ProcessPoolExecutor:
        logger.debug("Starting up to %d worker processes on %d cores", self.count, cores())
        try:
            with _own_semaphores():
                return ProcessPoolExecutor(self.count, mp_context=_Context(), initializer=_become_worker)
        except (OSError, ImportError) as error:
            raise WorkerError(_no_semaphores(error)) from error

    def map(
        self,
        function: Callable[[Argument], Result],
        arguments: Iterable[Argument],
        *,
        few: int = _NOT_WORTH_A_POOL,
    ) -> Iterator[Result]:
        """Results as they become ready (earlier calls first), with a bounded number of calls in progress.

        The first error ends the iteration; calls that had not started are dropped. Up to `few` calls are made
        in this process if no worker runs yet, because starting one takes longer.
        """
        arguments = list(arguments)
        if not self.is_running and len(arguments) <= few:
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
        """Stop the workers: after their work is done, or at once if the run failed.

        A stopped worker may leave a temporary file, which the next run removes.
        """
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        if abandon:
            for process in list((pool._processes or {}).values()):
                process.kill()
        # Where no thread can be started, a pool waits for one that never was.
        with suppress(RuntimeError) if abandon else nullcontext():
            pool.shutdown(wait=True, cancel_futures=True)


def _fitting() -> int:
    """Workers that fit in the free memory, at least 1."""
    free = free_memory()
    return MOST_WORKERS if free is None else max(1, free // _MEMORY_PER_WORKER)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Answer signals that end this process only afterwards."""
    arrived: list[int] = []
    before = {}
    # Only the main thread answers signals.
    if threading.current_thread() is threading.main_thread():
        for number in ending_signals():
            if callable(answer := signal.getsignal(number)):
                before[number] = answer
                signal.signal(number, lambda which, frame: arrived.append(which))
    try:
        yield
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)
        for which in arrived:
            signal.raise_signal(which)


_SEMAPHORES = Path("/dev/shm")  # noqa: S108 - where the C library keeps them


@contextmanager
def _own_semaphores() -> Iterator[None]:
    """Name semaphores after this process, and remove those of runs that were killed with all their processes.

    Usually a process of :mod:`multiprocessing` removes them, but the whole group may be killed at once.
    """
    # Process numbers mean something within one container only, and containers may share the folder.
    space = Path("/proc/self/ns/pid")
    start = f"nucpro-{space.stat().st_ino if space.exists() else 0}-"
    for path in _SEMAPHORES.glob(f"sem.{start}*"):
        if not Path("/proc", path.name.removeprefix(f"sem.{start}").partition("-")[0]).exists():
            with suppress(OSError):  # of another user
                path.unlink()
    settings: dict[str, Any] = vars(multiprocessing.current_process())["_config"]
    before = settings["semprefix"]
    settings["semprefix"] = f"/{start}{os.getpid()}"
    try:
        yield
    finally:
        settings["semprefix"] = before


class _Process(SpawnProcess):
    """A process that does not import the program that starts it.

    Spawned processes usually import it again, to find its functions. Our calls are functions of this package, and a
    script without ``if __name__ == "__main__"``, or one from standard input, would run again in every worker, or
    could not be imported.
    """

    def start(self) -> None:
        """Start it."""
        with _program_left_out():
            super().start()
        # If memory runs out, the system kills a worker first: the run can report that, but not its own end.
        with suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("1000", encoding="ascii")


class _Context(SpawnContext):
    Process = _Process


_starting = threading.Lock()


@contextmanager
def _program_left_out() -> Iterator[None]:
    """Hide the main program from processes that this thread starts; other threads are not affected."""
    thread = threading.get_ident()

    def told(name: str) -> dict[str, Any]:
        facts = tell(name)
        if threading.get_ident() == thread:
            facts = {key: value for key, value in facts.items() if not key.startswith("init_main_from_")}
        return facts

    with _starting:
        tell = multiprocessing.spawn.get_preparation_data
        multiprocessing.spawn.get_preparation_data = told
        try:
            yield
        finally:
            multiprocessing.spawn.get_preparation_data = tell


_SAFE_PATH = "PYTHONSAFEPATH"


@contextmanager
def _working_folder_left_out() -> Iterator[None]:
    """Keep the working folder out of the module path of Python processes that start.

    They are started with ``python -c``, which looks for modules there first: a file called ``random.py`` or
    ``signal.py`` in it would run in every worker. Paths of this process are passed on later.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _taken(pending: list[Future[Result]]) -> list[Result]:
    """Wait for the next results and remove their calls from those in progress."""
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
        The exception of the call.
    """
    with _told_apart():
        return future.result()


@contextmanager
def _told_apart() -> Iterator[None]:
    """Raise our own error for a killed worker process."""
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process was killed, probably for lack of memory (each needs about 0.3 GB); free memory, or use "
            "fewer with --workers where there is such an option, and run the same command again: finished "
            "work is kept"
        ) from error


def starting_problems() -> list[str]:
    """Why no worker process can be started here, as pre-flight problems: tries to make a semaphore."""
    try:
        # This kind releases its name at once, and starts no resource tracker.
        multiprocessing.get_context("fork").Semaphore()
    except (OSError, ImportError) as error:
        return [_no_semaphores(error)]
    return []


_OF_PROCESSES = {
    **REMEDIES_OF_LIMITS,
    errno.EAGAIN: "raise the limit of processes (ulimit -u), then run again",
}


def _not_started(error: OSError) -> str:
    return f"no worker process can be started: {error.strerror}; {_OF_PROCESSES[error.errno or 0]}"


def _no_semaphores(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _OF_PROCESSES:
        return _not_started(error)
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"shared memory (/dev/shm) cannot be used: {reason}; but worker processes need it for their semaphores; "
        "mount it for writing (docker --shm-size=1g, singularity --bind /dev/shm), or free space there"
    )


def _become_worker() -> None:
    # Ctrl-C and the end of a terminal come to all processes in it: the parent decides.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


_UNDER_WAY_PER_WORKER = 2


class Background:
    """Calls that run in worker processes in the background.

    The first failed call raises from :meth:`poll` or :meth:`drain`, so an error stops the run at once.

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
            The call; both picklable.
        then : callable
            Called with the result.
        first : bool
            Queue it before all calls that have not started.
        """
        entry = (function, arguments, then)
        if first:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)
        self._start()

    def poll(self) -> None:
        """Process finished calls, without waiting."""
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
