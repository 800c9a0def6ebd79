"""Encoders on the nodes of a Ray cluster, and who encodes which file.

Files are handed out as encoders get room for them, a few to each. An encoder that is lost is replaced, and
its files are tried again, each alone on an encoder, so that a file that kills its process is told from those
that were with it. Nodes that join are used. However many files there are, a few for each encoder are known here.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from nucpro import __version__
from nucpro.checkpoint import Stamp
from nucpro.cluster.calls import ATTEMPTS, error_of
from nucpro.cluster.session import Session
from nucpro.cluster.worker import EncoderWorker, Extracts, Report
from nucpro.engine import FILES_UNDER_WAY
from nucpro.errors import WorkerError
from nucpro.totals import Totals

__all__ = ["EncoderPool"]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 5.0
_PATIENCE = 600.0
"""Seconds to wait for an encoder while there is none: nodes may be on their way, and a model may load slowly."""

Item = TypeVar("Item")


@dataclass(eq=False)
class _File(Generic[Item]):
    """A file that was handed out, and how often its encoder was lost."""

    item: Item
    fasta: Path
    output: Path
    losses: int = 0


@dataclass(eq=False)
class _Encoder(Generic[Item]):
    """An encoder's process as the driver sees it; it has no place while it loads."""

    number: int
    actor: Any
    place: str = ""
    alone: bool = False
    under_way: dict[_File[Item], None] = field(default_factory=dict)


class EncoderPool(Generic[Item]):
    """Encoders of one run.

    Parameters
    ----------
    session : Session
        The cluster.
    load : callable
        Loads the model in an encoder's process; picklable.

    Attributes
    ----------
    lost : int
        Encoders that were lost.
    """

    def __init__(self, session: Session, load: Callable[[], Extracts]) -> None:
        self.lost = 0
        self._session = session
        self._load = load
        self._encoders: dict[_Encoder[Item], None] = {}
        self._suspects: deque[_File[Item]] = deque()
        self._events: SimpleQueue[tuple[_Encoder[Item], _File[Item] | None, Future[Report]]] = SimpleQueue()
        self._totals: dict[int, Totals] = {}
        self._started = 0
        self._lost_while_loading = 0
        self._next_look = 0.0

    @property
    def totals(self) -> Totals:
        """Sum of what all encoders reported."""
        return Totals(*map(sum, zip(Totals(), *self._totals.values(), strict=True)))

    def run(
        self, items: Sequence[Item], paths: Callable[[Item], tuple[Path, Path]]
    ) -> Iterator[tuple[Item, float, Stamp | None]]:
        """Make the files of all items.

        Parameters
        ----------
        items : sequence
            The work, in the order in which it is handed out.
        paths : callable
            FASTA file and file of vectors of an item.

        Yields
        ------
        (item, float, Stamp or None)
            Each item when its file is there, the seconds since the one before, and the stamp of the file.

        Raises
        ------
        NucproError
            The first error of a file, as it was raised, at once.
        WorkerError
            A file that kills every encoder that takes it, or no encoder that lives.
        """
        files = (_File(item, *paths(item)) for item in items)
        left, clock, patient_until = len(items), time.perf_counter(), time.monotonic() + _PATIENCE
        try:
            while left:
                self._grow(left)
                self._hand_out(files)
                found = self._next_answer()
                if found or any(encoder.place for encoder in self._encoders):
                    patient_until = time.monotonic() + _PATIENCE
                elif time.monotonic() > patient_until:
                    raise WorkerError(self._in_vain())
                for file, report in found:
                    left -= 1
                    now = time.perf_counter()
                    yield file.item, now - clock, report.stamp
                    clock = now
        finally:
            self._end()

    def _grow(self, left: int) -> None:
        """Start encoders up to what there is room for, looking for joined nodes now and then."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        for _ in range(min(self._session.encoders, left) - len(self._encoders)):
            self._started += 1
            actor_class = ray.remote(EncoderWorker).options(
                max_concurrency=FILES_UNDER_WAY,
                max_restarts=0,
                scheduling_strategy="SPREAD",
                **self._session.demand,
            )
            encoder = _Encoder[Item](self._started, actor_class.remote())
            self._encoders[encoder] = None
            self._watch(encoder, None, encoder.actor.load.remote(self._load, __version__))

    def _watch(self, encoder: _Encoder[Item], file: _File[Item] | None, answer: Any) -> None:
        answer.future().add_done_callback(lambda done: self._events.put((encoder, file, done)))

    def _hand_out(self, files: Iterator[_File[Item]]) -> None:
        for encoder in self._encoders:
            if not encoder.place or (encoder.alone and encoder.under_way):
                continue
            encoder.alone = False
            if self._suspects:
                # Encoders that are at work end that first: a suspect has an encoder for itself.
                if not encoder.under_way:
                    encoder.alone = True
                    self._give(encoder, self._suspects.popleft())
                continue
            while len(encoder.under_way) < FILES_UNDER_WAY and (file := next(files, None)):
                self._give(encoder, file)

    def _give(self, encoder: _Encoder[Item], file: _File[Item]) -> None:
        encoder.under_way[file] = None
        self._watch(encoder, file, encoder.actor.extract.remote(file.fasta, file.output))

    def _next_answer(self) -> list[tuple[_File[Item], Report]]:
        """Wait for an answer of an encoder; the file where one is finished."""
        try:
            encoder, file, answer = self._events.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except Empty:
            return []
        if encoder not in self._encoders:
            return []  # answers of an encoder that is known to be lost
        error = answer.exception()
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            self._lose(encoder, error)
            return []
        if error is not None:
            raise error_of(error)
        report = answer.result()
        self._take_note(encoder, report)
        if file is None:
            self._lost_while_loading = 0
            return []
        del encoder.under_way[file]
        return [(file, report)]

    def _take_note(self, encoder: _Encoder[Item], report: Report) -> None:
        encoder.place = report.place
        self._totals[encoder.number] = report.totals
        for level, line in report.lines:
            logger.log(level, "Encoder %d (%s): %s", encoder.number, encoder.place, line)

    def _lose(self, encoder: _Encoder[Item], error: RayError) -> None:
        """Give up an encoder, and put its files aside to be tried again.

        Raises
        ------
        WorkerError
            A file was lost with its encoder too often, or encoders are lost before they have loaded.
        """
        del self._encoders[encoder]
        ray.kill(encoder.actor)
        self.lost += 1
        self._next_look = 0.0
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning(
            "Encoder %d (%s) was lost; files to try again: %d. %s",
            encoder.number,
            encoder.place or "loading",
            len(encoder.under_way),
            reason,
        )
        self._lost_while_loading += not encoder.place
        if self._lost_while_loading >= ATTEMPTS:
            raise WorkerError(
                f"{ATTEMPTS} encoders in a row were lost while they loaded the model, probably for lack of memory; "
                f"give each more room (--gpus-per-worker, --cpus-per-worker, fewer --workers). The last: {reason}"
            )
        for file in encoder.under_way:
            file.losses += 1
            if file.losses >= ATTEMPTS:
                raise WorkerError(
                    f"{file.fasta}: {ATTEMPTS} encoders were lost over this file, the last two with nothing else at "
                    f"hand; look at its sequences, or give encoders more memory. The last: {reason}"
                )
            self._suspects.append(file)

    def _in_vain(self) -> str:
        demand = ", ".join(
            f"{share:g} {name.removeprefix('num_')}" for name, share in self._session.demand.items()
        )
        return (
            f"no encoder could be started in {_PATIENCE:.0f} s: each takes {demand}, and no node has that free; "
            "add nodes, or run again when others have ended: everything that was finished is kept"
        )

    def _end(self) -> None:
        for encoder in self._encoders:
            ray.kill(encoder.actor)
        self._encoders.clear()
