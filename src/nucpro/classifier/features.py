"""All features of a data folder as one matrix, read once: on the device, in memory, or on disk.

Merged files come from :mod:`nucpro.formats` by several threads and go, each row at its place, into one float32
tensor that :mod:`nucpro.classifier.fitting` takes batches from; ids go to :mod:`nucpro.classifier.splits`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.options import Placement
from nucpro.classifier.sources import MergedSource, Survey
from nucpro.errors import StoreError, UsageError, ValidationError, human_size
from nucpro.folder.paths import CLASS_NAMES, category_of
from nucpro.formats import MergedFile, label_of, read_merged
from nucpro.machine import cores, memory_limit
from nucpro.progress import Show, silent, tracked

__all__ = ["Features", "place", "read_features"]

logger = logging.getLogger(__name__)

_MOST_READERS = 8
"""Threads that read; each holds one file (82 MB) in memory. Checksums and copies run beside each other."""
_DEVICE_SHARE = 0.8
_MEMORY_SHARE = 0.7
_FLOAT = 4


@dataclass(frozen=True, eq=False)
class Features:
    """Everything that is trained on and measured with.

    Parameters
    ----------
    matrix : torch.Tensor
        float32 ``[N, D]``, on the device or the CPU, or mapped from a file without a name.
    labels : torch.Tensor
        int64 ``[N]``, on the CPU: 1 viral, 0 host.
    ids : list of str
        One a row.
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
    """Decide once, before anything is read, where features lie, and log it.

    Parameters
    ----------
    need : int
        Bytes of the matrix.
    device : torch.device
        Where training runs.
    asked : Placement
        :attr:`Placement.AUTO` takes the first of device, memory and disk that has the room.
    scratch : Path
        Folder for the file on disk.

    Raises
    ------
    UsageError
        The place that was asked for lacks the room, or is no CUDA device.
    """
    rooms = {
        Placement.DEVICE: _device_room(device),
        Placement.MEMORY: int(_memory_room() * _MEMORY_SHARE),
        Placement.DISK: shutil.disk_usage(scratch).free,
    }
    fitting = [name for name, room in rooms.items() if need <= room and asked in (Placement.AUTO, name)]
    if not fitting:
        shown = ", ".join(f"{name} {human_size(max(room, 0))}" for name, room in rooms.items())
        raise UsageError(
            f"the features need {human_size(need)}, and --features {asked} has no room for them ({shown}); "
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
        Takes the progress.

    Raises
    ------
    StoreError
        A file that cannot be read, or has no label.
    ValidationError
        A label that is not that of the file's category, an id that is there twice, or one class only.
    """
    reader = _Reader(survey.files, _room_for((survey.rows, survey.files[0].width), where, device, scratch))
    with ThreadPoolExecutor(min(_MOST_READERS, cores())) as pool:
        read = pool.map(reader.read, range(len(survey.files)))
        parts = list(tracked(read, len(survey.files), "Reading features", show))
    ids = [name for part in parts for name in part.ids]
    if len(set(ids)) != len(ids):
        raise ValidationError(_repeated(ids, survey))
    labels = np.repeat([part.label for part in parts], [len(part.ids) for part in parts]).astype(np.int64)
    _require_both(labels)
    digest = hashlib.sha256(
        "".join(
            f"{part.digest}  {file.name}\n" for part, file in zip(parts, survey.files, strict=True)
        ).encode()
    )
    files = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.ids) for part in parts])
    names = tuple(file.name for file in survey.files)
    return Features(reader.matrix, torch.from_numpy(labels), ids, files, names, digest.hexdigest())


@dataclass(frozen=True)
class _Part:
    """What is kept of a file beside its numbers."""

    ids: list[str]
    label: int
    digest: str


class _Reader:
    """Reads files into their rows of the matrix; called from several threads."""

    def __init__(self, files: Sequence[MergedSource], matrix: torch.Tensor) -> None:
        self.matrix = matrix
        self._files = files
        self._starts = np.cumsum([0, *(file.rows for file in files)])

    def read(self, number: int) -> _Part:
        """Read one file."""
        source = self._files[number]
        merged = read_merged(source.path)
        if merged.vectors.shape != (source.rows, source.width):
            raise StoreError(f"{source.path}: changed while it was read; end what writes it, then run again")
        label = _checked_label(source, merged)
        self.matrix[self._starts[number] : self._starts[number + 1]].copy_(torch.from_numpy(merged.vectors))
        return _Part(merged.ids, label, merged.digest)


def _checked_label(source: MergedSource, merged: MergedFile) -> int:
    label = label_of(merged, source.path)
    category = category_of(source.name)
    expected = int(category == CLASS_NAMES[1])
    if label != expected:
        raise ValidationError(
            f"{source.path}: label {merged.label}, but {category} files have label {expected}; run nucpro extract "
            "again, which replaces what is out of date, or move the file away where it is of no selected file"
        )
    return label


def _repeated(ids: list[str], survey: Survey) -> str:
    seen: set[str] = set()
    twice = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    return (
        f"{survey.folder.merge_root}: {len(twice)} ids are in more than one merged file (first {twice[0]}), so rows "
        "would be trained on twice and could lie on both sides of a split; move one of the files away"
    )


def _require_both(labels: NDArray[np.int64]) -> None:
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        raise ValidationError(
            f"one class only: {counts[1]} viral and {counts[0]} host rows; a classifier needs both: extract files of "
            "the other class too"
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


def _memory_room() -> int:
    """Bytes that are free or can be freed, within the limit of a container."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    room = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    limit = memory_limit()
    return room if limit is None else min(room, limit)
