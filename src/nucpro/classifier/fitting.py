"""The optimisation steps of an epoch in plain torch: on any device, for any size of batch.

Batches are rows of the matrix of :mod:`nucpro.classifier.features`, in an order that
:mod:`nucpro.classifier.fitting` draws. :mod:`nucpro.classifier.fused` does the same work by kernels.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from nucpro.classifier.metrics import Scored
from nucpro.classifier.model import Classifier, TrainingState, read_state, write_state
from nucpro.classifier.options import TrainingOptions
from nucpro.classifier.splits import Split
from nucpro.errors import NucproError, UsageError
from nucpro.models.kernels import triton_obstacle
from nucpro.progress import Progress, Show, silent

__all__ = [
    "MOST_FUSED_ROWS",
    "Block",
    "Epoch",
    "Feed",
    "Fitted",
    "Fitter",
    "Momentum",
    "PlainSteps",
    "ResidentFeed",
    "Steps",
    "StreamedFeed",
    "batch_ends",
    "feed_of",
    "fit_key",
    "steps_for",
    "viral_margins",
]

MOST_FUSED_ROWS = 128
"""Largest batch of :mod:`nucpro.classifier.fused`: all rows of some hidden columns must fit into one program."""
Momentum = Mapping[str, torch.Tensor]
"""Running sum of gradients of each parameter, by its name."""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows that are visited one after the other: a whole epoch, or what fits on a device of it.

    Parameters
    ----------
    matrix : torch.Tensor
        float32 ``[M, D]``, on the device of the classifier.
    labels : torch.Tensor
        int64 ``[M]``, there too.
    order : torch.Tensor
        int64 ``[K]``, there too: row numbers, in the order in which they are visited.
    """

    matrix: torch.Tensor
    labels: torch.Tensor
    order: torch.Tensor


class Steps(Protocol):
    """Something that changes a classifier, batch by batch."""

    def begin_epoch(self, learning_rate: float, seed: int) -> None:
        """Set the learning rate, and the seed of dropout."""
        ...

    def run(self, block: Block) -> torch.Tensor:
        """Visit the rows of a block; give the sum of their losses as one float64 element, on the device."""
        ...

    def momentum(self) -> Momentum:
        """Give what must be kept beside the weights to go on later."""
        ...

    def restore_momentum(self, momentum: Momentum) -> None:
        """Go on from what :meth:`momentum` gave."""
        ...


def batch_ends(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """First row and end of each batch; a last one of a single row is left out, since batch norm needs two."""
    for start in range(0, rows - 1, size):
        yield start, min(start + size, rows)


class PlainSteps:
    """Stochastic gradient descent by autograd and ``torch.optim.SGD``.

    Parameters
    ----------
    classifier : Classifier
        Changed in place.
    batch_size : int
        Rows of a step.
    momentum : float
        Of the optimiser.
    """

    def __init__(self, classifier: Classifier, batch_size: int, momentum: float) -> None:
        self._classifier = classifier
        self._batch_size = batch_size
        self._names = dict(classifier.named_parameters())
        self._optimizer = torch.optim.SGD(classifier.parameters(), lr=0.0, momentum=momentum)

    def begin_epoch(self, learning_rate: float, seed: int) -> None:
        """Set the learning rate, and seed torch's generators, which dropout draws from."""
        for settings in self._optimizer.param_groups:
            settings["lr"] = learning_rate
        torch.manual_seed(seed)
        self._classifier.train()

    def run(self, block: Block) -> torch.Tensor:
        """Visit the rows of a block."""
        total = torch.zeros(1, dtype=torch.float64, device=block.matrix.device)
        for start, end in batch_ends(len(block.order), self._batch_size):
            rows = block.order[start:end]
            self._optimizer.zero_grad(set_to_none=True)
            scores = self._classifier(block.matrix.index_select(0, rows))
            loss = F.cross_entropy(scores, block.labels.index_select(0, rows))
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.detach() * (end - start)
        return total

    def momentum(self) -> Momentum:
        """Running sums; zeros before the first step."""
        states = self._optimizer.state
        found = {name: states[parameter].get("momentum_buffer") for name, parameter in self._names.items()}
        return {
            name: torch.zeros_like(self._names[name]) if buffer is None else buffer
            for name, buffer in found.items()
        }

    def restore_momentum(self, momentum: Momentum) -> None:
        """Take over running sums."""
        for name, parameter in self._names.items():
            self._optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(
                parameter.device, copy=True
            )


_BLOCK_ROWS = 16_384
"""Rows of a streamed block: 134 MB at 2,048 columns, some milliseconds of work for a GPU."""
_EVALUATED_ROWS = 8192
"""Rows that are scored at a time."""


class Feed(Protocol):
    """Rows by their numbers."""

    def blocks(self, order: torch.Tensor) -> Iterator[Block]:
        """Yield the rows of `order` (int64, on the CPU), in that order; a block may be overwritten by the next one."""
        ...


def feed_of(matrix: torch.Tensor, labels: torch.Tensor, device: torch.device, batch_size: int) -> Feed:
    """Give the feed for where a matrix lies.

    Parameters
    ----------
    matrix : torch.Tensor
        float32 ``[N, D]``; its rows may be a part of wider ones.
    labels : torch.Tensor
        int64 ``[N]``, on the CPU.
    device : torch.device
        Of the classifier.
    batch_size : int
        Streamed blocks hold whole batches, so that streaming changes no batch.
    """
    if matrix.device == device:
        return ResidentFeed(matrix, labels.to(device))
    return StreamedFeed(matrix, labels, device, max(1, _BLOCK_ROWS // batch_size) * batch_size)


class ResidentFeed:
    """All rows lie on the device: one block is a whole epoch.

    Parameters
    ----------
    matrix, labels : torch.Tensor
        float32 ``[N, D]`` and int64 ``[N]``, on one device.
    """

    def __init__(self, matrix: torch.Tensor, labels: torch.Tensor) -> None:
        self._matrix = matrix
        self._labels = labels
        # One buffer for all epochs, since captured graphs keep its address.
        self._order = torch.empty(len(labels), dtype=torch.int64, device=matrix.device)

    def blocks(self, order: torch.Tensor) -> Iterator[Block]:
        """Yield all rows as one block."""
        here = self._order[: len(order)]
        here.copy_(order)
        yield Block(self._matrix, self._labels, here)


class StreamedFeed:
    """Rows lie in host memory or on disk: a thread gathers the next block while the device visits the last one.

    Parameters
    ----------
    matrix, labels : torch.Tensor
        float32 ``[N, D]`` and int64 ``[N]``, on the CPU.
    device : torch.device
        Where they are needed.
    rows : int
        Rows of a block.
    """

    def __init__(self, matrix: torch.Tensor, labels: torch.Tensor, device: torch.device, rows: int) -> None:
        self._matrix = matrix
        self._labels = labels
        pin = device.type == "cuda"
        self._staged = [torch.empty(rows, matrix.shape[1], pin_memory=pin) for _ in range(2)]
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._rows = torch.empty(rows, matrix.shape[1], device=device)
        self._row_labels = torch.empty(rows, dtype=torch.int64, device=device)
        self._order = torch.arange(rows, device=device)

    def blocks(self, order: torch.Tensor) -> Iterator[Block]:
        """Yield blocks of at most the number of rows that this feed was made for."""
        pieces = torch.split(order, len(self._rows))
        with ThreadPoolExecutor(1) as gatherer:
            pending = gatherer.submit(self._gather, pieces[0], 0)
            for number, piece in enumerate(pieces):
                pending.result()
                self._bring(piece, number % 2)
                if number + 1 < len(pieces):
                    pending = gatherer.submit(self._gather, pieces[number + 1], (number + 1) % 2)
                count = len(piece)
                yield Block(self._rows, self._row_labels, self._order[:count])

    def _gather(self, piece: torch.Tensor, slot: int) -> None:
        copied = self._copied[slot]
        if copied is not None:
            copied.synchronize()  # the device may still read what lay in this slot before
        torch.index_select(self._matrix, 0, piece, out=self._staged[slot][: len(piece)])

    def _bring(self, piece: torch.Tensor, slot: int) -> None:
        count = len(piece)
        self._rows[:count].copy_(self._staged[slot][:count], non_blocking=True)
        self._row_labels[:count].copy_(self._labels.index_select(0, piece))
        if self._rows.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copied[slot] = event


@torch.inference_mode()
def viral_margins(classifier: Classifier, feed: Feed, rows: torch.Tensor) -> torch.Tensor:
    """Viral score less host score, before softmax, for rows in their order.

    Parameters
    ----------
    classifier : Classifier
        Put into evaluation mode.
    feed : Feed
        Where the rows come from.
    rows : torch.Tensor
        int64 ``[K]``, on the CPU.

    Returns
    -------
    torch.Tensor
        float64 ``[K]``, on the CPU.
    """
    classifier.eval()
    parts = [
        classifier(block.matrix.index_select(0, some))
        for block in feed.blocks(rows)
        for some in torch.split(block.order, _EVALUATED_ROWS)
    ]
    scores = torch.cat(parts).double()
    return (scores[:, 1] - scores[:, 0]).cpu()


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """What is told after an epoch.

    Parameters
    ----------
    number : int
        Counted from 1.
    train_loss : float
        Mean loss of the rows that were trained on, as they came.
    validation : dict of str to float
        Metrics of the validation part after the epoch.
    is_best : bool
        Whether its loss is the lowest so far.
    """

    number: int
    train_loss: float
    validation: Mapping[str, float]
    is_best: bool


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier with its best weights.

    Parameters
    ----------
    classifier : Classifier
        In evaluation mode.
    history : list of dict
        Of each epoch: ``epoch``, ``learning_rate``, ``train_loss`` and the metrics of validation.
    best_epoch : int
        Counted from 1.
    ended : str
        Why training ended.
    """

    classifier: Classifier
    history: list[dict[str, Any]]
    best_epoch: int
    ended: str


def fit_key(digest: str, split: Split, options: TrainingOptions, columns: slice) -> str:
    """Digest of everything that decides the weights; devices may differ by rounding, so the kind of device counts."""
    hashes = [hashlib.sha256(rows.tobytes()).hexdigest() for rows in split.rows]
    names = ("seed", "batch_size", "momentum", "decay", "decay_every", "epochs", "patience", "base_rate")
    settings = {name: getattr(options, name) for name in names}
    device = options.device.partition(":")[0]
    content = [digest, hashes, settings, columns.start, columns.stop, device]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def steps_for(classifier: Classifier, options: TrainingOptions, device: torch.device) -> Steps:
    """Choose, once and before training, what does the optimisation steps; say which in the log, and why."""
    obstacle = _obstacle(options.batch_size, device)
    if obstacle is None:
        from nucpro.classifier.fused import FusedSteps  # noqa: PLC0415 - imports Triton

        logger.info("Steps: fused kernels in CUDA graphs, in float32")
        return FusedSteps(classifier, options.batch_size, options.momentum)
    logger.info("Steps: plain torch, in float32 (no fused kernels: %s)", obstacle)
    return PlainSteps(classifier, options.batch_size, options.momentum)


def _obstacle(batch_size: int, device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.hip is not None:
        return f"{device} is not an NVIDIA GPU"
    if batch_size > MOST_FUSED_ROWS:
        return (
            f"batches of {batch_size} keep the device busy without them; they take at most {MOST_FUSED_ROWS}"
        )
    return triton_obstacle()


class Fitter:
    """Trains one classifier.

    Parameters
    ----------
    feed : Feed
        Rows by number.
    labels : ndarray of int64, shape [N]
        Their classes.
    split : Split
        Which of them are trained on, and which choose the best epoch.
    options : TrainingOptions
        The recipe.
    folder : Path
        Where the state is kept.
    key : str
        From :func:`fit_key`.
    """

    def __init__(
        self,
        feed: Feed,
        labels: np.ndarray[Any, np.dtype[np.int64]],
        split: Split,
        options: TrainingOptions,
        folder: Path,
        key: str,
    ) -> None:
        self._feed = feed
        self._train, self._validation = (torch.from_numpy(rows) for rows in split.rows[:2])
        self._validation_labels = labels[split.rows[1]]
        self._options = options
        self._folder = folder
        self._key = key
        self._state: TrainingState | None = None
        self.had_ended = False
        """Whether training was over when it was taken up again."""

    @property
    def fitted_so_far(self) -> TrainingState | None:
        """State after the last epoch that was finished; None before the first one."""
        return self._state

    def fit(
        self,
        classifier: Classifier,
        device: torch.device,
        told: Callable[[Epoch], None],
        show: Show = silent,
    ) -> Fitted:
        """Train until the epochs are over, or validation has not improved for as long as patience lasts.

        Parameters
        ----------
        classifier : Classifier
            With its first weights, on the device; changed in place.
        device : torch.device
            Where it is.
        told : callable
            Is called after each epoch.
        show : callable, optional
            Takes the progress, in epochs: as many as may be run, since nobody knows when patience ends them.

        Raises
        ------
        UsageError
            The folder holds the state of another training.
        NucproError
            The loss is no longer finite.
        """
        steps = steps_for(classifier, self._options, device)
        self._resume(classifier, steps)
        show(self._progress)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            while (ended := self.ended) is None:
                self._run_epoch(classifier, steps, told)
                show(self._progress)
        assert self._state is not None
        return fitted_of(classifier, self._state, ended)

    @property
    def _progress(self) -> Progress:
        return Progress(
            len(self._state.history) if self._state else 0, self._options.epochs, "epochs", message="Training"
        )

    def _resume(self, classifier: Classifier, steps: Steps) -> None:
        state = None if self._options.restart else read_state(self._folder)
        if state is None:
            return
        if state.key != self._key:
            raise UsageError(
                f"{self._folder}: holds a training with other data or options that was not finished or has ended; "
                "name another folder with --output, or begin anew with --restart"
            )
        classifier.load_state_dict(dict(state.weights))
        steps.restore_momentum(state.momentum)
        self._state = state
        self.had_ended = self.ended is not None
        logger.info("Going on after epoch %d", len(state.history))

    @property
    def ended(self) -> str | None:
        """Why training is over; None while it is not."""
        if self._state is None:
            return None
        done = len(self._state.history)
        if done - self._state.best_epoch >= self._options.patience:
            return f"validation loss did not fall for {self._options.patience} epochs"
        return f"all {done} epochs were run" if done >= self._options.epochs else None

    def _run_epoch(self, classifier: Classifier, steps: Steps, told: Callable[[Epoch], None]) -> None:
        before = self._state
        number = len(before.history) if before else 0
        # Each epoch has generators of its own, so one that is begun again after a kill is the same.
        order_seed, dropout_seed = np.random.SeedSequence([self._options.seed, number]).generate_state(2) >> 1
        order = torch.from_numpy(np.random.default_rng(order_seed).permutation(self._train.numpy()))
        steps.begin_epoch(self._options.rate_at(number), int(dropout_seed))
        losses = [steps.run(block) for block in self._feed.blocks(order)]
        visited = sum(end - start for start, end in batch_ends(len(order), self._options.batch_size))
        train_loss = float(torch.cat(losses).sum()) / visited
        margins = viral_margins(classifier, self._feed, self._validation).numpy()
        _require_finite(number + 1, train_loss, margins)
        validation = Scored(self._validation_labels, margins).metrics()
        is_best = before is None or validation["loss"] < before.history[before.best_epoch - 1]["loss"]
        epoch = Epoch(number + 1, train_loss, validation, is_best)
        self._keep(epoch, classifier, steps)
        told(epoch)

    def _keep(self, epoch: Epoch, classifier: Classifier, steps: Steps) -> None:
        before = self._state
        weights = {name: tensor.detach().cpu().clone() for name, tensor in classifier.state_dict().items()}
        entry = {
            "epoch": epoch.number,
            "learning_rate": self._options.rate_at(epoch.number - 1),
            "train_loss": epoch.train_loss,
            **epoch.validation,
        }
        self._state = TrainingState(
            self._key,
            weights,
            weights if epoch.is_best or before is None else before.best,
            {name: tensor.detach().cpu().clone() for name, tensor in steps.momentum().items()},
            [*(before.history if before else []), entry],
            epoch.number if epoch.is_best or before is None else before.best_epoch,
        )
        write_state(self._folder, self._state)


def fitted_of(classifier: Classifier, state: TrainingState, ended: str) -> Fitted:
    """Put the best weights of a state into a classifier."""
    classifier.load_state_dict(dict(state.best))
    return Fitted(classifier.eval(), state.history, state.best_epoch, ended)


def _require_finite(epoch: int, train_loss: float, margins: NDArray[np.float32]) -> None:
    bad = int((~np.isfinite(margins)).sum())
    if bad or not np.isfinite(train_loss):
        raise NucproError(
            f"epoch {epoch}: the training loss is {train_loss}, and {bad} of {len(margins)} scores of the validation "
            "part are NaN or infinite; use a smaller --learning-rate"
        )
