"""What follows a product of cuBLAS, in one pass over memory: GELU, rotary positions, or the gate of MosaicBERT.

Any GPU that Triton knows can run these; on Hopper, :mod:`nucpro.models.kernels.product` finishes its products without
the pass. Results go to the next product or to attention.

Shape suffixes: t tokens of the whole batch, d model width, h heads, k head width (a power of two), r half of it,
l positions, f columns of the result, x both halves of a gate.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803, PLR0913, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

__all__ = ["Rotary", "gated_gelu", "linear_gelu", "linear_rotated"]

_BLOCK = 8_192
"""Values of a program: with 8 warps, each thread has four loads of 16 bytes under way."""
_ROWS = 32
"""Tokens of a program, of one head each."""
_GATE_BLOCK = 1024
"""Columns of a program: with 4 warps, each thread reads and writes 16 bytes at a time."""


@dataclass(frozen=True)
class Rotary:
    """What turns queries and keys by their positions.

    Parameters
    ----------
    cosines_lr, sines_lr : torch.Tensor
        float32 tables ``[L, R]``, for the longest sequence or longer.
    positions_t : torch.Tensor
        int32 ``[T]``: position of each token in its sequence.
    head_width : int
        Columns of a head before padding; its root scales scores.
    """

    cosines_lr: torch.Tensor
    sines_lr: torch.Tensor
    positions_t: torch.Tensor
    head_width: int

    @property
    def query_scale(self) -> float:
        """Factor on queries that makes scores exponents of two, which the hardware computes."""
        return math.log2(math.e) / math.sqrt(self.head_width)


def linear_gelu(inputs_td: torch.Tensor, weight_fd: torch.Tensor, bias_f: torch.Tensor) -> torch.Tensor:
    """``gelu(inputs @ weight.T + bias)`` with the exact (erf) GELU, as :func:`gelu` computes it.

    Parameters
    ----------
    inputs_td, weight_fd, bias_f : torch.Tensor
        ``[T, D]``, ``[F, D]`` and ``[F]``, of one element type.

    Returns
    -------
    torch.Tensor
        ``[T, F]`` in the element type of the inputs.
    """
    results_tf = F.linear(inputs_td, weight_fd, bias_f)
    count = results_tf.numel()
    _gelu_kernel[(triton.cdiv(count, _BLOCK),)](
        results_tf, count, BLOCK=_BLOCK, num_warps=8, enable_fp_fusion=True
    )
    return results_tf


def linear_rotated(
    inputs_td: torch.Tensor, weight_fd: torch.Tensor, bias_f: torch.Tensor, rotary: Rotary
) -> torch.Tensor:
    """Queries, keys and values in one product, turned by their positions in float32.

    Parameters
    ----------
    inputs_td, weight_fd, bias_f : torch.Tensor
        ``[T, D]``, ``[3 H K, D]`` and ``[3 H K]``, of one element type.
    rotary : Rotary
        With tables of K / 2 columns.

    Returns
    -------
    torch.Tensor
        ``[T, 3 H K]``: turned and scaled queries, turned keys, and values.
    """
    mixed_tf = F.linear(inputs_td, weight_fd, bias_f)
    rows, half = len(mixed_tf), rotary.cosines_lr.shape[1]
    heads = mixed_tf.shape[1] // (6 * half)
    # Heads first: programs that run together read neighbouring columns of the same rows.
    _rotary_kernel[(2 * heads, triton.cdiv(rows, _ROWS))](
        mixed_tf,
        rotary.cosines_lr,
        rotary.sines_lr,
        rotary.positions_t,
        rotary.query_scale,
        rows,
        HEADS=heads,
        HALF=half,
        ROWS=_ROWS,
        num_warps=2,
        enable_fp_fusion=True,
    )
    return mixed_tf


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
    _gate_kernel[(rows, triton.cdiv(width, _GATE_BLOCK))](
        halves_tx, gated_tf, WIDTH=width, BLOCK=_GATE_BLOCK, num_warps=4, enable_fp_fusion=True
    )
    return gated_tf


@triton.jit
def gelu(x):
    """``x`` times the normal distribution function, as ``max(x, 0) - |x| * 2 ** -q(|x|)``.

    ``2 ** -q(z)`` is the upper tail of the normal distribution. Its logarithm is so smooth that a polynomial of
    degree 5 replaces the two branches of the error function: fitted by weighted least squares to the relative
    error of the result, at most 1.2e-4 wherever float16 is not subnormal. NaN stays NaN.
    """
    z = tl.abs(x)
    q = 0.00029673723 * z - 0.005586345
    q = q * z + 0.04739412
    q = q * z + 0.46530473
    q = q * z + 1.1486067
    q = q * z + 1.0001634
    return tl.maximum(x, 0.0) - z * tl.exp2(-q)


# Compiled on its own for counts that are multiples of 16, as all are but those of odd shapes: only then does the
# compiler know that 16 bytes are read or left out together, without which this takes three times as long.
@triton.jit
def _gelu_kernel(values, count, BLOCK: tl.constexpr):
    """One block, wherever rows begin; a batch may hold more values than 32 bits count."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    present = places < count
    value = tl.load(values + places, mask=present, other=0.0).to(tl.float32)
    tl.store(values + places, gelu(value).to(values.dtype.element_ty), mask=present)


# Without do_not_specialize, row counts that are multiples of 16 would be compiled for on their own.
@triton.jit(do_not_specialize=["rows"])
def _rotary_kernel(
    mixed,
    cosines,
    sines,
    positions,
    query_scale,
    rows,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Some tokens of one head: the first heads are queries, the next ones keys; values stay as they are."""
    head = tl.program_id(0)
    tokens = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    present = tokens < rows
    columns = tl.arange(0, HALF)[None, :]
    entries = tl.load(positions + tokens, mask=present, other=0)[:, None] * HALF + columns
    scale = tl.where(head < HEADS, query_scale, 1.0)
    cosine, sine = tl.load(cosines + entries) * scale, tl.load(sines + entries) * scale
    places = mixed + tokens[:, None].to(tl.int64) * (6 * HEADS * HALF) + head * (2 * HALF) + columns
    first = tl.load(places, mask=present[:, None], other=0.0).to(tl.float32)
    second = tl.load(places + HALF, mask=present[:, None], other=0.0).to(tl.float32)
    turned = (first * cosine - second * sine).to(mixed.dtype.element_ty)
    tl.store(places, turned, mask=present[:, None])
    turned = (second * cosine + first * sine).to(mixed.dtype.element_ty)
    tl.store(places + HALF, turned, mask=present[:, None])


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
