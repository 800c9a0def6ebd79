"""Triton kernels for what cuBLAS leaves to slow, separate passes over packed activations, and where they run.

:mod:`nucpro.models.fused` and :mod:`nucpro.models.mosaic_bert_fused` alone call them. Sums, norms and softmax are
float32 whatever the element type. Every program writes its own block and sums in a fixed order, so equal input
gives equal bytes. The submodules import Triton, which comes with CUDA builds of torch only; this module does not.
"""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["Choice", "Fused", "Shape", "Way", "choose_way", "triton_obstacle"]

_OLDEST_TRITON = (3, 4)
_OLDEST_GPU = (8, 0)
"""Compute capability of Ampere, the first with bfloat16 and with copies that run beside products."""
_HOPPER = (9, 0)
"""The one that the product in :mod:`nucpro.models.kernels.product` was made for and measured on. cuBLAS is tuned
for every GPU; Triton's code for this product is good where the copy engine (TMA) feeds Hopper's matrix units."""
_NARROWEST_HEAD, _WIDEST_HEAD = 16, 128
"""Columns that matrix units need, and that attention can hold in the shared memory of every GPU."""


class Shape(Protocol):
    """Configuration of an encoder, as far as kernels care."""

    @property
    def width(self) -> int:
        """Columns of a hidden state."""
        ...

    @property
    def heads(self) -> int:
        """Attention heads."""
        ...

    @property
    def feed_forward_width(self) -> int:
        """Columns between the two products of the feed-forward part."""
        ...


class Way(Enum):
    """How an encoder computes; the value is the text of the log."""

    HOPPER = "fused kernels and the Hopper product"
    CUBLAS = "fused kernels around cuBLAS products"
    PLAIN = "plain torch"


@dataclass(frozen=True)
class Choice:
    """A way, and why it is not a faster one.

    Parameters
    ----------
    way : Way
        What runs.
    reason : str or None
        Why no faster way can run; None for the fastest.
    """

    way: Way
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.way.value}: {self.reason}" if self.reason else self.way.value

    @property
    def ignores_companions(self) -> bool:
        """Whether the bytes of a vector do not depend on the other sequences of its batch; known for one way only.

        Elsewhere cuBLAS may choose another product for another number of tokens.
        """
        return self.way is Way.HOPPER


@dataclass(frozen=True)
class Fused:
    """The forward by kernels of an encoder.

    Parameters
    ----------
    module : str
        Module whose ``fused_forward`` makes it from the encoder and a :class:`Way`. Named and not imported, since it
        imports Triton.
    pads_heads : bool
        Whether it can pad heads to a power of two of at least 16 columns.
    has_hopper_product : bool
        Whether the Hopper product can finish some of its products.
    """

    module: str
    pads_heads: bool
    has_hopper_product: bool


def choose_way(fused: Fused | None, config: Shape, device: torch.device, dtype: torch.dtype) -> Choice:
    """Choose how an encoder computes; the one place that decides it.

    Parameters
    ----------
    fused : Fused or None
        Its forward by kernels, None where it has none.
    config : Shape
        Of the encoder.
    device : torch.device
        Where it computes.
    dtype : torch.dtype
        Its element type.

    Returns
    -------
    Choice
        The fastest way that can run, and why no faster one can. It depends on nothing that is
        measured at run time, so equal hardware and software give equal bytes.
    """
    reason = _obstacle(fused, config, device, dtype)
    if fused is None or reason is not None:
        return Choice(Way.PLAIN, reason)
    if not fused.has_hopper_product:
        return Choice(Way.CUBLAS)
    reason = _hopper_obstacle(config, device)
    return Choice(Way.HOPPER) if reason is None else Choice(Way.CUBLAS, reason)


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


def _obstacle(fused: Fused | None, config: Shape, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why no kernels can run an encoder: the first reason in words, None where there is none."""
    import torch  # noqa: PLC0415 - whoever only identifies a model does without

    if fused is None:
        return "this kind of encoder has no kernels"
    if device.type != "cuda" or torch.version.hip is not None:
        return f"{device} is not an NVIDIA GPU"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"kernels compute in float16 and bfloat16, not in {str(dtype).removeprefix('torch.')}"
    if reason := _shape_obstacle(fused, config):
        return reason
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST_GPU:
        return f"kernels need compute capability {_in_words(_OLDEST_GPU)}, and {device} has {_in_words(capability)}"
    return triton_obstacle()


def _shape_obstacle(fused: Fused, config: Shape) -> str | None:
    width = config.width // config.heads
    if width > _WIDEST_HEAD:
        return f"heads have {width} columns, and kernels hold at most {_WIDEST_HEAD}"
    if not fused.pads_heads and (width < _NARROWEST_HEAD or width.bit_count() != 1):
        return f"heads have {width} columns, not a power of two of at least {_NARROWEST_HEAD}"
    return None


def _hopper_obstacle(config: Shape, device: torch.device) -> str | None:
    """Why the Hopper product cannot run: its descriptors hold whole blocks of rows of 16 bytes only."""
    import torch  # noqa: PLC0415

    capability = torch.cuda.get_device_capability(device)
    if capability != _HOPPER:
        return (
            f"the Hopper product is for compute capability {_in_words(_HOPPER)}, and {device} has "
            f"{_in_words(capability)}"
        )
    if config.width % 8 or config.feed_forward_width % 32:
        return (
            f"hidden size {config.width} is not a multiple of 8, or intermediate size "
            f"{config.feed_forward_width} not one of 32"
        )
    return None


def _in_words(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
