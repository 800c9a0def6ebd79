"""Progress of a command: one value for every long command and every display.

Commands and the functions of :mod:`nucpro.api` take a :data:`Show` and call it. :func:`bar` draws what it is given;
:mod:`nucpro.cli.console` prints lines or JSON instead where those are wanted, and a script may pass a callable of its
own.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from nucpro.errors import human_size, human_time

__all__ = ["BYTES", "Meter", "Progress", "Show", "Shown", "bar", "silent", "timed", "tracked"]

logger = logging.getLogger(__name__)

BYTES = "B"
"""Unit of files that are read or fetched as a whole."""

_STEPS = 1_000
"""A command shows its progress this often at most: 100,000 files must not mean 100,000 redrawn bars."""
_UNKNOWN_BYTES = 10**10
"""What a download of unknown size is taken for, to decide how often it is shown."""
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {amount}, {time}"
_COUNT = "{desc}: {amount}, {time}"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """How far a command, or one part of it, is.

    Parameters
    ----------
    done : int
        Units that are done, those of earlier runs included.
    total : int or None
        All units; None where it is not known.
    unit : str
        What is counted, in the plural, or :data:`BYTES`.
    seconds_left : float or None
        Estimate from the remaining work and the rate so far; None if unknown.
    message : str
        What is being done, such as ``Embedding``. Another message begins another part, counted from zero.
    """

    done: int
    total: int | None
    unit: str = "files"
    seconds_left: float | None = None
    message: str = "Working"

    @property
    def part(self) -> tuple[str, int | None, str]:
        """Key that identifies a part of a command."""
        return self.message, self.total, self.unit

    @property
    def amount(self) -> str:
        """What is done of how much, such as ``3 of 20 files``."""
        done, total, unit = self.done, self.total, self.unit
        if unit == BYTES:
            return human_size(done) + ("" if total is None else f" of {human_size(total)}")
        if (done if total is None else total) == 1:
            unit = unit.removesuffix("s")
        return f"{done} {unit}" if total is None else f"{done} of {total} {unit}"

    @property
    def left(self) -> str:
        """Time that is left, such as ``3 s left``; empty where it is unknown or everything is done."""
        if self.seconds_left is None or self.done == self.total:
            return ""
        return f"{human_time(self.seconds_left, decimals=0)} left"


Show = Callable[[Progress], object]
"""Takes the progress of a command: before its first unit, and as units are done."""


def silent(progress: Progress) -> None:
    """Show nothing."""


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Log how long a step of a command took, among the details; also if it fails."""
    start = time.monotonic()
    try:
        yield
    finally:
        logger.debug("%s: %s", step, human_time(time.monotonic() - start))


@contextmanager
def bar() -> Iterator[Show]:
    """Show the parts of a command one after the other as a bar on standard error, and remove it at the end.

    Nothing is drawn before the first call, nor where standard error is closed.
    """
    if sys.stderr is None:
        yield silent
        return
    with _bar() as drawn:
        yield drawn.show


def _bar() -> Any:
    # Imported only when needed: the import takes longer than printing a help text.
    from tqdm import tqdm  # noqa: PLC0415

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self._progress = Progress(0, None)
            super().__init__(bar_format=_BAR, dynamic_ncols=True, delay=1e-9, leave=False, miniters=1)

        @property
        def format_dict(self) -> dict[str, Any]:
            """Fields of the bar's format."""
            fields = super().format_dict
            # Elapsed time if the time left is unknown; both do not fit in a narrow terminal.
            shown = self._progress.left or self.format_interval(fields["elapsed"])
            return {**fields, "amount": self._progress.amount, "time": shown}

        def show(self, progress: Progress) -> None:
            """Update the bar."""
            is_new = progress.part != self._progress.part
            self._progress = progress
            if is_new or progress.done < self.n:
                self.set_description_str(progress.message, refresh=False)
                self.bar_format = _COUNT if progress.total is None else _BAR
                self.reset(progress.total)
                self.initial = self.n = progress.done
            self.update(progress.done - self.n)
            self.refresh()

    return Bar()


class Meter:
    """Counts the finished work of one part of a command, and shows it; may be used by several threads.

    Parameters
    ----------
    show : callable
        Takes the progress: at once, then after each unit, or each thousandth where there are more.
    message : str
        What is being done.
    total : int or None
        All units; None where it is not known.
    unit : str
        What is counted, in the plural, or :data:`BYTES`.
    done : int
        Units that are done already.
    work : int, optional
        What is left to do, where units differ in size: residues of files, for one. By default units count alike.
    clock : callable
        Seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        show: Show,
        message: str,
        total: int | None,
        unit: str = "files",
        *,
        done: int = 0,
        work: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show
        self._message, self._total, self._unit = message, total, unit
        self._done = done
        self._worked, self._work = 0, work if work is not None or total is None else total - done
        self._clock = clock
        self._start = clock()
        self._turn = threading.Lock()
        whole = total if total is not None else _UNKNOWN_BYTES if unit == BYTES else 0
        self._step = max(1, whole // _STEPS)
        show(self.progress)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return Progress(self._done, self._total, self._unit, self._seconds_left(), self._message)

    def advance(self, count: int = 1, work: int | None = None) -> None:
        """Count units that are done.

        Parameters
        ----------
        count : int
            Units; negative if some must be repeated.
        work : int, optional
            Their size, where units differ; by default `count`.
        """
        with self._turn:
            before, self._done = self._done, self._done + count
            self._worked += count if work is None else work
            if before // self._step != self._done // self._step or self._done == self._total:
                self._show(self.progress)

    def _seconds_left(self) -> float | None:
        seconds = self._clock() - self._start
        if self._work is None or self._worked <= 0 or seconds <= 0:
            return None
        return max(0.0, (self._work - self._worked) * seconds / self._worked)


def tracked(items: Iterable[Item], total: int, message: str, show: Show) -> Iterator[Item]:
    """Yield items as they come, and show how many came.

    Parameters
    ----------
    items : iterable
        Such as results of worker processes.
    total : int
        How many they are; with none, nothing is shown.
    message : str
        See :class:`Progress`.
    show : callable
        Takes the progress, in files.
    """
    meter = Meter(show, message, total, "files") if total else None
    for item in items:
        if meter is not None:
            meter.advance()
        yield item


class _Mapper(Protocol):
    def map(self, function: Callable[[Any], Any], arguments: Iterable[Any], /) -> Iterator[Any]: ...


class Shown:
    """Makes calls where another does, and shows how many of their results came.

    Parameters
    ----------
    mapper
        Makes the calls, such as worker processes.
    message : str
        What is being done.
    show : callable
        Takes the progress, in files.
    """

    def __init__(self, mapper: _Mapper, message: str, show: Show) -> None:
        self._mapper, self._message, self._show = mapper, message, show

    def map(self, function: Callable[[Item], Result], arguments: Iterable[Item], /) -> Iterator[Result]:
        """Results as they are ready."""
        arguments = list(arguments)
        return tracked(self._mapper.map(function, arguments), len(arguments), self._message, self._show)
