"""Optimisation steps by four kernels each, many of them recorded as one CUDA graph.

Takes the place of :class:`nucpro.classifier.fitting.TorchSteps` on GPUs for small batches, where starting some forty
kernels of torch takes many times longer than their work. The weights are those of the classifier itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from nucpro.classifier.fitting import Block, Momentum, batch_ends
from nucpro.classifier.kernels import (
    HIDDEN_BLOCK,
    MOST_SUMS,
    Position,
    State,
    first_product,
    first_update,
    hidden_layer,
    output_layer,
)
from nucpro.classifier.model import Classifier

__all__ = ["FusedSteps"]

_RECORDED_STEPS = 100
"""Steps of a graph: starting one costs about as much as two steps take."""


class _Key(NamedTuple):
    """What a graph was recorded for: it keeps addresses."""

    matrix: int
    labels: int
    order: int


class FusedSteps:
    """Stochastic gradient descent by the kernels of :mod:`nucpro.classifier.kernels`.

    Parameters
    ----------
    classifier : Classifier
        On a CUDA device (or on the CPU, in Triton's interpreter); changed in place, also its running statistics.
    batch_size : int
        Rows of a step, at most :data:`nucpro.classifier.fitting.MOST_FUSED_ROWS`.
    momentum : float
        Of the descent.
    """

    def __init__(self, classifier: Classifier, batch_size: int, momentum: float) -> None:
        self._classifier = classifier
        self._batch_size = batch_size
        self._momentum = momentum
        self._sums = {name: torch.zeros_like(value.data) for name, value in classifier.named_parameters()}
        self._state = self._make_state()
        self._graphs: dict[_Key, torch.cuda.CUDAGraph] = {}
        self._seed = 0

    def begin_epoch(self, learning_rate: float, seed: int) -> None:
        """Set the learning rate and the seed of dropout."""
        self._state.learning_rate.fill_(learning_rate)
        self._seed = seed << 31  # seeds of steps count up from here
        self._classifier.train()

    @torch.no_grad()
    def run(self, block: Block) -> torch.Tensor:
        """Visit the rows of a block."""
        ends = list(batch_ends(len(block.order), self._batch_size))
        if len(ends) > len(self._state.losses):
            self._make_room(len(ends))
        self._state.clock.copy_(torch.tensor([0, self._seed]))
        full = sum(end - start == self._batch_size for start, end in ends)
        recorded = self._run_graphs(block, full)
        for number in range(recorded, len(ends)):
            start, end = ends[number]
            self._step(block, Position(number - recorded, end - start, self._batch_size))
        self._seed += len(ends)
        assert self._classifier.norm.num_batches_tracked is not None
        self._classifier.norm.num_batches_tracked.add_(len(ends))
        rows = torch.tensor([end - start for start, end in ends], dtype=torch.float64)
        losses = self._state.losses[: len(ends)].double()
        return (losses * rows.to(losses.device)).sum().reshape(1)

    def momentum(self) -> Momentum:
        """Momentum buffers, by parameter."""
        return self._sums

    def restore_momentum(self, momentum: Momentum) -> None:
        """Load momentum buffers."""
        for name, total in self._sums.items():
            total.copy_(momentum[name])

    def _run_graphs(self, block: Block, steps: int) -> int:
        """Run as many full batches as whole graphs have; give their number."""
        if block.matrix.device.type != "cuda" or steps < _RECORDED_STEPS:
            return 0
        key = _Key(block.matrix.data_ptr(), block.labels.data_ptr(), block.order.data_ptr())
        if key not in self._graphs:
            self._graphs[key] = self._record(block)
        times = steps // _RECORDED_STEPS
        for _ in range(times):
            self._graphs[key].replay()
        return times * _RECORDED_STEPS

    def _record(self, block: Block) -> torch.cuda.CUDAGraph:
        self._warm_up(block)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for ahead in range(_RECORDED_STEPS):
                self._step(block, Position(ahead, self._batch_size, self._batch_size))
            self._state.clock.add_(_RECORDED_STEPS)
        return graph

    def _warm_up(self, block: Block) -> None:
        """Build the kernels, which cannot be done while a graph is recorded; what the step changed is put back."""
        changed = [*self._classifier.state_dict().values(), *self._sums.values()]
        before = [tensor.clone() for tensor in changed]
        self._step(block, Position(0, self._batch_size, self._batch_size))
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)

    def _step(self, block: Block, at: Position) -> None:
        state, classifier = self._state, self._classifier
        dropout, norm = classifier.dropout.p, classifier.norm
        assert norm.momentum is not None
        first_product(block.matrix, block.order, state, at)
        hidden_layer(state, at, dropout, norm.momentum, norm.eps)
        output_layer(block.labels, block.order, state, at, self._momentum, dropout)
        first_update(block.matrix, block.order, state, at, self._momentum)

    def _make_state(self) -> State:
        classifier, device = self._classifier, self._classifier.hidden.weight.device
        hidden, width = classifier.hidden.weight.shape
        rows = Position(0, self._batch_size, self._batch_size).block
        mean, variance = classifier.norm.running_mean, classifier.norm.running_var
        assert mean is not None
        assert variance is not None
        return State(
            weight_hd=classifier.hidden.weight.data,
            bias_h=classifier.hidden.bias.data,
            scale_h=classifier.norm.weight.data,
            shift_h=classifier.norm.bias.data,
            weight_ch=classifier.output.weight.data,
            bias_c=classifier.output.bias.data,
            mean_h=mean,
            variance_h=variance,
            momenta=tuple(self._sums.values()),
            sums_sbh=torch.empty(min(MOST_SUMS, -(-width // 64)), rows, hidden, device=device),
            inner_bh=torch.empty(rows, hidden, device=device),
            normed_bh=torch.empty(rows, hidden, device=device),
            deviation_h=torch.empty(hidden, device=device),
            scores_pbc=torch.empty(-(-hidden // HIDDEN_BLOCK), rows, 2, device=device),
            clock=torch.zeros(2, dtype=torch.int64, device=device),
            learning_rate=torch.zeros(1, device=device),
            losses=torch.empty(0, device=device),
        )

    def _make_room(self, steps: int) -> None:
        """Make space for the losses of more steps; graphs refer to the old memory, so they are recorded again."""
        self._graphs.clear()
        room = torch.empty(steps, device=self._state.losses.device)
        self._state = State(**{**vars(self._state), "losses": room})
