"""Means of packed hidden states: one launch for sequences of any lengths, at the speed of memory.

Hidden states come from the forward by kernels, means go to :mod:`nucpro.embedding.batches`.

Shape suffixes: t tokens of the whole batch, n sequences, d model width.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from nucpro.models.config import PooledSpan
from nucpro.models.tensors import to_device

__all__ = ["mean_pool"]

_ROWS = 16
_COLUMNS = 256


def mean_pool(hidden_td: torch.Tensor, lengths: Sequence[int], span: PooledSpan) -> torch.Tensor:
    """Mean hidden state of each sequence; see :func:`nucpro.models.tensors.mean_pool`, its plain twin."""
    lengths_n = torch.tensor(lengths, dtype=torch.int32)
    starts_n = lengths_n.cumsum(0, dtype=torch.int32) - lengths_n
    kept_n = torch.stack([starts_n + span.skip_start, lengths_n - span.skip_start - span.skip_end], dim=1)
    width = hidden_td.shape[1]
    means_nd = hidden_td.new_empty(len(lengths), width, dtype=torch.float32)
    _mean_kernel[(len(lengths), triton.cdiv(width, _COLUMNS))](
        hidden_td,
        to_device(kept_n, hidden_td.device),
        means_nd,
        WIDTH=width,
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return means_nd


@triton.jit
def _mean_kernel(hidden, kept, means, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Some columns of one sequence: rows are added up in a fixed order, in float32."""
    sequence = tl.program_id(0)
    start = tl.load(kept + sequence * 2).to(tl.int64)
    count = tl.load(kept + sequence * 2 + 1)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < WIDTH
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, count, ROWS):
        rows = first + tl.arange(0, ROWS)
        places = hidden + (start + rows)[:, None] * WIDTH + columns[None, :]
        present = (rows < count)[:, None] & inside[None, :]
        total += tl.load(places, mask=present, other=0.0).to(tl.float32)
    mean = tl.sum(total, 0) / count.to(tl.float32)
    tl.store(means + sequence.to(tl.int64) * WIDTH + columns, mean, mask=inside)
