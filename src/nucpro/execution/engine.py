"""Engines: an engine encodes files, and makes calls that need no model.

:class:`LocalEngine` is one device, fed by threads, with calls in a few processes of this machine; the engine
for clusters is in :mod:`nucpro.execution.ray`. Only engines know about devices and processes.

In the local engine, a few threads each read, compute and write one file. Work is queued on the device in the
order in which files are ready, so one file is computed while the next is read and the previous one is
written. Only a few files are in memory at any time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from nucpro.execution.workers import Workers
from nucpro.options import ModelOptions, Options
from nucpro.state.history import Loaded, Totals

if TYPE_CHECKING:
    from nucpro.embedding.encoder import FastaEncoder
    from nucpro.embedding.identification import Identified

__all__ = ["FILES_UNDER_WAY", "Done", "Engine", "Loader", "LocalEngine", "engine_of", "in_order", "load_one"]

FILES_UNDER_WAY = 3
"""Files in progress per encoder: one is read, one computed, one written."""
_SECONDS_BETWEEN_LOOKS = 1.0

Item = TypeVar("Item")
Result = TypeVar("Result")

Loader: TypeAlias = "Callable[[Identified, Options], FastaEncoder]"
"""Loads a model from its spec, in the calling process."""


def load_one(model: Identified, options: Options, loader: Loader) -> FastaEncoder:
    """Load one model; with the first two given, what :meth:`Engine.load` takes."""
    return loader(model, options)


class Done(NamedTuple, Generic[Item, Result]):
    """A piece of work that was done.

    Parameters
    ----------
    item : object
        The item.
    elapsed : float
        Seconds since the previous item was done.
    result : object
        Result of the work.
    """

    item: Item
    elapsed: float
    result: Result


class Engine(AbstractContextManager["Engine"], ABC):
    """Does pieces of work with something loaded, and makes calls that need no model.

    A context manager that stops everything it started.
    """

    @property
    @abstractmethod
    def workers(self) -> Workers:
        """Workers for calls that need no model: reading, merging, validating."""

    @property
    @abstractmethod
    def totals(self) -> Totals:
        """Counts of the encoders so far."""

    @property
    @abstractmethod
    def lost(self) -> int:
        """Encoders that were killed while writing, so unfinished files may be left."""

    @abstractmethod
    def problems(self) -> list[str]:
        """Why nothing can be encoded here, as pre-flight problems."""

    @abstractmethod
    def load(self, load: Callable[[Loader], Loaded]) -> Loaded | None:
        """Load the models that the work needs; returns them if they are loaded in this process.

        Parameters
        ----------
        load : callable
            Loads them, with the loader that is passed to it; picklable.

        Raises
        ------
        ModelError
            The checkpoint is damaged or holds something unexpected.
        """

    @abstractmethod
    def run(
        self,
        work: Callable[[Any, Item], Result],
        items: Iterable[Item],
        count: int,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Iterator[Done[Item, Result]]:
        """Do a piece of work for every item, a few at a time, and yield each when it is done.

        Parameters
        ----------
        work : callable
            Processes an item with the loaded models; called in threads; picklable.
        items : iterable
            Taken one at a time, when a worker is free; picklable; their text names them in messages. The
            items of a sequence have a ``size``, by which an engine may order them.
        count : int
            Number of items.
        meanwhile : callable, optional
            Called every few seconds; an exception ends the work.

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
    options : ModelOptions
        The device.
    """

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._workers = Workers()
        self._loaded: Loaded | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._loaded is not None:
            # Files that threads are still computing are not waited for, so they must not appear later.
            self._loaded.stop_writing()
        self._workers.close(abandon=error is not None)

    @property
    def workers(self) -> Workers:
        """Processes of this machine, started when they are first needed."""
        return self._workers

    @property
    def totals(self) -> Totals:
        """Counts of the encoders so far."""
        return Totals() if self._loaded is None else self._loaded.totals

    @property
    def lost(self) -> int:
        """None: the encoder runs in this process."""
        return 0

    def problems(self) -> list[str]:
        """Why the device cannot be used."""
        from nucpro.embedding.device import device_problems  # noqa: PLC0415 - imports torch

        return device_problems(self._options.device)

    def load(self, load: Callable[[Loader], Loaded]) -> Loaded:
        """Load now, and return the loaded models."""
        from nucpro.embedding import encoder  # noqa: PLC0415 - imports torch

        self._loaded = load(encoder.load)
        return self._loaded

    def run(
        self,
        work: Callable[[Any, Item], Result],
        items: Iterable[Item],
        count: int,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Iterator[Done[Item, Result]]:
        """Do the work of every item in threads, and yield each in the order of ``items``."""
        if self._loaded is None:
            raise RuntimeError("load comes before run")
        return in_order(items, partial(work, self._loaded), meanwhile)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call in this process."""
        return function(*arguments)


def engine_of(options: ModelOptions) -> Engine:
    """Make the engine that the options name.

    Raises
    ------
    UsageError
        It needs an extra that is not installed.
    """
    if not options.uses_cluster:
        return LocalEngine(options)
    from nucpro.execution.ray.engine import ClusterEngine  # noqa: PLC0415 - Ray is an extra

    return ClusterEngine(options)


def in_order(
    items: Iterable[Item], unit: Callable[[Item], Result], meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Done[Item, Result]]:
    """Run a unit of work for every item, a few at a time, and yield each item when its unit is done.

    Parameters
    ----------
    items : iterable
        The work, in order; taken one at a time, when a thread is free.
    unit : callable
        Does the work of one item; called in threads.
    meanwhile : callable, optional
        Called about every second while waiting for a unit.

    Yields
    ------
    Done
        In the order of ``items``.

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
            yield Done(item, now - clock, result)
            clock = now
    finally:
        # After an error, files that are still being computed are not waited for.
        threads.shutdown(wait=False, cancel_futures=True)
