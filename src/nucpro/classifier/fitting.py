"""Fitting a classifier: optimisation steps, feeding rows, and epochs until training ends.

Batches are rows of the matrix of :mod:`nucpro.classifier.features`, in a random order from :class:`Fitter`.
:mod:`nucpro.classifier.fused` runs the same steps by kernels.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.optim.sgd import sgd

from nucpro.classifier.metrics import Scored
from nucpro.classifier.model import Classifier, TrainingState, read_state, write_state
from nucpro.classifier.options import TrainingOptions
from nucpro.classifier.splits import Split
from nucpro.errors import NucproError, UsageError, counted
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
    "ResidentFeed",
    "Steps",
    "StreamedFeed",
    "TorchSteps",
    "batch_ends",
    "feed_of",
    "fit_settings",
    "steps_for",
    "viral_margins",
]

MOST_FUSED_ROWS = 32
"""Largest batch of :mod:`nucpro.classifier.fused`: on an H100 its kernels visit 981,000 rows/s at 32, where a graph of
torch's steps visits 269,000, but 191,000 at 64, where the graph visits 542,000 (benchmarks/NOTES.md)."""
Momentum = Mapping[str, torch.Tensor]
"""Momentum buffer of each parameter, by its name."""


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
    """An optimiser that changes a classifier, batch by batch."""

    def begin_epoch(self, learning_rate: float, seed: int) -> None:
        """Set the learning rate, and the seed of dropout."""
        ...

    def run(self, block: Block) -> torch.Tensor:
        """Visit the rows of a block, and return the sum of their losses as one float64 element on the device."""
        ...

    def momentum(self) -> Momentum:
        """State that must be saved beside the weights to resume later."""
        ...

    def restore_momentum(self, momentum: Momentum) -> None:
        """Resume from the state of :meth:`momentum`."""
        ...


def batch_ends(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """First row and end of each batch; a last one of a single row is left out, since batch norm needs two."""
    for start in range(0, rows - 1, size):
        yield start, min(start + size, rows)


_RECORDED_STEPS = 128
"""Most steps of a graph: replaying one costs about as much as running two of its steps."""
_GATHERED_ROWS = 16_384
"""Most rows that are gathered at a time: 134 MB at 2,048 columns."""


def _steps_at_once(batch_size: int) -> int:
    return max(1, min(_RECORDED_STEPS, _GATHERED_ROWS // batch_size))


class TorchSteps:
    """Stochastic gradient descent by autograd and torch's own step of SGD.

    Rows of many steps are gathered at a time. On an NVIDIA GPU these steps are recorded as one CUDA graph, since
    starting the kernels of a step one by one takes many times longer than their work.

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
        device = classifier.hidden.weight.device
        self._classifier = classifier
        self._batch_size = batch_size
        self._parameters = dict(classifier.named_parameters())
        # A graph reads the learning rate from its place in memory.
        self._rate = torch.zeros((), device=device)
        self._records = device.type == "cuda" and torch.version.hip is None
        self._decay = momentum
        self._momentum = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        steps = _steps_at_once(batch_size)
        self._rows = torch.zeros(steps * batch_size, classifier.hidden.in_features, device=device)
        self._labels = torch.zeros(len(self._rows), dtype=torch.int64, device=device)
        self._losses = torch.zeros(steps, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def begin_epoch(self, learning_rate: float, seed: int) -> None:
        """Set the learning rate, and seed torch's generators, which dropout draws from."""
        self._classifier.train()
        if self._records and self._graph is None:
            self._graph = self._recorded()
        self._rate.fill_(learning_rate)
        torch.manual_seed(seed)

    def run(self, block: Block) -> torch.Tensor:
        """Visit the rows of a block."""
        total = torch.zeros(1, dtype=torch.float64, device=block.matrix.device)
        for order in torch.split(block.order, len(self._rows)):
            count = len(order)
            torch.index_select(block.matrix, 0, order, out=self._rows[:count])
            torch.index_select(block.labels, 0, order, out=self._labels[:count])
            batches = list(batch_ends(count, self._batch_size))
            if self._graph is not None and count == len(self._rows):
                self._graph.replay()
            else:
                self._visit(batches)
            sizes = torch.tensor([end - start for start, end in batches], dtype=torch.float64)
            total += (self._losses[: len(batches)] * sizes.to(total.device)).sum()
        return total

    def momentum(self) -> Momentum:
        """Momentum buffers of the optimiser, by parameter."""
        return dict(self._momentum)

    def restore_momentum(self, momentum: Momentum) -> None:
        """Load momentum buffers, in place."""
        for name, buffer in self.momentum().items():
            buffer.copy_(momentum[name])

    def _visit(self, batches: Sequence[tuple[int, int]]) -> None:
        """Run the steps of batches of the gathered rows."""
        for number, (start, end) in enumerate(batches):
            loss = F.cross_entropy(self._classifier(self._rows[start:end]), self._labels[start:end])
            gradients = torch.autograd.grad(loss, list(self._parameters.values()))
            self._step(gradients)
            self._losses[number] = loss.detach()

    @torch.no_grad()
    def _step(self, gradients: Sequence[torch.Tensor]) -> None:
        # As torch.optim.SGD calls it. The class itself would import torch's compiler, which takes a second and leaves
        # an empty folder in the system's place for temporary files.
        sgd(
            list(self._parameters.values()),
            list(gradients),
            list(self._momentum.values()),
            fused=self._records,
            weight_decay=0.0,
            momentum=self._decay,
            lr=cast(float, self._rate),
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """Record the steps of all gathered rows; the classifier and its momentum are left as they were."""
        batches = list(batch_ends(len(self._rows), self._batch_size))
        changed = [*self._classifier.state_dict().values(), *self.momentum().values()]
        before = [tensor.clone() for tensor in changed]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._visit(batches[:3])  # libraries choose and load their kernels, which no graph can record
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._visit(batches)
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        return graph


_EVALUATED_ROWS = 8192
"""Rows that are scored at a time."""


class Feed(Protocol):
    """Rows by their numbers."""

    def blocks(self, order: torch.Tensor) -> Iterator[Block]:
        """Yield the rows of `order` (int64, on the CPU), in that order; a block may be overwritten by the next one."""
        ...


def feed_of(matrix: torch.Tensor, labels: torch.Tensor, device: torch.device, batch_size: int) -> Feed:
    """Feed for the place of a matrix.

    Parameters
    ----------
    matrix : torch.Tensor
        float32 ``[N, D]``; its rows may be a part of wider ones.
    labels : torch.Tensor
        int64 ``[N]``, on the CPU.
    device : torch.device
        Of the classifier.
    batch_size : int
        Streamed blocks hold whole batches, and as many as are visited at a time, so that streaming changes no batch.

    Returns
    -------
    Feed
        Batches of rows for the steps.
    """
    if matrix.device == device:
        return ResidentFeed(matrix, labels.to(device))
    at_once = _steps_at_once(batch_size) * batch_size
    return StreamedFeed(matrix, labels, device, max(1, _GATHERED_ROWS // at_once) * at_once)


class ResidentFeed:
    """All rows are on the device: one block is a whole epoch.

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
    """Rows are in host memory or on disk: a thread gathers the next block while the device computes.

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
    """Report after an epoch.

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


_OPTIONS = {
    "data": "the merged files",
    "columns": "--columns",
    "split_by": "--split-by",
    "rank": "--rank",
    "validation": "--validation",
    "test": "--test",
    "folds": "--folds",
    "seed": "--seed",
    "batch_size": "--batch-size",
    "base_rate": "--learning-rate",
    "momentum": "momentum",
    "decay": "decay",
    "decay_every": "decay_every",
    "device": "--device",
    "steps": "the way in which steps are run",
    "rows": "the parts of the split",
}
"""Settings of a training, and the options that set them."""
_UNTOLD = ("data", "rows", "steps")


def fit_settings(digest: str, split: Split, options: TrainingOptions, columns: slice) -> dict[str, Any]:
    """Give everything that decides the weights of an epoch; devices may differ by rounding, so the kind counts."""
    hashes = [hashlib.sha256(rows.tobytes()).hexdigest() for rows in split.rows]
    device = options.device.partition(":")[0]
    names = (
        "rank",
        "validation",
        "test",
        "folds",
        "seed",
        "batch_size",
        "base_rate",
        "momentum",
        "decay",
        "decay_every",
    )
    return {
        "data": digest,
        "columns": [columns.start, columns.stop],
        "split_by": options.split_by.value,
        **{name: getattr(options, name) for name in names},
        "device": device,
        "steps": "torch" if _obstacle(options.batch_size, torch.device(device)) else "kernels",
        "rows": hashes,
    }


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two trainings, in people's words."""
    odd = [name for name in _OPTIONS if there.get(name) != here.get(name)]
    # Other data and other splits have other rows; listing these adds nothing.
    odd = [name for name in odd if name != "rows" or odd == ["rows"]]
    return [
        _OPTIONS[name]
        if name in _UNTOLD
        else f"{_OPTIONS[name]} ({there.get(name)} there, now {here.get(name)})"
        for name in odd
    ]


def steps_for(classifier: Classifier, options: TrainingOptions, device: torch.device) -> Steps:
    """Choose the implementation of the optimisation steps, once and before training; log which, and why."""
    obstacle = _obstacle(options.batch_size, device)
    if obstacle is None:
        from nucpro.classifier.fused import FusedSteps  # noqa: PLC0415 - imports Triton

        logger.info("Steps: fused kernels in CUDA graphs, in float32")
        return FusedSteps(classifier, options.batch_size, options.momentum)
    graphs = " in CUDA graphs" if device.type == "cuda" and torch.version.hip is None else ""
    logger.info("Steps: plain torch%s, in float32 (no fused kernels: %s)", graphs, obstacle)
    return TorchSteps(classifier, options.batch_size, options.momentum)


def _obstacle(batch_size: int, device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.hip is not None:
        return f"{device} is not an NVIDIA GPU"
    if batch_size > MOST_FUSED_ROWS:
        return f"batches of {batch_size} are faster without them; they take at most {MOST_FUSED_ROWS}"
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
    settings : dict
        From :func:`fit_settings`.
    """

    def __init__(
        self,
        feed: Feed,
        labels: np.ndarray[Any, np.dtype[np.int64]],
        split: Split,
        options: TrainingOptions,
        folder: Path,
        settings: Mapping[str, Any],
    ) -> None:
        self._feed = feed
        self._train, self._validation = (torch.from_numpy(rows) for rows in split.rows[:2])
        self._validation_labels = labels[split.rows[1]]
        self._options = options
        self._folder = folder
        self._settings = settings
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
        """Train for all epochs, or until validation has not improved within the patience.

        Parameters
        ----------
        classifier : Classifier
            With its first weights, on the device; changed in place.
        device : torch.device
            Where it is.
        told : callable
            Called after each epoch.
        show : callable, optional
            Called with the progress, in epochs; the total is the maximum, because early stopping cannot be
            predicted.

        Returns
        -------
        Fitted
            The best weights, and the metrics of each epoch.

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
        state = None if self._options.replace else read_state(self._folder)
        if state is None:
            return
        self._require_same(state)
        classifier.load_state_dict(dict(state.weights))
        steps.restore_momentum(state.momentum)
        self._state = state
        self.had_ended = self.ended is not None
        logger.info("Resuming after epoch %d", len(state.history))

    def _require_same(self, state: TrainingState) -> None:
        """Refuse to resume a training whose options differ in more than its length."""
        odd = _differences(state.settings, self._settings)
        losses = [entry["loss"] for entry in state.history]
        over = next((done for done in range(1, len(losses)) if self._end_after(losses[:done])), None)
        if not odd and over is not None:
            options = f"--epochs {self._options.epochs} and --patience {self._options.patience}"
            odd = [f"its {counted(len(losses), 'epoch')}, where {options} end after {over}"]
        if odd:
            raise UsageError(
                f"{self._folder}: holds a training that differs in {', '.join(odd)}; name another folder with "
                "--output, or start over with --replace"
            )

    @property
    def ended(self) -> str | None:
        """Why training is over; None while it is not."""
        return (
            None if self._state is None else self._end_after([entry["loss"] for entry in self._state.history])
        )

    def _end_after(self, losses: Sequence[float]) -> str | None:
        """Why training is over after epochs with these losses on validation."""
        done, best = len(losses), 1 + int(np.argmin(losses))
        if done - best >= self._options.patience:
            return f"validation loss did not fall for {counted(self._options.patience, 'epoch')}"
        if done < self._options.epochs:
            return None
        return "the only epoch was run" if done == 1 else f"all {done} epochs were run"

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
            self._settings,
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
