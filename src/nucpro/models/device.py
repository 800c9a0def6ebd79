"""Where the encoders run and in which precision: a named device or precision is used, or refused.

Names come from the command line; torch objects go to the loaders of this package.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from nucpro.errors import UsageError
from nucpro.machine import cores
from nucpro.models.precision import AUTO, precision_problem

__all__ = [
    "PRECISIONS",
    "choose_device",
    "choose_precision",
    "cpu_threads",
    "multiplies_bf16",
    "use_processors",
]

logger = logging.getLogger(__name__)

_CPU_FACTS = Path("/proc/cpuinfo")

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Precisions by name. fp16 is nearer to float32 than bf16 for checkpoints that were trained in it."""


def choose_device(name: str) -> torch.device:
    """Device of a name; from here on torch uses no more threads than this process may use cores.

    Parameters
    ----------
    name : str
        ``cpu``, ``cuda`` (the current one) or ``cuda:N``.

    Returns
    -------
    torch.device
        With its index, for CUDA.

    Raises
    ------
    UsageError
        If the name means nothing, or this machine has no such device.
    """
    # torch counts the cores that the process is bound to, but knows nothing of a control group's share.
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (name != "cuda" and not index.isdecimal()):
        raise UsageError(f"device {name!r} is unknown; allowed are cpu, cuda and cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(
            f"device {name!r} was asked for, but torch {torch.__version__} finds no CUDA device here; "
            "install a CUDA build of torch, make a GPU visible, or ask for the device cpu"
        )
    count = torch.cuda.device_count()
    number = int(index) if index else torch.cuda.current_device()
    if number >= count:
        raise UsageError(
            f"device {name!r} was asked for, but this machine has {count} CUDA device(s), from cuda:0"
        )
    return torch.device("cuda", number)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Precision of weights and activations.

    Parameters
    ----------
    name : str
        One of :data:`PRECISIONS`, or ``auto``: fp16 on CUDA and fp32 on a CPU, where bf16 is chosen by name only
        (it keeps too few nearest neighbours: ``benchmarks/cpu_bf16.py``).
    device : torch.device
        Where the encoder will run.

    Returns
    -------
    torch.dtype
        The element type of matrix products. On a CPU, everything else is float32.

    Raises
    ------
    UsageError
        If the name is unknown, or the device cannot compute in it at a speed that is of use.
    """
    if problem := precision_problem(name, device.type):
        raise UsageError(problem)
    if name == AUTO:
        name = "fp16" if device.type == "cuda" else "fp32"
    return PRECISIONS[name]


def cpu_threads() -> int:
    """Threads for torch on a CPU: its own number, or the processors that this process may use if these are fewer."""
    return min(torch.get_num_threads(), cores())


def use_processors(dtype: torch.dtype) -> None:
    """Give torch its threads on a CPU, and say in the log how products are computed there.

    Parameters
    ----------
    dtype : torch.dtype
        Element type of matrix products.
    """
    torch.set_num_threads(cpu_threads())
    if dtype != torch.bfloat16:
        return
    logger.info("Matrix products are computed in bfloat16, the rest in float32")
    if not multiplies_bf16():
        logger.warning(
            "this processor has neither AMX nor AVX512-BF16: bf16 takes longer here than fp32, and is less exact"
        )


def multiplies_bf16(cpu_facts: Path = _CPU_FACTS) -> bool:
    """Whether the processor multiplies bfloat16 matrices itself: AMX, AVX512-BF16, or Arm's extension of that name.

    Parameters
    ----------
    cpu_facts : Path
        Where Linux describes the processors.
    """
    lines = cpu_facts.read_text(encoding="utf-8").splitlines() if cpu_facts.is_file() else []
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})
