"""Where the work of a job is done: an engine encodes files, and makes calls that need no model.

:class:`LocalEngine` is one device, fed by threads, with calls in a few processes of this machine; another
engine is in the room ``cluster``. A job asks its engine and knows nothing else about devices and processes.

Of the local engine, a few threads each take a file through reading, computing and writing. Computing is put
on the device in the order in which files get there, so that while one file is computed the next is read and
the last is written. However many files there are, only a few are held in memory.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from nucpro.execution.workers import Workers
from nucpro.extraction.plan import PlanItem
from nucpro.formats.sequences import Side
from nucpro.options import Options
from nucpro.state.history import Counting, Totals
from nucpro.state.records import Stamp

if TYPE_CHECKING:
    from nucpro.embedding.encoder import FastaEncoder, Identified

__all__ = ["FILES_UNDER_WAY", "Engine", "Finished", "Loader", "LocalEngine", "in_order"]

FILES_UNDER_WAY = 3
"""Files that an encoder is given at a time: one is read, one computed, one written."""
_SECONDS_BETWEEN_LOOKS = 1.0

Item = TypeVar("Item")
Model = TypeVar("Model", bound=Counting)
Result = TypeVar("Result")

Loader: TypeAlias = "Callable[[Identified, Options], FastaEncoder]"
"""Loads a model that was identified, in the process that calls it."""


@dataclass(frozen=True)
class Finished:
    """An item whose vectors are on disk.

    Parameters
    ----------
    item : PlanItem
        The item.
    elapsed : float
        Seconds since the item before was finished.
    seconds : float
        Seconds from the item's first batch on its device to its vectors on disk, whatever other items did meanwhile.
    stamp : Stamp or None
        Stamp of the vectors as their writer saw them.
    """

    item: PlanItem
    elapsed: float
    seconds: float
    stamp: Stamp | None = None


class Engine(AbstractContextManager["Engine"], ABC):
    """Encodes files, and makes calls that need no model; a context manager that ends what it started."""

    @property
    @abstractmethod
    def workers(self) -> Workers:
        """Where calls are made that need no model: reading, merging, validating."""

    @property
    @abstractmethod
    def totals(self) -> Totals:
        """What went through the encoders so far."""

    @property
    @abstractmethod
    def lost(self) -> int:
        """Encoders that were killed while they wrote, so that unfinished files may be left over."""

    @abstractmethod
    def problems(self) -> list[str]:
        """Why nothing can be encoded here, as pre-flight problems."""

    @abstractmethod
    def load(self, identified: Identified) -> FastaEncoder | None:
        """Load a model that was identified; returns it where it is loaded in this process.

        Raises
        ------
        ModelError
            The checkpoint is damaged or holds something unexpected.
        """

    @abstractmethod
    def extract(
        self, items: Sequence[PlanItem], side: Side, meanwhile: Callable[[], object]
    ) -> Iterator[Finished]:
        """Make the vectors of items, and yield each when they are on disk.

        Parameters
        ----------
        items : sequence of PlanItem
            The files.
        side : Side
            Whose vectors.
        meanwhile : callable
            Is called every few seconds; what it raises ends the work.

        Raises
        ------
        NucproError
            The first fault, at once.
        """

    @abstractmethod
    def each(
        self,
        load: Callable[[Loader], Model],
        work: Callable[[Model, Item], Result],
        items: Iterable[Item],
        count: int,
    ) -> Iterator[tuple[Item, float, Result]]:
        """Do a piece of work for every item, a few at a time, and yield each when it is done.

        Parameters
        ----------
        load : callable
            Loads what the work is done with, its encoders by the loader that it is given; picklable.
        work : callable
            Does the work of an item with what was loaded; called in threads; picklable.
        items : iterable
            Taken one by one, when there is room for it; picklable, and named by their text in messages.
        count : int
            How many they are.

        Yields
        ------
        (item, float, object)
            The item, the seconds since the one before was done, and the result.

        Raises
        ------
        NucproError
            The first fault, at once.
        """

    @abstractmethod
    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Result of a call that needs the device; function and arguments must be picklable."""


class LocalEngine(Engine):
    """One device of this machine, and a few processes.

    Parameters
    ----------
    options : Options
        The device.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._workers = Workers()
        self._encoder: FastaEncoder | None = None
        self._loaded: Counting | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.close(abandon=error is not None)

    @property
    def workers(self) -> Workers:
        """Processes of this machine, started when they are first needed."""
        return self._workers

    @property
    def totals(self) -> Totals:
        """What went through the encoders so far."""
        return Totals() if self._loaded is None else self._loaded.totals

    @property
    def lost(self) -> int:
        """None: the encoder lives and dies with this process."""
        return 0

    def problems(self) -> list[str]:
        """Why the device cannot be used."""
        from nucpro.embedding.encoder import device_problems  # noqa: PLC0415

        return device_problems(self._options.device)

    def load(self, identified: Identified) -> FastaEncoder:
        """Load the model now, and return it."""
        from nucpro.embedding import encoder as encoders  # noqa: PLC0415

        self._encoder = self._loaded = encoders.load(identified, self._options)
        return self._encoder

    def extract(
        self, items: Sequence[PlanItem], side: Side, meanwhile: Callable[[], object]
    ) -> Iterator[Finished]:
        """Make the vectors of items in their order, a few at a time, in threads."""

        def unit(item: PlanItem) -> tuple[float, Stamp | None]:
            if self._encoder is None:
                raise RuntimeError("load comes before extract")
            vectors = item.pair.vectors(side)
            self._encoder.extract(item.pair.fasta(side), vectors)
            # Right here: whoever replaces the file later is noticed.
            return self._encoder.took(vectors), Stamp.of(vectors)

        made = in_order(items, unit, meanwhile)
        return (Finished(item, elapsed, *result) for item, elapsed, result in made)

    def each(
        self,
        load: Callable[[Loader], Model],
        work: Callable[[Model, Item], Result],
        items: Iterable[Item],
        count: int,
    ) -> Iterator[tuple[Item, float, Result]]:
        """Do the work of every item in threads, and yield each in the order of ``items``."""
        from nucpro.embedding import encoder as encoders  # noqa: PLC0415

        self._loaded = loaded = load(encoders.load)
        return in_order(items, partial(work, loaded))

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call right here."""
        return function(*arguments)


def in_order(
    items: Iterable[Item], unit: Callable[[Item], Result], meanwhile: Callable[[], object] = lambda: None
) -> Iterator[tuple[Item, float, Result]]:
    """Run a unit of work for every item, a few at a time, and yield each item when its unit is done.

    Parameters
    ----------
    items : iterable
        The work, in order; taken one by one, when there is room for it.
    unit : callable
        Does the work of one item; called in threads.
    meanwhile : callable, optional
        Is called about every second while a unit is waited for.

    Yields
    ------
    (item, float, object)
        The item, in the order of ``items``, the seconds since the one before was done, and what its unit gave.

    Raises
    ------
    Exception
        The first error of a unit or of ``meanwhile``, at once; units that had not started are dropped.
    """
    upcoming = iter(items)
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    clock = time.perf_counter()
    threads = ThreadPoolExecutor(FILES_UNDER_WAY, "nucpro-file")
    try:
        under_way.extend((item, threads.submit(unit, item)) for item in islice(upcoming, FILES_UNDER_WAY))
        while under_way:
            item, future = under_way.popleft()
            while not wait([future], _SECONDS_BETWEEN_LOOKS).done:
                meanwhile()
            result = future.result()
            under_way.extend((ahead, threads.submit(unit, ahead)) for ahead in islice(upcoming, 1))
            now = time.perf_counter()
            yield item, now - clock, result
            clock = now
    finally:
        # After an error nobody wants to wait for files that are still computed.
        threads.shutdown(wait=False, cancel_futures=True)
