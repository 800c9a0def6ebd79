"""Self-attention over packed sequences of any length, straight from the product that made queries, keys, values.

Those of ESM-2 come from :func:`nucpro.models.kernels.product.linear_rotated`, turned and scaled; those of
MosaicBERT from a plain product, with linear biases (ALiBi) on their scores instead of positions. The context goes
to the product that mixes heads.

Shape suffixes: t tokens of the whole batch, n sequences, s tiles (blocks of queries of one sequence), h heads,
k head width (a power of two), d model width.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803, PLR0913, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

__all__ = ["attend", "attention_tiles"]

_QUERIES = 64
"""Queries of a tile. With 128, registers and padding leave too few programs at a time to hide latency."""
_KEYS = 64


def attention_tiles(lengths: Sequence[int]) -> torch.Tensor:
    """List the work of :func:`attend`, so that no program of a mixed batch is empty.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence of a packed batch.

    Returns
    -------
    torch.Tensor
        int32 ``[S, 3]``, on the CPU: first row of the sequence, its tokens, and the tile's first query in it.
    """
    lengths_n = torch.tensor(lengths, dtype=torch.int32)
    starts_n = lengths_n.cumsum(0, dtype=torch.int32) - lengths_n
    tiles_n = (lengths_n + _QUERIES - 1) // _QUERIES
    earlier_n = tiles_n.cumsum(0, dtype=torch.int32) - tiles_n
    sequence_s = torch.repeat_interleave(tiles_n)
    query_s = (torch.arange(len(sequence_s), dtype=torch.int32) - earlier_n[sequence_s]) * _QUERIES
    return torch.stack([starts_n[sequence_s], lengths_n[sequence_s], query_s], dim=1)


def attend(
    mixed_tx: torch.Tensor, tiles_s: torch.Tensor, heads: int, slopes_h: torch.Tensor | None = None
) -> torch.Tensor:
    """Self-attention within each sequence of a packed batch.

    One pass over keys with a running maximum and sum (Milakov and Gimelshein, arXiv:1805.02867; Dao et al.,
    FlashAttention, arXiv:2205.14135).

    Parameters
    ----------
    mixed_tx : torch.Tensor
        ``[T, 3 H K]``: queries, keys and values of all heads. Without slopes, queries are scaled already, so
        that scores are exponents of two.
    tiles_s : torch.Tensor
        From :func:`attention_tiles`, on the device.
    heads : int
        H.
    slopes_h : torch.Tensor, optional
        float32 ``[H]``. With them, scores are scaled by ``K ** -0.5``, and ``slope * |i - j|`` is taken off the
        score of query i and key j (Press et al., ALiBi, arXiv:2108.12409), all in float32.

    Returns
    -------
    torch.Tensor
        ``[T, H K]``.
    """
    width = mixed_tx.shape[1] // 3
    context_td = mixed_tx.new_empty(len(mixed_tx), width)
    # Heads first: programs that run together read neighbouring columns of the same rows.
    _attention_kernel[(heads, len(tiles_s))](
        mixed_tx,
        tiles_s,
        context_td,
        slopes_h,
        math.log2(math.e) / math.sqrt(width // heads),
        WIDTH=width,
        HEAD=width // heads,
        QUERIES=_QUERIES,
        KEYS=_KEYS,
        num_warps=4,
        # Three stages of heads of 128 columns do not fit into the shared memory of smaller GPUs.
        num_stages=3 if width // heads <= 64 else 2,
        enable_fp_fusion=True,
    )
    return context_td


@triton.jit
def _attention_kernel(
    mixed,
    tiles,
    outputs,
    slopes,
    scale,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """One tile of one head, over blocks of keys: the last one's missing keys get scores of minus infinity."""
    head = tl.program_id(0)
    tile = tiles + tl.program_id(1) * 3
    start = tl.load(tile).to(tl.int64)
    length = tl.load(tile + 1)
    rows = tl.load(tile + 2) + tl.arange(0, QUERIES)
    columns = tl.arange(0, HEAD)[None, :]
    mixed += start * (3 * WIDTH) + head * HEAD
    # In exponents of two, as scores are.
    slope = None if slopes is None else tl.load(slopes + head) * 1.4426950408889634
    query = tl.load(mixed + rows[:, None] * (3 * WIDTH) + columns, mask=(rows < length)[:, None], other=0.0)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    context = tl.zeros((QUERIES, HEAD), tl.float32)
    for first in range(0, length, KEYS):
        key_rows = first + tl.arange(0, KEYS)
        present = key_rows < length
        places = mixed + key_rows[:, None] * (3 * WIDTH) + columns
        key = tl.load(places + WIDTH, mask=present[:, None], other=0.0)
        value = tl.load(places + 2 * WIDTH, mask=present[:, None], other=0.0)
        scores = tl.dot(query, key.T)
        if slope is not None:
            distances = tl.abs(rows[:, None] - key_rows[None, :])
            scores = scores * scale - slope * distances.to(tl.float32)
        # One addition per score is cheaper than a branch.
        scores += tl.where(present, 0.0, float("-inf"))[None, :]
        raised = tl.maximum(highest, tl.max(scores, 1))
        fading = tl.exp2(highest - raised)
        weights = tl.exp2(scores - raised[:, None])
        total = total * fading + tl.sum(weights, 1)
        context = tl.dot(weights.to(value.dtype), value, context * fading[:, None])
        highest = raised
    context *= (1.0 / total)[:, None]
    outputs += start * WIDTH + head * HEAD
    places = outputs + rows[:, None] * WIDTH + columns
    tl.store(places, context.to(outputs.dtype.element_ty), mask=(rows < length)[:, None])
