"""The optimisation steps of an epoch in plain torch: on any device, for any size of batch.

Batches are rows of the matrix of :mod:`nucpro.classifier.features`, in an order that
:mod:`nucpro.classifier.fitting` draws. :mod:`nucpro.classifier.fused` does the same work by kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

from nucpro.classifier.model import Classifier

__all__ = ["MOST_FUSED_ROWS", "Block", "Momentum", "PlainSteps", "Steps", "batch_ends"]

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
