"""Layer norm of packed hidden states that lack a constant: reads each row once, at the speed of memory.

Hidden states come from :mod:`nucpro.models.fused`; normed ones go to the next matrix product.

Shape suffixes: t tokens of the whole batch, d model width.
"""

# Triton's own language is neither typed nor bound to names of Python: constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["layer_norm"]


def layer_norm(
    hidden_td: torch.Tensor,
    weight_d: torch.Tensor,
    bias_d: torch.Tensor,
    shift_d: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Layer norm of ``hidden + shift``.

    Parameters
    ----------
    hidden_td, weight_d, bias_d : torch.Tensor
        ``[T, D]``, ``[D]`` and ``[D]``, contiguous.
    shift_d : torch.Tensor
        float32 ``[D]``, added in float32.
    epsilon : float
        Added to the variance.

    Returns
    -------
    torch.Tensor
        ``[T, D]`` in the element type of the hidden states.
    """
    rows, width = hidden_td.shape
    normed_td = torch.empty_like(hidden_td)
    _norm_kernel[(rows,)](
        hidden_td,
        weight_d,
        bias_d,
        shift_d,
        normed_td,
        epsilon,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        num_warps=2 if width <= 2048 else 8,
        enable_fp_fusion=True,
    )
    return normed_td


@triton.jit
def _norm_kernel(hidden, weight, bias, shift, outputs, epsilon, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One row. The mean is taken off before squares are summed, so that large values cost no digits."""
    columns = tl.arange(0, BLOCK)
    present = columns < WIDTH
    row = tl.program_id(0).to(tl.int64) * WIDTH
    values = tl.load(hidden + row + columns, mask=present, other=0.0).to(tl.float32)
    values += tl.load(shift + columns, mask=present, other=0.0)
    centred = tl.where(present, values - tl.sum(values, 0) / WIDTH, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + epsilon)
    normed = centred * scale * tl.load(weight + columns, mask=present, other=0.0).to(tl.float32)
    normed += tl.load(bias + columns, mask=present, other=0.0).to(tl.float32)
    tl.store(outputs + row + columns, normed.to(outputs.dtype.element_ty), mask=present)
