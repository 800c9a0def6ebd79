"""What a training that was stopped goes on from: one safetensors file beside the model that is to come.

:mod:`nucpro.classifier.fitting` writes it after every epoch and reads it at its start. Tensors are the present
weights, the best ones and the running sums of gradients; everything else is JSON in the file's own header, so that
both change together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from nucpro.errors import DataError
from nucpro.store import write_bytes

__all__ = ["STATE_NAME", "TrainingState", "read_state", "write_state"]

STATE_NAME = ".training.safetensors"
"""Name of the file in the model's folder."""

Tensors = Mapping[str, torch.Tensor]

_KINDS = ("weights", "best", "momentum")
_REMEDY = "begin anew with --restart"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A training after some epochs.

    Parameters
    ----------
    key : str
        Digest of everything that decides the result: data, columns, split and options.
    weights, best, momentum : dict of str to torch.Tensor
        Present weights, those of the best epoch, and running sums of gradients.
    history : list of dict
        Metrics of each epoch that was finished.
    best_epoch : int
        Number of the best epoch, counted from 1.
    """

    key: str
    weights: Tensors
    best: Tensors
    momentum: Tensors
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0


def write_state(folder: Path, state: TrainingState) -> None:
    """Write a state whole or not at all."""
    tensors = {
        f"{kind}.{name}": tensor.detach().cpu().contiguous()
        for kind in _KINDS
        for name, tensor in getattr(state, kind).items()
    }
    # Weights and best weights may be one tensor, which the format does not allow.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    header = {"key": state.key, "history": state.history, "best_epoch": state.best_epoch}
    # One key only: safetensors writes several in an order that differs from process to process.
    metadata = {"training": json.dumps({**header, "sha256": _digest(header, tensors)})}
    write_bytes(folder / STATE_NAME, safetensors.torch.save(tensors, metadata))


def read_state(folder: Path) -> TrainingState | None:
    """Read the state of a folder; None where there is none.

    Raises
    ------
    DataError
        The file is damaged, or not one of this program.
    """
    path = folder / STATE_NAME
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if header.pop("sha256") != _digest(header, tensors):
            raise ValueError("its SHA-256 is another: it was changed since it was written")
        parts = {
            kind: {
                name.removeprefix(f"{kind}."): t for name, t in tensors.items() if name.startswith(f"{kind}.")
            }
            for kind in _KINDS
        }
        return TrainingState(
            header["key"], **parts, history=header["history"], best_epoch=header["best_epoch"]
        )
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_REMEDY}") from error


def _digest(header: Mapping[str, Any], tensors: Tensors) -> str:
    """SHA-256 over everything that training goes on from."""
    content = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].numpy().tobytes())
    return content.hexdigest()
