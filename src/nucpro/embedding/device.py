"""Device and precision of the encoders: a requested device or precision is used or refused, never replaced.

Names come from the command line; torch objects go to the loaders of this package.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from nucpro.errors import PreflightError, UsageError, counted, human_size
from nucpro.machine import cores
from nucpro.options import AUTO_DEVICE

__all__ = [
    "CPU_SLOWER",
    "PRECISIONS",
    "choose_device",
    "cpu_threads",
    "described_device",
    "device_problems",
    "multiplies_bf16",
    "settled",
    "use_processors",
]

logger = logging.getLogger(__name__)

CPU_SLOWER = 600
"""How many times longer the protein model of 650 M parameters takes on 16 cores than on an H100, for sequences of 100
residues: ``benchmarks/results/gpu_extract_h100.json`` and ``cpu_bf16_xeon_amx.json`` (six of its 33 layers)."""


OptionsOf = TypeVar("OptionsOf")

_CPU_FACTS = Path("/proc/cpuinfo")

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Precisions by name. fp16 is nearer to float32 than bf16 for checkpoints that were trained in it."""


def choose_device(name: str) -> torch.device:
    """Device of a name; limits torch to as many threads as this process may use cores.

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
        The name is not valid.
    PreflightError
        This machine has no such device.
    """
    # torch counts the cores that the process is bound to, but ignores the share of a control group.
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (name != "cuda" and not index.isdecimal()):
        raise UsageError(f"device {name!r} is unknown; allowed are cpu, cuda and cuda:N")
    if not torch.cuda.is_available():
        problem = (
            f"device {name!r} was asked for, but torch {torch.__version__} finds no CUDA device here; "
            "install a CUDA build of torch, make a GPU visible, or compute on the CPU with --device cpu"
        )
        raise PreflightError([problem])
    count = torch.cuda.device_count()
    number = int(index) if index else torch.cuda.current_device()
    if number >= count:
        devices = counted(count, "CUDA device")
        raise PreflightError(
            [
                f"device {name!r} was asked for, but this machine has {devices}, from cuda:0 on; choose one of these"
            ]
        )
    return torch.device("cuda", number)


def settled(options: OptionsOf) -> OptionsOf:
    """Choose a device for ``auto``; the log states the cost of computing on a CPU.

    Parameters
    ----------
    options : dataclass
        With a ``device``. Workers of a cluster have GPUs that this machine may lack.

    Returns
    -------
    dataclass
        The same options, with ``cuda`` or ``cpu`` in place of ``auto``.
    """
    asked: Any = options
    if asked.device != AUTO_DEVICE:
        return options
    if getattr(asked, "engine", "local") == "ray" or torch.cuda.is_available():
        return cast(OptionsOf, replace(asked, device="cuda"))
    logger.info(
        "No GPU found: computing on the CPU, about %d times slower than an H100 with models of real size",
        CPU_SLOWER,
    )
    return cast(OptionsOf, replace(asked, device="cpu"))


def device_problems(device: str) -> list[str]:
    """Why a device cannot be used, as pre-flight problems."""
    try:
        choose_device(device)
    except PreflightError as error:
        return list(error.problems)
    except UsageError as error:
        return [str(error)]
    return []


def described_device(device: torch.device) -> str:
    """What a device is, for the details of the log: processors and threads, or card, free memory and CUDA."""
    if device.type != "cuda":
        return f"torch {torch.__version__} on {counted(cores(), 'core')}, {counted(torch.get_num_threads(), 'thread')}"
    free, total = torch.cuda.mem_get_info(device)
    major, minor = torch.cuda.get_device_capability(device)
    return (
        f"torch {torch.__version__} with CUDA {torch.version.cuda} on {torch.cuda.get_device_name(device)} "
        f"(compute capability {major}.{minor}), {human_size(free)} of {human_size(total)} free"
    )


def cpu_threads() -> int:
    """Threads for torch on a CPU: its own number, or the processors that this process may use if these are fewer."""
    return min(torch.get_num_threads(), cores())


def use_processors(dtype: torch.dtype) -> None:
    """Set the number of torch threads on a CPU, and log how matrix products are computed there.

    Parameters
    ----------
    dtype : torch.dtype
        Element type of matrix products.
    """
    torch.set_num_threads(cpu_threads())
    if dtype == torch.bfloat16:
        _report_bf16(is_fast=multiplies_bf16())


@cache
def _report_bf16(*, is_fast: bool) -> None:
    """Report once, although a command may load several encoders."""
    logger.info("Matrix products are computed in bfloat16, the rest in float32")
    if not is_fast:
        logger.warning(
            "this processor has neither AMX nor AVX512-BF16: bf16 takes longer here than fp32, and is less exact"
        )


def multiplies_bf16(cpu_facts: Path = _CPU_FACTS) -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware: AMX, AVX512-BF16 or Arm's BF16.

    Parameters
    ----------
    cpu_facts : Path
        Where Linux describes the processors.

    Returns
    -------
    bool
        False if unknown.
    """
    lines = cpu_facts.read_text(encoding="utf-8").splitlines() if cpu_facts.is_file() else []
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})
