"""The engine for Ray clusters: encoders are actors, calls are tasks, everything else runs in the driver.

Only the driver (the process that the user started) holds the lock and the checkpoint; workers read FASTA
files and write files of vectors atomically, so computing a file twice is safe. Ray is an extra: the modules
of this package that need it are imported only with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nucpro.errors import NucproError, UsageError
from nucpro.execution.engine import Done, Engine, Loader
from nucpro.execution.workers import Workers
from nucpro.options import ModelOptions
from nucpro.state.history import Loaded, Totals

if TYPE_CHECKING:
    from nucpro.execution.ray.pool import EncoderPool

__all__ = ["ClusterEngine"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class ClusterEngine(Engine):
    """Encoders and calls on all nodes of a Ray cluster.

    Parameters
    ----------
    options : ModelOptions
        Address, workers and what each takes; paths that are the same on all nodes.

    Raises
    ------
    UsageError
        Ray is not installed.
    """

    def __init__(self, options: ModelOptions) -> None:
        if find_spec("ray") is None:
            raise UsageError(
                "--engine ray needs Ray, which is not installed; install the extra: pip install 'nucpro[ray]'"
            )
        from nucpro.execution.ray.calls import ClusterWorkers  # noqa: PLC0415
        from nucpro.execution.ray.session import Session  # noqa: PLC0415

        self._options = options
        self._session = Session(options)
        self._workers = ClusterWorkers(self._session)
        self._load: Callable[[], Loaded] | None = None
        self._pool: EncoderPool[Any, Any] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    @property
    def workers(self) -> Workers:
        """Tasks on the cluster."""
        return self._workers

    @property
    def totals(self) -> Totals:
        """Counts of all encoders, as far as reported."""
        return Totals() if self._pool is None else self._pool.totals

    @property
    def lost(self) -> int:
        """Encoders that were lost."""
        return 0 if self._pool is None else self._pool.lost

    def problems(self) -> list[str]:
        """Why the cluster cannot be reached, or has no resources for an encoder."""
        try:
            self._session.start()
        except NucproError as error:
            return [str(error)]
        return self._session.problems()

    def load(self, load: Callable[[Loader], Loaded]) -> None:
        """Store what the nodes must load: encoders from the same files as here."""
        from nucpro.execution.ray.worker import load_same  # noqa: PLC0415

        self._load = partial(load, load_same)

    def run(
        self,
        work: Callable[[Any, Item], Result],
        items: Iterable[Item],
        count: int,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Iterator[Done[Item, Result]]:
        """Do the work of every item on the nodes, and yield each when it is done, in any order."""
        if self._load is None:
            raise RuntimeError("load comes before run")
        from nucpro.execution.ray.pool import EncoderPool  # noqa: PLC0415

        if isinstance(items, Sequence):
            # The longest first, so that no single long item remains at the end.
            items = sorted(items, key=lambda item: -cast(Any, item).size)
        pool = EncoderPool[Item, Result](self._session, self._load, work)
        self._pool = pool
        return pool.run(items, count, meanwhile)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call on a node that has the devices of an encoder free."""
        return self._workers.submit_to_device(function, *arguments).result()
