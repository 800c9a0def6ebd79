"""Packed hidden states pooled: one launch for sequences of any lengths, at the speed of memory.

Hidden states come from the forward by kernels, vectors go to :mod:`nucpro.embedding.batches`.

Shape suffixes: t tokens of the whole batch, n sequences, d model width.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803, PLR0913, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from nucpro.models.config import MEAN, POOLINGS, PooledSpan
from nucpro.models.tensors import to_device

__all__ = ["pool_states"]

_ROWS = 16
_COLUMNS = 256


def pool_states(
    hidden_td: torch.Tensor, lengths: Sequence[int], span: PooledSpan, poolings: Sequence[str] = (MEAN,)
) -> torch.Tensor:
    """Pool the hidden states of each sequence; see :func:`nucpro.models.tensors.pool_states`, its plain twin."""
    lengths_n = torch.tensor(lengths, dtype=torch.int32)
    starts_n = lengths_n.cumsum(0, dtype=torch.int32) - lengths_n
    counts_n = lengths_n - span.skip_start - span.skip_end
    kept_n = torch.stack([starts_n + span.skip_start, counts_n, starts_n], dim=1)
    width = hidden_td.shape[1]
    pooled_nx = hidden_td.new_empty(len(lengths), len(poolings) * width, dtype=torch.float32)
    _pool_kernel[(len(lengths), triton.cdiv(width, _COLUMNS))](
        hidden_td,
        to_device(kept_n, hidden_td.device),
        pooled_nx,
        WIDTH=width,
        **{name.upper(): place_of(name, poolings) for name in POOLINGS},
        POOLINGS=len(poolings),
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return pooled_nx


def place_of(name: str, poolings: Sequence[str]) -> int:
    """Place of a pooling among those that are asked for; -1 where it is not."""
    return list(poolings).index(name) if name in poolings else -1


@triton.jit
def _pool_kernel(
    hidden,
    kept,
    pooled,
    WIDTH: tl.constexpr,
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    MIN: tl.constexpr,
    STD: tl.constexpr,
    CLS: tl.constexpr,
    POOLINGS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Some columns of one sequence, in a fixed order and in float32; each pooling goes to its place, if it has one."""
    sequence = tl.program_id(0)
    start = tl.load(kept + sequence * 3).to(tl.int64)
    count = tl.load(kept + sequence * 3 + 1)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < WIDTH
    target = pooled + sequence.to(tl.int64) * (POOLINGS * WIDTH) + columns
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    highest = tl.full((ROWS, COLUMNS), float("-inf"), tl.float32)
    lowest = tl.full((ROWS, COLUMNS), float("inf"), tl.float32)
    for first in range(0, count, ROWS):
        rows = first + tl.arange(0, ROWS)
        places = hidden + (start + rows)[:, None] * WIDTH + columns[None, :]
        present = (rows < count)[:, None] & inside[None, :]
        states = tl.load(places, mask=present, other=0.0).to(tl.float32)
        total += states
        if MAX >= 0:
            highest = tl.maximum(highest, tl.where(present, states, float("-inf")))
        if MIN >= 0:
            lowest = tl.minimum(lowest, tl.where(present, states, float("inf")))
    summed = tl.sum(total, 0)
    mean = summed / count.to(tl.float32)
    # NaN, which maximum and minimum pass over, and infinity where a sum holds one.
    broken = summed * 0.0
    if MEAN >= 0:
        tl.store(target + MEAN * WIDTH, mean, mask=inside)
    if MAX >= 0:
        tl.store(target + MAX * WIDTH, tl.max(highest, 0) + broken, mask=inside)
    if MIN >= 0:
        tl.store(target + MIN * WIDTH, tl.min(lowest, 0) + broken, mask=inside)
    if CLS >= 0:
        token = tl.load(kept + sequence * 3 + 2).to(tl.int64)
        first_state = tl.load(hidden + token * WIDTH + columns, mask=inside, other=0.0)
        tl.store(target + CLS * WIDTH, first_state.to(tl.float32), mask=inside)
    if STD >= 0:
        squares = tl.zeros((ROWS, COLUMNS), tl.float32)
        for first in range(0, count, ROWS):
            rows = first + tl.arange(0, ROWS)
            places = hidden + (start + rows)[:, None] * WIDTH + columns[None, :]
            present = (rows < count)[:, None] & inside[None, :]
            states = tl.load(places, mask=present, other=0.0).to(tl.float32)
            away = tl.where(present, states - mean[None, :], 0.0)
            squares += away * away
        spread = tl.sqrt(tl.sum(squares, 0) / count.to(tl.float32))
        tl.store(target + STD * WIDTH, spread, mask=inside)
