"""Training one classifier: epochs, the choice of the best one, going on after a stop.

Features and their split come in, a classifier with the weights of its best epoch goes out. After every epoch the
state is on disk; whatever ends training, the best weights are what is returned.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.feeds import Feed, viral_margins
from nucpro.classifier.metrics import Scored
from nucpro.classifier.model import Classifier
from nucpro.classifier.options import TrainingOptions
from nucpro.classifier.splits import Split
from nucpro.classifier.state import TrainingState, read_state, write_state
from nucpro.classifier.steps import MOST_FUSED_ROWS, PlainSteps, Steps, batch_ends
from nucpro.errors import NucproError, UsageError
from nucpro.models.kernels import triton_obstacle

__all__ = ["Epoch", "Fitted", "Fitter", "fit_key", "steps_for"]

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

    def fit(self, classifier: Classifier, device: torch.device, told: Callable[[Epoch], None]) -> Fitted:
        """Train until the epochs are over, or validation has not improved for as long as patience lasts.

        Parameters
        ----------
        classifier : Classifier
            With its first weights, on the device; changed in place.
        device : torch.device
            Where it is.
        told : callable
            Is called after each epoch.

        Raises
        ------
        UsageError
            The folder holds the state of another training.
        NucproError
            The loss is no longer finite.
        """
        steps = steps_for(classifier, self._options, device)
        self._resume(classifier, steps)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            while (ended := self.ended) is None:
                self._run_epoch(classifier, steps, told)
        assert self._state is not None
        return fitted_of(classifier, self._state, ended)

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
