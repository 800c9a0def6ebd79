"""Where the encoders run and in which precision: a named device or precision is used, or refused.

Names come from the command line; torch objects go to the loaders of this package.
"""

from __future__ import annotations

import torch

from nucpro.errors import UsageError
from nucpro.machine import cores

__all__ = ["PRECISIONS", "choose_device"]

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
