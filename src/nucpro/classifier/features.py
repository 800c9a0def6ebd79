"""All features of a data folder as one matrix, read once: on the device, in memory, or on disk.

Merged files come from :mod:`nucpro.formats` by several threads and go, each row at its place, into one float32
tensor that :mod:`nucpro.classifier.fitting` takes batches from; ids go to :mod:`nucpro.classifier.splits`.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.options import Placement
from nucpro.classifier.sources import Survey, read_rows
from nucpro.errors import UsageError, ValidationError, counted, human_size
from nucpro.machine import free_memory
from nucpro.progress import Show, silent

__all__ = ["Features", "place", "read_features"]

logger = logging.getLogger(__name__)

_DEVICE_SHARE = 0.8
_MEMORY_SHARE = 0.7
_FLOAT = 4


@dataclass(frozen=True, eq=False)
class Features:
    """All rows for training and evaluation.

    Parameters
    ----------
    matrix : torch.Tensor
        float32 ``[N, D]``, on the device or the CPU, or mapped from a file without a name.
    labels : torch.Tensor
        int64 ``[N]``, on the CPU: 1 viral, 0 host.
    ids : list of str
        One per row.
    files : ndarray of int32, shape [N]
        Number of each row's file in `file_names`.
    file_names : tuple of str
        Below ``data_merge``.
    digest : str
        SHA-256 over the names and digests of all files: what was trained on.
    """

    matrix: torch.Tensor
    labels: torch.Tensor
    ids: list[str]
    files: NDArray[np.int32]
    file_names: tuple[str, ...]
    digest: str


def place(need: int, device: torch.device, asked: Placement, scratch: Path) -> Placement:
    """Decide once, before anything is read, where to store features, and log it.

    Parameters
    ----------
    need : int
        Bytes of the matrix.
    device : torch.device
        Where training runs.
    asked : Placement
        :attr:`Placement.AUTO` takes the first of device, memory and disk with enough space.
    scratch : Path
        Folder for the file on disk.

    Returns
    -------
    Placement
        ``device``, ``memory`` or ``disk``.

    Raises
    ------
    UsageError
        The requested place lacks the space, or is not a CUDA device.
    """
    rooms = {
        Placement.DEVICE: _device_room(device),
        Placement.MEMORY: int((free_memory() or 0) * _MEMORY_SHARE),
        Placement.DISK: shutil.disk_usage(scratch).free,
    }
    fitting = [name for name, room in rooms.items() if need <= room and asked in (Placement.AUTO, name)]
    if not fitting:
        shown = ", ".join(f"{name} {human_size(max(room, 0))}" for name, room in rooms.items())
        raise UsageError(
            f"the features need {human_size(need)}, and --features {asked} lacks the space ({shown}); "
            "free some, or choose another place"
        )
    logger.info("Features: %s, held %s (%s)", human_size(need), _PLACES[fitting[0]], device)
    return fitting[0]


_PLACES = {
    Placement.DEVICE: "on the device",
    Placement.MEMORY: "in memory",
    Placement.DISK: "on disk, mapped",
}


def read_features(
    survey: Survey, where: Placement, device: torch.device, scratch: Path, show: Show = silent
) -> Features:
    """Read all merged files once.

    Parameters
    ----------
    survey : Survey
        The files.
    where : Placement
        As :func:`place` decided.
    device : torch.device
        For features on the device.
    scratch : Path
        Folder for features on disk; the file has no name, so nothing is left of it, however the run ends.
    show : callable, optional
        Called with the progress.

    Returns
    -------
    Features
        All rows, float32 ``[N, D]``, with their labels and ids.

    Raises
    ------
    StoreError
        A file that cannot be read, or has no label.
    ValidationError
        A label that is not that of the file's category, a duplicate id, or one class only.
    """
    matrix = _room_for((survey.rows, survey.files[0].width), where, device, scratch)

    def put(start: int, vectors: NDArray[np.float32]) -> None:
        matrix[start : start + len(vectors)].copy_(torch.from_numpy(vectors))

    rows = read_rows(survey, put, show)
    _require_both(rows.labels)
    names = tuple(file.name for file in survey.files)
    return Features(matrix, torch.from_numpy(rows.labels), rows.ids, rows.files, names, rows.digest)


def _require_both(labels: NDArray[np.int64]) -> None:
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        raise ValidationError(
            f"one class only: {counts[1]} viral and {counted(int(counts[0]), 'host row')}; a classifier needs both: "
            "extract files of the other class too"
        )


def _room_for(shape: tuple[int, int], where: Placement, device: torch.device, scratch: Path) -> torch.Tensor:
    if where is Placement.DEVICE:
        return torch.empty(shape, dtype=torch.float32, device=device)
    if where is Placement.MEMORY:
        return torch.empty(shape, dtype=torch.float32)
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.truncate(shape[0] * shape[1] * _FLOAT)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))


def _device_room(device: torch.device) -> int:
    if device.type != "cuda":
        return -1
    return int(torch.cuda.mem_get_info(device)[0] * _DEVICE_SHARE)
