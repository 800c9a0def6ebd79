"""Matrix products that finish their results before these leave the chip: bias, then GELU or rotary positions.

For Hopper GPUs, whose copy engine (TMA) feeds them; :mod:`nucpro.models.kernels.finish` does the same around
products of cuBLAS. Inputs and weights come from :mod:`nucpro.models.fused`; results go to the next product or to
attention.

Shape suffixes: t tokens of the whole batch, d model width, h heads, k head width (a power of two), r half of it,
l positions, f columns of the result.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803, N806, PLR0913, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from nucpro.models.kernels.finish import Rotary, gelu

__all__ = ["Blocks", "linear_gelu", "linear_rotated"]


@dataclass(frozen=True)
class Blocks:
    """How a matrix product is cut into blocks.

    Parameters
    ----------
    rows, columns, depth : int
        Block of the result, and columns of the inputs that are multiplied at a time; powers of two.
    programs : int
        Programs that share all blocks: one per multiprocessor.
    """

    rows: int
    columns: int
    depth: int
    programs: int

    @classmethod
    def of_device(cls, device: torch.device) -> Blocks:
        """Blocks that fill a Hopper GPU, with a program for each of its multiprocessors."""
        return cls(128, 256, 64, torch.cuda.get_device_properties(device).multi_processor_count)


def linear_gelu(
    inputs_td: torch.Tensor, weight_fd: torch.Tensor, bias_f: torch.Tensor, blocks: Blocks
) -> torch.Tensor:
    """``gelu(inputs @ weight.T + bias)`` with the exact (erf) GELU.

    The GELU is a fit whose error is at most 1.2e-4 of its value, a quarter of float16's largest rounding error;
    the result is rounded once.

    Parameters
    ----------
    inputs_td, weight_fd, bias_f : torch.Tensor
        ``[T, D]``, ``[F, D]`` and ``[F]``, contiguous, of one element type; D is a multiple of 8, F of 32.
    blocks : Blocks
        For the device.

    Returns
    -------
    torch.Tensor
        ``[T, F]`` in the element type of the inputs.
    """
    columns = min(blocks.columns, _largest_power_of_two_in(weight_fd.shape[0]))
    return _launch(inputs_td, weight_fd, bias_f, blocks, columns)


def linear_rotated(
    inputs_td: torch.Tensor, weight_fd: torch.Tensor, bias_f: torch.Tensor, blocks: Blocks, rotary: Rotary
) -> torch.Tensor:
    """Queries, keys and values in one product, turned by their positions before they are rounded.

    Parameters
    ----------
    inputs_td, weight_fd, bias_f : torch.Tensor
        ``[T, D]``, ``[3 H K, D]`` and ``[3 H K]``, contiguous, of one element type; D is a multiple of 8, H is
        even, and K is at least 16.
    blocks : Blocks
        For the device.
    rotary : Rotary
        With tables of K / 2 columns.

    Returns
    -------
    torch.Tensor
        ``[T, 3 H K]``: turned and scaled queries, turned keys, and values.
    """
    # A block never holds queries beside keys or keys beside values, and each half of it holds whole heads.
    columns = min(blocks.columns, _largest_power_of_two_in(weight_fd.shape[0] // 3))
    head_width = 2 * rotary.cosines_lr.shape[1]
    if head_width > 64:
        blocks = replace(blocks, rows=blocks.rows // 2, depth=blocks.depth // 2)
        columns = max(columns, 2 * head_width)
    return _launch(inputs_td, weight_fd, bias_f, blocks, columns, rotary)


def _largest_power_of_two_in(number: int) -> int:
    """Largest power of two that divides a number."""
    return number & -number


def _launch(
    inputs_td: torch.Tensor,
    weight_fd: torch.Tensor,
    bias_f: torch.Tensor,
    blocks: Blocks,
    columns: int,
    rotary: Rotary | None = None,
) -> torch.Tensor:
    outputs_tf = inputs_td.new_empty(inputs_td.shape[0], weight_fd.shape[0])
    _product_kernel[(blocks.programs,)](
        TensorDescriptor.from_tensor(inputs_td, [blocks.rows, blocks.depth]),
        TensorDescriptor.from_tensor(weight_fd, [columns, blocks.depth]),
        bias_f,
        TensorDescriptor.from_tensor(outputs_tf, [blocks.rows, columns // 2]),
        rotary and rotary.cosines_lr,
        rotary and rotary.sines_lr,
        rotary and rotary.positions_t,
        rotary.query_scale if rotary else 1.0,
        len(inputs_td),
        OUTPUTS=weight_fd.shape[0],
        WIDTH=weight_fd.shape[1],
        ROWS=blocks.rows,
        COLUMNS=columns,
        DEPTH=blocks.depth,
        HALF=rotary.cosines_lr.shape[1] if rotary else 0,
        PROGRAMS=blocks.programs,
        num_warps=8,
        num_stages=3,
        enable_fp_fusion=True,
    )
    return outputs_tf


@triton.jit
def _place(number, block_rows, BLOCK_COLUMNS: tl.constexpr):
    """Block row and block column of a block's number, in bands of eight block rows.

    Programs that run together then share inputs and weights in the L2 cache.
    """
    BAND: tl.constexpr = 8
    first = number // (BAND * BLOCK_COLUMNS) * BAND
    height = tl.minimum(block_rows - first, BAND)
    inside = number % (BAND * BLOCK_COLUMNS)
    return first + inside % height, inside // height


@triton.jit
def _halves(block, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Left and right half of a block; no value leaves its thread."""
    return tl.split(tl.permute(tl.reshape(block, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit
def _turn(block, cosines, sines, ROWS: tl.constexpr, COLUMNS: tl.constexpr, HALF: tl.constexpr):
    """Turn whole heads by ``[ROWS, 1, HALF]`` cosines and sines; columns ``HALF`` apart are a pair."""
    heads = tl.permute(tl.reshape(block, (ROWS, COLUMNS // (2 * HALF), 2, HALF)), (0, 1, 3, 2))
    first, second = tl.split(heads)
    turned = tl.join(first * cosines - second * sines, second * cosines + first * sines)
    return tl.reshape(tl.permute(turned, (0, 1, 3, 2)), (ROWS, COLUMNS))


# Without do_not_specialize, row counts that are multiples of 16 would be compiled for on their own.
@triton.jit(do_not_specialize=["rows"])
def _product_kernel(
    inputs,
    weight,
    bias,
    outputs,
    cosines,
    sines,
    positions,
    query_scale,
    rows,
    OUTPUTS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    HALF: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    """Product with bias, then GELU (HALF = 0) or rotation; a program computes every PROGRAMS-th block.

    Descriptors read zeros outside of a matrix and never write there. Flattening both loops into one lets inputs
    of the next block arrive while this one is finished. A block is finished in halves: storing takes half the
    shared memory then, which leaves room for a deeper pipeline.
    """
    SIDE: tl.constexpr = COLUMNS // 2
    BLOCK_COLUMNS: tl.constexpr = OUTPUTS // COLUMNS
    block_rows = tl.cdiv(rows, ROWS)
    for number in tl.range(tl.program_id(0), block_rows * BLOCK_COLUMNS, PROGRAMS, flatten=True):
        block_row, block_column = _place(number, block_rows, BLOCK_COLUMNS)
        row, column = block_row * ROWS, block_column * COLUMNS
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        for depth in range(0, WIDTH, DEPTH):
            sums = tl.dot(inputs.load([row, depth]), weight.load([column, depth]).T, sums)
        left, right = _halves(sums, ROWS, COLUMNS)
        places = bias + column + tl.arange(0, SIDE)
        left += tl.load(places)[None, :].to(tl.float32)
        right += tl.load(places + SIDE)[None, :].to(tl.float32)
        if HALF == 0:
            left = gelu(left)
            right = gelu(right)
        elif column < OUTPUTS // 3 * 2:
            scale = tl.where(column < OUTPUTS // 3, query_scale, 1.0)
            tokens = row + tl.arange(0, ROWS)
            position = tl.load(positions + tokens, mask=tokens < rows, other=0)
            entry = position[:, None] * HALF + tl.arange(0, HALF)[None, :]
            cosine = tl.load(cosines + entry)[:, None, :] * scale
            sine = tl.load(sines + entry)[:, None, :] * scale
            left = _turn(left, cosine, sine, ROWS, SIDE, HALF)
            right = _turn(right, cosine, sine, ROWS, SIDE, HALF)
        outputs.store([row, column], left.to(outputs.dtype))
        outputs.store([row, column + SIDE], right.to(outputs.dtype))
