"""The gate of MosaicBERT's feed-forward part: GELU and product in one pass over memory.

Both halves come from one matrix product; the result goes to the next.

Shape suffixes: t tokens of the whole batch, f columns of the gate, x both halves.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["gated_gelu"]

_BLOCK = 1024
"""Columns of a program: with 4 warps, each thread reads and writes 16 bytes at a time."""


def gated_gelu(halves_tx: torch.Tensor) -> torch.Tensor:
    """``gelu(first half) * second half`` with the exact (erf) GELU, rounded once.

    Parameters
    ----------
    halves_tx : torch.Tensor
        ``[T, 2 F]``, contiguous.

    Returns
    -------
    torch.Tensor
        ``[T, F]`` in the element type of the halves.
    """
    rows, width = halves_tx.shape[0], halves_tx.shape[1] // 2
    gated_tf = halves_tx.new_empty(rows, width)
    _gate_kernel[(rows, triton.cdiv(width, _BLOCK))](
        halves_tx, gated_tf, WIDTH=width, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=True
    )
    return gated_tf


@triton.jit
def _gate_kernel(halves, outputs, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One block of one row."""
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    present = columns < WIDTH
    row = tl.program_id(0).to(tl.int64)
    first = tl.load(halves + row * (2 * WIDTH) + columns, mask=present, other=0.0).to(tl.float32)
    second = tl.load(halves + row * (2 * WIDTH) + WIDTH + columns, mask=present, other=0.0).to(tl.float32)
    gated = 0.5 * first * (1.0 + tl.erf(first * 0.7071067811865476)) * second
    tl.store(outputs + row * WIDTH + columns, gated.to(outputs.dtype.element_ty), mask=present)
