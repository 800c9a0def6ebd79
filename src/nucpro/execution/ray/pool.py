"""Encoders on the nodes of a Ray cluster, and the scheduling of work items: files, or units of chunks.

Each encoder gets a few items at a time. A lost encoder is replaced and its items are retried, each alone on
an encoder, so that an item that kills its process can be identified. Joining nodes are used. Only a few items
per encoder are in memory.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from nucpro import __version__
from nucpro.errors import WorkerError
from nucpro.execution.engine import FILES_UNDER_WAY, Done
from nucpro.execution.ray.calls import ATTEMPTS, error_of
from nucpro.execution.ray.session import Session
from nucpro.execution.ray.worker import EncoderWorker, Report
from nucpro.state.history import Loaded, Totals

__all__ = ["EncoderPool"]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_BETWEEN_CHECKS = 0.5
_PATIENCE = 600.0
"""Seconds to wait for a first encoder: nodes may be joining, and models may load slowly."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Piece(Generic[Item]):
    """An item that was handed out, and how often its encoder was lost."""

    item: Item
    losses: int = 0


@dataclass(eq=False)
class _Encoder(Generic[Item]):
    """An encoder's process as the driver sees it; its place is unknown while it loads."""

    number: int
    actor: Any
    place: str = ""
    alone: bool = False
    under_way: dict[_Piece[Item], None] = field(default_factory=dict)


class EncoderPool(Generic[Item, Result]):
    """Encoders of one run.

    Parameters
    ----------
    session : Session
        The cluster.
    load : callable
        Loads the models in an encoder's process; picklable.
    work : callable
        Processes an item with the loaded models, its first argument; called in threads; picklable.

    Attributes
    ----------
    lost : int
        Encoders that were lost.
    """

    def __init__(self, session: Session, load: Callable[[], Loaded], work: Callable[..., Result]) -> None:
        self.lost = 0
        self._session = session
        self._load = load
        self._work = work
        self._encoders: dict[_Encoder[Item], None] = {}
        self._suspects: deque[_Piece[Item]] = deque()
        self._events: SimpleQueue[tuple[_Encoder[Item], _Piece[Item] | None, Future[Any]]] = SimpleQueue()
        self._totals: dict[int, Totals] = {}
        self._started = 0
        self._lost_while_loading = 0
        self._next_look = 0.0

    @property
    def totals(self) -> Totals:
        """Sum of what all encoders reported."""
        return Totals(*map(sum, zip(Totals(), *self._totals.values(), strict=True)))

    def run(
        self,
        items: Iterable[Item],
        count: int,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Iterator[Done[Item, Result]]:
        """Do the work of all items.

        Parameters
        ----------
        items : iterable
            In the order in which they are handed out; taken one at a time, when a thread is free. Their text
            names them in messages.
        count : int
            Number of items.
        meanwhile : callable, optional
            Called between results and every few seconds; an exception ends the work.

        Yields
        ------
        Done
            Each item when its work is done.

        Raises
        ------
        NucproError
            The first error of an item, as it was raised, at once.
        WorkerError
            An item kills every encoder, or no encoder stays alive.
        """
        pieces = (_Piece(item) for item in items)
        left, clock, patient_until = count, time.perf_counter(), time.monotonic() + _PATIENCE
        try:
            while left:
                self._grow(left)
                self._hand_out(pieces)
                meanwhile()
                found = self._next_answer()
                if found or any(encoder.place for encoder in self._encoders):
                    patient_until = time.monotonic() + _PATIENCE
                elif time.monotonic() > patient_until:
                    raise WorkerError(self._in_vain())
                for piece, result in found:
                    left -= 1
                    now = time.perf_counter()
                    yield Done(piece.item, now - clock, result)
                    clock = now
        finally:
            self._end()

    def _grow(self, left: int) -> None:
        """Start as many encoders as there are resources for, and check for new nodes now and then."""
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
            self._watch(encoder, None, encoder.actor.load.remote(self._load, self._work, __version__))

    def _watch(self, encoder: _Encoder[Item], piece: _Piece[Item] | None, answer: Any) -> None:
        answer.future().add_done_callback(lambda done: self._events.put((encoder, piece, done)))

    def _hand_out(self, pieces: Iterator[_Piece[Item]]) -> None:
        for encoder in self._encoders:
            if not encoder.place or (encoder.alone and encoder.under_way):
                continue
            encoder.alone = False
            if self._suspects:
                # Busy encoders finish first: a suspect item gets an encoder for itself.
                if not encoder.under_way:
                    encoder.alone = True
                    self._give(encoder, self._suspects.popleft())
                continue
            while len(encoder.under_way) < FILES_UNDER_WAY and (piece := next(pieces, None)):
                self._give(encoder, piece)

    def _give(self, encoder: _Encoder[Item], piece: _Piece[Item]) -> None:
        encoder.under_way[piece] = None
        self._watch(encoder, piece, encoder.actor.work.remote(piece.item))

    def _next_answer(self) -> list[tuple[_Piece[Item], Result]]:
        """Wait for an answer of an encoder; returns a finished item with its result, if any."""
        self._session.require_alive()
        try:
            encoder, piece, answer = self._events.get(timeout=_SECONDS_BETWEEN_CHECKS)
        except Empty:
            return []
        # If the cluster ended, its encoders are lost for that reason.
        self._session.require_alive()
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
        if piece is None:
            self._lost_while_loading = 0
            return []
        del encoder.under_way[piece]
        return [(piece, report.result)]

    def _take_note(self, encoder: _Encoder[Item], report: Report[Any]) -> None:
        encoder.place = report.place
        # Answers of its threads may overtake each other; counts only grow.
        before = self._totals.get(encoder.number, Totals())
        self._totals[encoder.number] = Totals(*map(max, zip(before, report.totals, strict=True)))
        for level, line in report.lines:
            logger.log(level, "Encoder %d (%s): %s", encoder.number, encoder.place, line)

    def _lose(self, encoder: _Encoder[Item], error: RayError) -> None:
        """Give up an encoder, and queue its items for a retry.

        Raises
        ------
        WorkerError
            An item lost its encoder too often, or encoders are lost before they have loaded.
        """
        del self._encoders[encoder]
        ray.kill(encoder.actor)
        self.lost += 1
        self._next_look = 0.0
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning(
            "Encoder %d (%s) was lost; work items to retry: %d. %s",
            encoder.number,
            encoder.place or "loading",
            len(encoder.under_way),
            reason,
        )
        self._lost_while_loading += not encoder.place
        if self._lost_while_loading >= ATTEMPTS:
            raise WorkerError(
                f"{ATTEMPTS} encoders in a row were lost while they loaded the model, probably for lack of memory; "
                f"give each more resources (--gpus-per-worker, --cpus-per-worker, fewer --workers). The last: {reason}"
            )
        for piece in encoder.under_way:
            piece.losses += 1
            if piece.losses >= ATTEMPTS:
                raise WorkerError(
                    f"{piece.item}: {ATTEMPTS} encoders were lost on this item, the last two with nothing else at "
                    f"hand; check its sequences, or give encoders more memory. The last: {reason}"
                )
            self._suspects.append(piece)

    def _in_vain(self) -> str:
        demand = ", ".join(
            f"{share:g} {name.removeprefix('num_')}" for name, share in self._session.demand.items()
        )
        return (
            f"no encoder could be started in {_PATIENCE:.0f} s: each takes {demand}, and no node has that free; "
            "add nodes, or run again when others have ended: finished work is kept"
        )

    def _end(self) -> None:
        # After an interrupt, the cluster and its encoders may be gone already: a call would wait for ever.
        with suppress(WorkerError):
            self._session.require_alive()
            for encoder in self._encoders if ray.is_initialized() else ():
                ray.kill(encoder.actor)
        self._encoders.clear()
