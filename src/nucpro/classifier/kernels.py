"""One optimisation step of the classifier in four Triton kernels, for batches so small that launches would decide.

:mod:`nucpro.classifier.fused` alone calls them, in this order: :func:`first_product`, :func:`hidden_layer`,
:func:`output_layer`, :func:`first_update`. They take rows straight out of the feature matrix, compute in float32, and
every program writes its own block and sums in a fixed order, so equal input gives equal bytes.

Shape suffixes: n rows of the feature matrix, e rows of an epoch in their order, b rows of a batch, d columns of the
input, h hidden columns, c the two classes, s parts of the first product's sums, p blocks of hidden columns.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803, PLR0913, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

__all__ = [
    "HIDDEN_BLOCK",
    "MOST_SUMS",
    "Position",
    "State",
    "first_product",
    "first_update",
    "hidden_layer",
    "output_layer",
]

HIDDEN_BLOCK = 16
"""Hidden columns of a program between the products."""
MOST_SUMS = 8
"""Parts that the columns of the input are summed in, so that more programs work on the first product."""

_PRODUCT_COLUMNS = 32
_DEPTH = 64
_UPDATE_ROWS = 32
_UPDATE_COLUMNS = 64


@dataclass(frozen=True, eq=False)
class State:
    """Everything that a step reads and changes; float32 and contiguous unless said otherwise.

    Parameters
    ----------
    weight_hd, bias_h, scale_h, shift_h, weight_ch, bias_c : torch.Tensor
        Weights of the first layer, batch norm and the last layer.
    mean_h, variance_h : torch.Tensor
        Running statistics of batch norm.
    momenta : tuple of torch.Tensor
        Momentum buffers of the six weights, in their order.
    sums_sbh, inner_bh, normed_bh, deviation_h, scores_pbc : torch.Tensor
        Buffers for values passed between kernels.
    clock : torch.Tensor
        int64 ``[2]``: number of the step within the order of rows, and the seed of its dropout.
    learning_rate : torch.Tensor
        ``[1]``.
    losses : torch.Tensor
        Mean loss of each step, by its number.
    """

    weight_hd: torch.Tensor
    bias_h: torch.Tensor
    scale_h: torch.Tensor
    shift_h: torch.Tensor
    weight_ch: torch.Tensor
    bias_c: torch.Tensor
    mean_h: torch.Tensor
    variance_h: torch.Tensor
    momenta: tuple[torch.Tensor, ...]
    sums_sbh: torch.Tensor
    inner_bh: torch.Tensor
    normed_bh: torch.Tensor
    deviation_h: torch.Tensor
    scores_pbc: torch.Tensor
    clock: torch.Tensor
    learning_rate: torch.Tensor
    losses: torch.Tensor


@dataclass(frozen=True)
class Position:
    """Which batch a step is on.

    Parameters
    ----------
    ahead : int
        Steps after the one that the clock shows.
    rows : int
        Rows of this batch.
    stride : int
        Rows of all batches before it, each.
    """

    ahead: int
    rows: int
    stride: int

    @property
    def block(self) -> int:
        """Rows of a program's tile."""
        return max(16, 1 << (self.rows - 1).bit_length())


def first_product(matrix_nd: torch.Tensor, order_e: torch.Tensor, state: State, at: Position) -> None:
    """Gather the rows of a batch and multiply them with the first weights, in parts of the columns."""
    hidden, width = state.weight_hd.shape
    sums = len(state.sums_sbh)
    _first_product[(triton.cdiv(hidden, _PRODUCT_COLUMNS), sums)](
        matrix_nd,
        order_e,
        state.weight_hd,
        state.sums_sbh,
        state.clock,
        at.ahead,
        at.rows,
        at.stride,
        matrix_nd.stride(0),
        WIDTH=width,
        HIDDEN=hidden,
        STEPS=triton.cdiv(triton.cdiv(width, _DEPTH), sums),
        ROWS=at.block,
        COLUMNS=_PRODUCT_COLUMNS,
        DEPTH=_DEPTH,
        num_warps=4,
        enable_fp_fusion=True,
        num_stages=3,
    )


@triton.jit(do_not_specialize=["ahead", "rows"])
def _first_product(
    matrix,
    order,
    weight,
    sums,
    clock,
    ahead,
    rows,
    stride,
    row_stride,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One block of hidden columns, over one part of the input's columns."""
    row = tl.arange(0, ROWS)
    present = row < rows
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    known = column < HIDDEN
    number = tl.load(order + (tl.load(clock) + ahead) * stride + row, mask=present, other=0)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        depth = (tl.program_id(1) * STEPS + step) * DEPTH + tl.arange(0, DEPTH)
        inside = depth < WIDTH
        inputs = tl.load(
            matrix + number[:, None] * row_stride + depth[None, :],
            mask=present[:, None] & inside[None, :],
            other=0.0,
        )
        weights = tl.load(
            weight + column[None, :] * WIDTH + depth[:, None],
            mask=known[None, :] & inside[:, None],
            other=0.0,
        )
        total = tl.dot(inputs, weights, total, input_precision="ieee")
    target = sums + tl.program_id(1) * ROWS * HIDDEN + row[:, None] * HIDDEN + column[None, :]
    tl.store(target, total, mask=known[None, :])


def hidden_layer(state: State, at: Position, dropout: float, momentum: float, epsilon: float) -> None:
    """Bias, batch norm, ReLU and dropout, and each block's part of the scores.

    `momentum` is that of the running statistics, which are changed; `epsilon` is added to the variance.
    """
    hidden = len(state.bias_h)
    _hidden_layer[(triton.cdiv(hidden, HIDDEN_BLOCK),)](
        state.sums_sbh,
        state.bias_h,
        state.scale_h,
        state.shift_h,
        state.weight_ch,
        state.bias_c,
        state.mean_h,
        state.variance_h,
        state.inner_bh,
        state.normed_bh,
        state.deviation_h,
        state.scores_pbc,
        state.clock,
        at.ahead,
        at.rows,
        dropout,
        momentum,
        epsilon,
        SUMS=len(state.sums_sbh),
        HIDDEN=hidden,
        ROWS=at.block,
        COLUMNS=HIDDEN_BLOCK,
        num_warps=4,
        enable_fp_fusion=True,
    )


@triton.jit(do_not_specialize=["ahead", "rows"])
def _hidden_layer(
    sums,
    bias,
    scale,
    shift,
    last_weight,
    last_bias,
    running_mean,
    running_variance,
    inner,
    normed,
    deviation,
    scores,
    clock,
    ahead,
    rows,
    dropout,
    momentum,
    epsilon,
    SUMS: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One block of hidden columns, all rows of the batch."""
    row = tl.arange(0, ROWS)
    present = (row < rows)[:, None]
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    known = column < HIDDEN
    place = row[:, None] * HIDDEN + column[None, :]
    values = tl.zeros((ROWS, COLUMNS), tl.float32) + tl.load(bias + column, mask=known, other=0.0)[None, :]
    for part in range(SUMS):
        values += tl.load(sums + part * ROWS * HIDDEN + place, mask=present & known[None, :], other=0.0)

    mean = tl.sum(tl.where(present, values, 0.0), 0) / rows
    centred = tl.where(present, values - mean[None, :], 0.0)
    variance = tl.sum(centred * centred, 0) / rows
    inverse = 1.0 / tl.sqrt(variance + epsilon)
    rows_normed = centred * inverse[None, :]
    factor = tl.load(scale + column, mask=known, other=0.0)
    result = rows_normed * factor[None, :] + tl.load(shift + column, mask=known, other=0.0)[None, :]
    # Every step has its own seed, so the position within the batch is enough to distinguish random numbers.
    drawn = tl.rand(tl.load(clock + 1) + ahead, place)
    kept = present & (drawn >= dropout) & (result > 0.0)
    result = tl.where(kept, result / (1.0 - dropout), 0.0)
    tl.store(inner + place, result, mask=known[None, :])
    tl.store(normed + place, rows_normed, mask=known[None, :])
    tl.store(deviation + column, inverse, mask=known)

    old = tl.load(running_mean + column, mask=known, other=0.0)
    tl.store(running_mean + column, old + momentum * (mean - old), mask=known)
    old = tl.load(running_variance + column, mask=known, other=0.0)
    tl.store(running_variance + column, old + momentum * (variance * rows / (rows - 1) - old), mask=known)

    block = scores + tl.program_id(0) * ROWS * 2 + row * 2
    for label in range(2):
        weights = tl.load(last_weight + label * HIDDEN + column, mask=known, other=0.0)
        score = tl.sum(result * weights[None, :], 1)
        score += tl.where(tl.program_id(0) == 0, tl.load(last_bias + label), 0.0)
        tl.store(block + label, score)


def output_layer(
    labels_n: torch.Tensor, order_e: torch.Tensor, state: State, at: Position, momentum: float, dropout: float
) -> None:
    """Loss, and everything backwards up to the first product; changes all weights but the first.

    The gradient of the first product's result takes the place of ``normed_bh``. `momentum` is that of the descent.
    """
    hidden = len(state.bias_h)
    _output_layer[(triton.cdiv(hidden, HIDDEN_BLOCK),)](
        labels_n,
        order_e,
        state.scores_pbc,
        state.inner_bh,
        state.normed_bh,
        state.deviation_h,
        state.bias_h,
        state.scale_h,
        state.shift_h,
        state.weight_ch,
        state.bias_c,
        *state.momenta[1:],
        state.clock,
        state.learning_rate,
        state.losses,
        at.ahead,
        at.rows,
        at.stride,
        momentum,
        dropout,
        HIDDEN=hidden,
        BLOCKS=triton.cdiv(hidden, HIDDEN_BLOCK),
        ROWS=at.block,
        COLUMNS=HIDDEN_BLOCK,
        num_warps=4,
        enable_fp_fusion=True,
    )


@triton.jit
def _descend(weight, running, gradient, rate, momentum, mask):
    """One step of stochastic gradient descent with momentum, as ``torch.optim.SGD`` defines it."""
    total = tl.load(running, mask=mask, other=0.0) * momentum + gradient
    tl.store(running, total, mask=mask)
    tl.store(weight, tl.load(weight, mask=mask, other=0.0) - rate * total, mask=mask)


@triton.jit(do_not_specialize=["ahead", "rows"])
def _output_layer(
    labels,
    order,
    scores,
    inner,
    normed,
    deviation,
    bias,
    scale,
    shift,
    last_weight,
    last_bias,
    bias_sum,
    scale_sum,
    shift_sum,
    last_weight_sum,
    last_bias_sum,
    clock,
    learning_rate,
    losses,
    ahead,
    rows,
    stride,
    momentum,
    dropout,
    HIDDEN: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One block of hidden columns, all rows of the batch; each program sums up the scores for itself."""
    step = tl.load(clock) + ahead
    rate = tl.load(learning_rate)
    row = tl.arange(0, ROWS)
    present = row < rows
    host = tl.zeros((ROWS,), tl.float32)
    virus = tl.zeros((ROWS,), tl.float32)
    for block in range(BLOCKS):
        host += tl.load(scores + block * ROWS * 2 + row * 2)
        virus += tl.load(scores + block * ROWS * 2 + row * 2 + 1)
    number = tl.load(order + step * stride + row, mask=present, other=0)
    label = tl.load(labels + number, mask=present, other=0)
    highest = tl.maximum(host, virus)
    log_sum = highest + tl.log(tl.exp(host - highest) + tl.exp(virus - highest))
    host_slope = tl.where(present, (tl.exp(host - log_sum) - (label == 0).to(tl.float32)) / rows, 0.0)
    virus_slope = tl.where(present, (tl.exp(virus - log_sum) - (label == 1).to(tl.float32)) / rows, 0.0)

    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    known = column < HIDDEN
    place = row[:, None] * HIDDEN + column[None, :]
    mask = present[:, None] & known[None, :]
    result = tl.load(inner + place, mask=mask, other=0.0)
    rows_normed = tl.load(normed + place, mask=mask, other=0.0)
    host_weight = tl.load(last_weight + column, mask=known, other=0.0)
    virus_weight = tl.load(last_weight + HIDDEN + column, mask=known, other=0.0)
    slope = host_slope[:, None] * host_weight[None, :] + virus_slope[:, None] * virus_weight[None, :]
    slope = tl.where(result > 0.0, slope / (1.0 - dropout), 0.0)
    shift_slope = tl.sum(slope, 0)
    scale_slope = tl.sum(slope * rows_normed, 0)
    factor = tl.load(scale + column, mask=known, other=0.0) * tl.load(
        deviation + column, mask=known, other=0.0
    )
    # Ioffe and Szegedy, arXiv:1502.03167, section 3, with all its terms brought together.
    slope = slope - (shift_slope[None, :] + rows_normed * scale_slope[None, :]) / rows
    slope = tl.where(mask, slope * factor[None, :], 0.0)
    tl.store(normed + place, slope, mask=known[None, :])

    _descend(bias + column, bias_sum + column, tl.sum(slope, 0), rate, momentum, known)
    _descend(scale + column, scale_sum + column, scale_slope, rate, momentum, known)
    _descend(shift + column, shift_sum + column, shift_slope, rate, momentum, known)
    gradient = tl.sum(result * host_slope[:, None], 0)
    _descend(last_weight + column, last_weight_sum + column, gradient, rate, momentum, known)
    gradient = tl.sum(result * virus_slope[:, None], 0)
    _descend(
        last_weight + HIDDEN + column, last_weight_sum + HIDDEN + column, gradient, rate, momentum, known
    )
    if tl.program_id(0) == 0:
        both = tl.arange(0, 2)
        bias_slope = tl.where(both == 0, tl.sum(host_slope, 0), tl.sum(virus_slope, 0))
        _descend(last_bias + both, last_bias_sum + both, bias_slope, rate, momentum, both < 2)
        loss = log_sum - tl.where(label == 1, virus, host)
        tl.store(losses + step, tl.sum(tl.where(present, loss, 0.0), 0) / rows)


def first_update(
    matrix_nd: torch.Tensor, order_e: torch.Tensor, state: State, at: Position, momentum: float
) -> None:
    """Gradient of the first weights and their step, in one pass over them."""
    hidden, width = state.weight_hd.shape
    _first_update[(triton.cdiv(hidden, _UPDATE_ROWS), triton.cdiv(width, _UPDATE_COLUMNS))](
        matrix_nd,
        order_e,
        state.normed_bh,
        state.weight_hd,
        state.momenta[0],
        state.clock,
        state.learning_rate,
        at.ahead,
        at.rows,
        at.stride,
        matrix_nd.stride(0),
        momentum,
        WIDTH=width,
        HIDDEN=hidden,
        ROWS=at.block,
        HIDDEN_ROWS=_UPDATE_ROWS,
        COLUMNS=_UPDATE_COLUMNS,
        num_warps=4,
        enable_fp_fusion=True,
    )


@triton.jit(do_not_specialize=["ahead", "rows"])
def _first_update(
    matrix,
    order,
    slopes,
    weight,
    weight_sum,
    clock,
    learning_rate,
    ahead,
    rows,
    stride,
    row_stride,
    momentum,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    HIDDEN_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One block of the first weights."""
    row = tl.arange(0, ROWS)
    present = row < rows
    hidden = tl.program_id(0) * HIDDEN_ROWS + tl.arange(0, HIDDEN_ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known, inside = hidden < HIDDEN, column < WIDTH
    number = tl.load(order + (tl.load(clock) + ahead) * stride + row, mask=present, other=0)
    slope = tl.load(
        slopes + row[None, :] * HIDDEN + hidden[:, None], mask=present[None, :] & known[:, None], other=0.0
    )
    inputs = tl.load(
        matrix + number[:, None] * row_stride + column[None, :],
        mask=present[:, None] & inside[None, :],
        other=0.0,
    )
    gradient = tl.dot(slope, inputs, input_precision="ieee")
    place = hidden[:, None] * WIDTH + column[None, :]
    _descend(
        weight + place,
        weight_sum + place,
        gradient,
        tl.load(learning_rate),
        momentum,
        known[:, None] & inside[None, :],
    )
