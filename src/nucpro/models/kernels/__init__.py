"""Triton kernels for what cuBLAS leaves to slow, separate passes over packed activations.

:mod:`nucpro.models.fused` and :mod:`nucpro.models.mosaic_bert_fused` alone call them. Sums, norms and softmax are
float32 whatever the element type. Every program writes its own block and sums in a fixed order, so equal input
gives equal bytes. The submodules import Triton, which comes with CUDA builds of torch only; this module does not.
"""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path
from typing import Protocol

import torch

__all__ = ["Shape", "obstacle", "triton_obstacle"]

_OLDEST_TRITON = (3, 4)
_OLDEST_GPU = (9, 0)
"""Compute capability of Hopper, the first with the copy engine (TMA) that keeps products supplied."""


class Shape(Protocol):
    """Configuration of an encoder, as far as kernels care."""

    @property
    def width(self) -> int:
        """Columns of a hidden state."""
        ...

    @property
    def feed_forward_width(self) -> int:
        """Columns between the two products of the feed-forward part."""
        ...


def obstacle(config: Shape, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why kernels cannot run an encoder; the one place that decides it.

    Parameters
    ----------
    config : Shape
        Of the encoder.
    device : torch.device
        Where the encoder computes.
    dtype : torch.dtype
        Its element type.

    Returns
    -------
    str or None
        The first reason in words, None where there is none.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return f"{device} is not an NVIDIA GPU"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"they compute in float16 and bfloat16, not in {str(dtype).removeprefix('torch.')}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST_GPU:
        return f"{device} has compute capability {capability[0]}.{capability[1]}, and they need 9.0 (Hopper)"
    if config.width % 8 or config.feed_forward_width % 32:
        return (
            f"hidden size {config.width} is not a multiple of 8, or intermediate size "
            f"{config.feed_forward_width} not one of 32"
        )
    return triton_obstacle()


def triton_obstacle() -> str | None:
    """Why Triton cannot build kernels here: it compiles a small C module for each of them."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    version: str = importlib.import_module("triton").__version__
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_TRITON:
        return f"Triton {version} is older than 3.4"
    if shutil.which("gcc") is None and shutil.which("clang") is None:
        return "Triton needs a C compiler, and neither gcc nor clang is on the path"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Triton needs Python.h, and the headers of this Python are not installed"
    return None
