"""Named tensors from weight files; nothing else is ever built or run.

Files come from :mod:`nucpro.models.weights`; tensors go to the loaders of the encoders. A safetensors file
holds tensors only. A ``.bin`` or ``.pt`` file is a pickle, read by torch's restricted loader, which refuses
everything but tensors, plain containers and argparse's namespaces of them. Files are mapped: a tensor costs
memory only while it is copied.
"""

from __future__ import annotations

import itertools
import json
import pickle
import re
import threading
import zipfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nucpro.errors import ModelError
from nucpro.formats.opening import looks_like, open_input, problem_of
from nucpro.models.config import MEAN, PooledSpan
from nucpro.models.origins import FairEsm, read_fair_esm

__all__ = [
    "Run",
    "WeightTensors",
    "equal_runs",
    "pool_states",
    "to_device",
]

# torch's restricted loader lets the errors of its own parsing through: each is a damaged or hostile file.
_DAMAGED_PICKLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    zipfile.BadZipFile,
)
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")
_REASON = re.compile(r"WeightsUnpickler error:\s*(\S.*)")
"""What torch's loader found, in the middle of its advice."""
_HEAD = 512
_LONGEST = 2**63 - 1
"""Longest dimension of a tensor."""
_OTHERS = ("a page of HTML or XML", "JSON", "an empty file", "a gzip file", "a tar archive")
"""Content of a file in place of weights after a failed download (:func:`nucpro.formats.opening.looks_like`)."""
_ALLOWING = threading.Lock()
_FETCH_AGAIN = "fetch the model again (nucpro fetch-models FOLDER)"


Readers = dict[str, Callable[[], torch.Tensor]]


class WeightTensors(Mapping[str, torch.Tensor]):
    """The tensors of one checkpoint by name, read when they are asked for.

    Parameters
    ----------
    files : sequence of Path
        One file, or all shards of one checkpoint.

    Attributes
    ----------
    fair_esm : FairEsm or None
        Names that identify a checkpoint of fair-esm; here its tensors have transformers' names.

    Raises
    ------
    ModelError
        If a file is missing, damaged, holds anything but tensors, or if two shards hold the same name.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._readers: Readers = {}
        self.fair_esm: FairEsm | None = None
        for file in files:
            readers, self.fair_esm = _open(file)
            for name, reader in readers.items():
                if name in self._readers:
                    raise ModelError(f"{file}: {name!r} is in another shard too; {_FETCH_AGAIN}")
                self._readers[name] = reader

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _open(file: Path) -> tuple[Readers, FairEsm | None]:
    try:
        with open_input(file, ModelError) as stream:
            looks = looks_like(stream.read(_HEAD))
    except OSError as error:
        raise ModelError(f"{file}: {problem_of(file, error)}") from error
    if "pointer" in looks:
        raise ModelError(f"{file}: this is {looks}, or {_FETCH_AGAIN}")
    if looks in _OTHERS:
        raise ModelError(f"{file}: this is {looks}, not weights; {_FETCH_AGAIN}")
    return (_open_safetensors(file), None) if file.suffix == ".safetensors" else _open_pickle(file)


def _open_safetensors(file: Path) -> Readers:
    try:
        archive: Any = safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size
        raise ModelError(
            f"{file}: not a whole safetensors file ({error}; {size:,} bytes); "
            f"the download may have been interrupted: {_FETCH_AGAIN}"
        ) from error
    _check_header(file)
    names: list[str] = archive.keys()
    return {name: partial(archive.get_tensor, name) for name in names}


def _check_header(file: Path) -> None:
    """Raise for names and shapes that the library, which has read the header, lets through."""
    with open_input(file, ModelError) as stream:
        header = stream.read(int.from_bytes(stream.read(8), "little"))
    try:
        entries = json.loads(header, object_pairs_hook=_unique)
    except ValueError as error:
        raise ModelError(f"{file}: its header is ambiguous: {error}; {_FETCH_AGAIN}") from error
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        if max(entry.get("shape") or (0,)) > _LONGEST:
            raise ModelError(
                f"{file}: {name[:100]!a} has the impossible shape {entry['shape']}; {_FETCH_AGAIN}"
            )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"it has two entries {counts.most_common(1)[0][0][:100]!a}")
    return found


def _open_pickle(file: Path) -> tuple[Readers, FairEsm | None]:
    if not _is_archive(file):
        raise ModelError(
            f"{file}: not a whole PyTorch weights file (no zip archive; {file.stat().st_size:,} bytes); the "
            f"download may have been interrupted: {_FETCH_AGAIN}; a file from before PyTorch 1.6 must be saved again"
        )
    content = _unpickled(file)
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{file}: holds a {type(content).__name__}; a checkpoint is a mapping of names to tensors"
        )
    within = content.get("model")
    if isinstance(within, Mapping) and _names_tensors(within):
        tensors, fair_esm = within, read_fair_esm(file, within, content)
    else:
        tensors, fair_esm = content, read_fair_esm(file, content, {}) if _names_tensors(content) else None
    if fair_esm:
        return {name: partial(tensors.__getitem__, told) for name, told in fair_esm.names.items()}, fair_esm
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{file}: {name!r} is a {type(value).__name__}; a checkpoint maps names to tensors and holds "
                "nothing else: save the model's state_dict alone"
            )
    return {name: partial(content.__getitem__, name) for name in content}, None


def _unpickled(file: Path) -> object:
    """What a pickle describes, with tensors that are mapped."""
    try:
        _refuse_compressed(file)
        # torch keeps the names that it allows for the whole process.
        with _ALLOWING, torch.serialization.safe_globals([Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except _DAMAGED_PICKLE as error:
        raise _pickle_error(file, error) from error


def _names_tensors(content: Mapping[Any, object]) -> bool:
    return bool(content) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )


def _is_archive(file: Path) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # a directory record that contradicts itself
        return False


def _refuse_compressed(file: Path) -> None:
    """Raise where a member would be unpacked: torch stores them as they are, and a few bytes can become gigabytes."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ModelError(
                    f"{file}: member {member.filename[:100]!a} is compressed, which torch.save does not do; "
                    f"{_FETCH_AGAIN}"
                )


def _pickle_error(file: Path, error: Exception) -> ModelError:
    wanted = _REFUSED_GLOBAL.search(str(error))
    if wanted:
        return ModelError(
            f"{file}: refused, the file wants to call {wanted[1].rstrip('.')}; weights need nothing but "
            "tensors: do not open this file with other programs, and get the weights as safetensors"
        )
    told = _REASON.search(str(error))
    reason = told[1] if told else (str(error).splitlines() or [type(error).__name__])[0]
    return ModelError(f"{file}: damaged PyTorch weights file ({reason}); {_FETCH_AGAIN}")


@dataclass(frozen=True)
class Run:
    """Neighbouring sequences of one length in a packed batch.

    Parameters
    ----------
    start : int
        First token of the run.
    count : int
        Sequences in the run.
    length : int
        Tokens of each of them.
    """

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """The token after the run."""
        return self.start + self.count * self.length

    def block(self, packed_tx: torch.Tensor) -> torch.Tensor:
        """View of the run's rows as ``[count, length, X]``."""
        return packed_tx[self.start : self.stop].view(self.count, self.length, -1)


def equal_runs(lengths: Sequence[int]) -> list[Run]:
    """Group neighbours of equal length.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence, in the order in which they are packed.

    Returns
    -------
    list of Run
        In packed order; together they cover all tokens.
    """
    runs: list[Run] = []
    start = 0
    for length, group in itertools.groupby(lengths):
        runs.append(Run(start, sum(1 for _ in group), length))
        start = runs[-1].stop
    return runs


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device from pinned memory: from any other, the host would wait for all work on a GPU."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def pool_states(
    hidden_td: torch.Tensor, lengths: Sequence[int], span: PooledSpan, poolings: Sequence[str] = (MEAN,)
) -> torch.Tensor:
    """Pool the hidden states of each sequence, in float32.

    Each sum runs over a dense block in a fixed order (no atomic additions), so equal input gives equal bytes.

    Parameters
    ----------
    hidden_td : torch.Tensor
        ``[T, D]``, any float dtype.
    lengths : sequence of int
        Tokens of each sequence, summing to T; each longer than what the span leaves out.
    span : PooledSpan
        Tokens that count.
    poolings : sequence of str
        Of :data:`nucpro.models.config.POOLINGS`.

    Returns
    -------
    torch.Tensor
        float32 ``[N, P D]``: one pooling after the other.
    """
    pooled = []
    for run in equal_runs(lengths):
        block_nld = run.block(hidden_td)
        kept_nld = block_nld[:, span.skip_start : run.length - span.skip_end]
        parts = [block_nld[:, 0].float() if name == "cls" else _POOLED[name](kept_nld) for name in poolings]
        pooled.append(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
    return torch.cat(pooled)


_POOLED: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda kept_nld: kept_nld.mean(dim=1, dtype=torch.float32),
    "max": lambda kept_nld: kept_nld.amax(dim=1).float(),
    "min": lambda kept_nld: kept_nld.amin(dim=1).float(),
    "std": lambda kept_nld: kept_nld.float().std(dim=1, correction=0),
}
