"""Description of things outside of data folders: files of vectors in other formats, encoders, caches of models.

Headers and small files are read, and the vectors that ``nucpro embed`` wrote; what comes out are plain values, as in
:mod:`nucpro.inspection.files`.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from nucpro.errors import (
    DataError,
    PreflightError,
    StoreError,
    UsageError,
    counted,
    first_few,
    human_size,
    reason_of,
)
from nucpro.folder.kinds import CONFIG, STATE_NAME, Kind, Known
from nucpro.formats.opening import looks_like, open_input, read_input
from nucpro.formats.records import parsed
from nucpro.vectors.outputs import Content, read_content
from nucpro.vectors.residues import INDEX

__all__ = ["describe_file", "describe_folder"]

Facts = dict[str, Any]

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_WHAT = {
    Kind.CACHE: "cache of models from the hub",
    Kind.SPLIT: "split files and their vectors",
    Kind.MERGED: "merged files",
}
_WEIGHTS = (".safetensors", ".bin", ".pt")
_SHOWN = 5
_LOOKED_AT = 512


def describe_folder(path: Path, known: Known | None) -> Facts:
    """Describe a folder that is neither a data folder nor that of a classifier.

    Raises
    ------
    PreflightError
        Its kind is unknown; the message names what lies there.
    """
    kind = None if known is None else known.kind
    if kind is Kind.ENCODER:
        return _encoder(path)
    if kind is Kind.CACHE:
        return {"what": _WHAT[kind], "path": str(path), "models": _cached(path)}
    names = sorted(entry.name for entry in path.iterdir())
    if known is not None and kind in (Kind.SPLIT, Kind.MERGED):
        data = None if known.data is None else str(known.data)
        return {"what": _WHAT[kind], "path": str(path), "data_folder": data, "files": len(names)}
    if kind is Kind.EXPORT:
        return {"what": "export of merged rows", "path": str(path), "made_by": "export", "files": len(names)}
    if INDEX in names:
        return {
            "what": "vectors of residues",
            "path": str(path),
            "made_by": "embed --per-residue",
            "files": len(names),
        }
    if STATE_NAME in names:
        raise PreflightError(
            [
                f"{path}: contains an unfinished training, without a model; finish it with nucpro train DATA -o {path}"
            ]
        )
    holds = f"holds {counted(len(names), 'entry')} ({first_few(names, _SHOWN)})" if names else "is empty"
    raise PreflightError(
        [f"{path}: {holds}, no data folder, classifier or encoder; name one of these, or a file in it"]
    )


def _encoder(path: Path) -> Facts:
    """Configuration and weights of an encoder, or of an adapter of one."""
    facts: Facts = {"what": "encoder", "path": str(path)}
    config = path / CONFIG
    with suppress(DataError):
        content = parsed(read_input(config if config.exists() else path / f"adapter_{CONFIG}"))
        facts |= {name: content.get(name) for name in _SHAPE if name in content}
        if not config.exists():
            facts |= {
                "what": "LoRA adapter",
                "base_model": content.get("base_model_name_or_path"),
                "rank": content.get("r"),
            }
    weights = [entry for entry in sorted(path.iterdir()) if entry.suffix in _WEIGHTS]
    shown = [f"{entry.name} ({human_size(entry.stat().st_size)})" for entry in weights if entry.exists()]
    return facts | {"weights": shown}


def _cached(path: Path) -> list[str]:
    """Models of a cache, each with the folder of each commit."""
    repositories = [path] if (path / "snapshots").is_dir() else sorted(path.glob("models--*"))
    return [str(commit) for one in repositories for commit in sorted(one.glob("snapshots/*"))]


def describe_file(path: Path, describe: Callable[[Content], Facts]) -> Facts | None:
    """Describe a file in a format of other programs; None for ``.pt`` files, FASTA and unknown formats.

    Parameters
    ----------
    path : Path
        A regular file.
    describe : callable
        Describes vectors.

    Raises
    ------
    StoreError
        The file is damaged, or an archive of something else.
    """
    with open_input(path) as file:
        start = file.read(_LOOKED_AT)
    looks = looks_like(start)
    read = _READERS.get(looks)
    if read is None:
        return None
    facts = read(path)
    if not facts:
        return None
    content = _content(path)
    if content is not None:
        facts |= {"read_with": "nucpro.read_vectors", **describe(content)}
    return {"what": facts.pop("what"), "path": str(path), "bytes": path.stat().st_size, **facts}


def _content(path: Path) -> Content | None:
    """Vectors that ``nucpro embed`` wrote; None if a file of that format holds something else."""
    try:
        return read_content(path)
    except (StoreError, UsageError):
        return None


def _zip(path: Path) -> Facts:
    """Arrays of an ``.npz`` file; empty for a file of torch.save, and what cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("/data.pkl") for name in names):
                return {}
            if not names or not all(name.endswith(".npy") for name in names):
                held = f"{counted(len(names), 'file')} ({first_few(names, _SHOWN)})"
                raise StoreError(
                    f"{path}: is a zip archive of {held}, and no file of vectors; unpack it first"
                )
            arrays = {name.removesuffix(".npy"): _array(archive, name) for name in names}
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError) as error:
        if path.suffix == ".pt":
            return {}
        raise StoreError(
            f"{path}: is a damaged zip archive ({reason_of(error)}); recreate it, or restore it from a copy"
        ) from error
    return {"what": "NumPy archive (.npz)", "arrays": arrays, "read_with": "numpy.load"}


def _array(archive: zipfile.ZipFile, name: str) -> str:
    """Type and shape of an array, from its header."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read: Any = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    return f"{dtype} {list(shape)}"


def _safetensors(path: Path) -> Facts:
    """Tensors of a safetensors file, from its header."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - not needed by the others

    try:
        with safe_open(path, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not a mapping
            shapes = {name: one.get_shape() for name, one in slices.items()}
            types = sorted({one.get_dtype() for one in slices.values()})
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{path}: is a damaged safetensors file ({reason_of(error)}); recreate it, or restore it from a copy"
        ) from error
    first = [f"{name} {shapes[name]}" for name in list(shapes)[:_SHOWN]]
    facts = {"what": "safetensors file", "tensors": len(shapes), "dtypes": types, "first": first}
    return facts | {"values": sum(map(math.prod, shapes.values())), "read_with": "safetensors.safe_open"}


def _package(what: str, read_with: str) -> Callable[[Path], Facts]:
    """Name a format that only other packages read."""
    return lambda _: {"what": what, "read_with": read_with}


_READERS: dict[str, Callable[[Path], Facts]] = {
    "a zip archive": _zip,
    "a safetensors file": _safetensors,
    "a Parquet file": _package("Parquet file", "pandas.read_parquet or polars.read_parquet"),
    "an HDF5 file": _package("HDF5 file", "h5py.File"),
    "a NumPy array file": _package("NumPy array", "numpy.load"),
}
"""Descriptions by the format that the first bytes show."""
