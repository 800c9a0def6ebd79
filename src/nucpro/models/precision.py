"""Which precisions there are, and what they mean on which device; known without torch."""

from __future__ import annotations

__all__ = ["AUTO", "PRECISIONS", "precision_problem"]

AUTO = "auto"
"""fp16 on a GPU and fp32 on a CPU."""
PRECISIONS = ("fp16", "bf16", "fp32")
"""Arithmetic of the encoder. On a GPU weights and activations have it; on a CPU bf16 is that of matrix products, and
everything else is float32."""


def precision_problem(precision: str, device: str) -> str | None:
    """Why a precision cannot be used on a device, None where it can.

    Parameters
    ----------
    precision : str
        :data:`AUTO` or one of :data:`PRECISIONS`.
    device : str
        ``cpu``, or that of a GPU.
    """
    if precision not in (AUTO, *PRECISIONS):
        return f"precision {precision!r} is unknown; allowed are {AUTO}, {', '.join(PRECISIONS)}"
    if precision == "fp16" and device == "cpu":
        return (
            "precision fp16 was asked for on a CPU, where it takes two to five times as long as fp32 (processors "
            "have no fast float16 products); ask for fp32, for bf16 if the processor has AMX or AVX512-BF16, "
            "or for a GPU (--device cuda)"
        )
    return None
