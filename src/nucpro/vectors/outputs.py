"""Files of vectors in formats that other programs read: one format per suffix, from rows that may be on disk.

Rows come from :mod:`nucpro.vectors.job` as an array that may be mapped from a file; nothing here needs all of them in
memory. Each form keeps ids, vectors and ``meta``, their provenance, which is read back by :func:`made_by`.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import DataError, StoreError, UsageError, counted, human_size, reason_of
from nucpro.formats import AtomicFile, Written, read_meta, read_vectors, replace_file, write_vectors
from nucpro.formats.archive import SIZE_LIMIT
from nucpro.formats.opening import open_input
from nucpro.formats.records import decoded
from nucpro.formats.sequences import SequenceType

__all__ = ["FORMATS", "META", "Content", "Format", "format_of", "made_by", "read_content", "write_tensor"]

META = "nucpro"
"""Name of ``meta``, as JSON, in all forms but ``.pt``."""
_ROWS_AT_A_TIME = 1000
"""Rows of a Parquet row group, and of a write."""
_LONGEST_ID = 1000
_LONGEST_HEADER = 90_000_000
"""Bytes of ids in a safetensors file, whose readers take headers up to 100 MB."""


@dataclass(frozen=True, eq=False)
class Content:
    """Content of a file of vectors.

    Parameters
    ----------
    ids : sequence of str
        One per row.
    vectors : ndarray of float32, shape [N, D]
        In memory, or mapped from a file.
    meta : mapping
        Provenance as plain values.
    sequence_type : SequenceType
        Sequence type of the records.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    meta: Mapping[str, Any]
    sequence_type: SequenceType

    @property
    def said(self) -> str:
        """``meta`` as text; equal values give equal text."""
        return json.dumps(self.meta, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class Format:
    """A format of files of vectors.

    Parameters
    ----------
    write : callable
        Writes a file atomically.
    read_meta : callable
        ``meta`` of a file of this format; None if it has none.
    read : callable
        Content of a file of this format.
    problem : callable
        Why ids and vectors do not fit into this format; None if they do.
    package : str
        Required package.
    """

    write: Callable[[Path, Content], None]
    read_meta: Callable[[Path], Mapping[str, Any] | None]
    read: Callable[[Path], Content]
    problem: Callable[[Sequence[str], int], str | None]
    package: str = "numpy"


def format_of(path: Path) -> Format:
    """Form of a file, by its suffix.

    Raises
    ------
    UsageError
        No form has this suffix, or what it needs is not installed.
    """
    form = FORMATS.get(path.suffix)
    if form is None:
        raise UsageError(f"{path}: unknown suffix; allowed: a file that ends with {', '.join(FORMATS)}")
    if find_spec(form.package) is None:
        raise UsageError(f"{path}: needs {form.package}; install the extra: pip install 'nucpro[export]'")
    return form


def made_by(path: Path) -> Mapping[str, Any] | None:
    """``meta`` of a file of vectors; None if it has no provenance.

    Raises
    ------
    StoreError
        The file is not one of vectors, or is damaged.
    """
    with _explained(path):
        return FORMATS[path.suffix].read_meta(path)


def read_content(path: Path) -> Content:
    """Read a whole file of vectors, in the format of its suffix.

    Raises
    ------
    UsageError
        Its suffix is not a known format.
    StoreError
        The file is not one of vectors, or is damaged.
    """
    form = format_of(path)
    with _explained(path):
        return form.read(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # readers of other packages raise what they like
        raise StoreError(f"{path}: holds no vectors that can be read ({reason_of(error)})") from error


def _content(ids: Sequence[str], vectors: Any, meta: Mapping[str, Any] | None) -> Content:
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != len(ids):
        raise DataError(f"{counted(len(ids), 'id')} for vectors of shape {rows.shape}")
    kind = (meta or {}).get("kind", SequenceType.PROTEIN)
    return Content(list(ids), rows, meta or {}, SequenceType(kind))


class _Stream(io.RawIOBase):
    """An atomic file as the writers of other packages want one."""

    def __init__(self, target: AtomicFile) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._target.size

    def write(self, data: Any) -> int:
        return self._target.write(memoryview(data).cast("B"))


def _write_pt(path: Path, content: Content) -> None:
    write_vectors(path, content.ids, content.vectors, dict(content.meta), content.sequence_type)


def _read_pt(path: Path) -> Mapping[str, Any] | None:
    return read_meta(path).meta


def _read_whole_pt(path: Path) -> Content:
    kind = read_meta(path).kind
    if kind == "merged":
        raise StoreError(f"{path}: is a merged file; read it with nucpro.read_merged")
    found = read_vectors(path, SequenceType(kind))
    return Content(found.ids, found.vectors, found.meta or {}, SequenceType(kind))


def _pt_problem(ids: Sequence[str], size: int) -> str | None:
    # A row takes about 30 bytes of the pickle beside its id.
    if size + sum(len(name.encode()) + 60 for name in ids) <= SIZE_LIMIT:
        return None
    return f"holds at most {human_size(SIZE_LIMIT)}, and the vectors have {human_size(size)}"


def _write_npz(path: Path, content: Content) -> None:
    with replace_file(path) as target:
        # The last argument is META.
        np.savez(
            _Stream(target), id=np.array(content.ids), vector=content.vectors, nucpro=np.array(content.said)
        )


def _read_npz(path: Path) -> Mapping[str, Any] | None:
    with open_input(path, StoreError) as file, np.load(file, allow_pickle=False) as arrays:
        return _meta_in(arrays)


def _read_whole_npz(path: Path) -> Content:
    with open_input(path, StoreError) as file, np.load(file, allow_pickle=False) as arrays:
        return _content(arrays["id"].tolist(), arrays["vector"], _meta_in(arrays))


def _npz_problem(ids: Sequence[str], _size: int) -> str | None:
    # Each element of an array of text takes as much memory as the longest one.
    longest = max(map(len, ids))
    return (
        f"takes ids of at most {_LONGEST_ID} characters, and one has {longest}"
        if longest > _LONGEST_ID
        else None
    )


def _write_safetensors(path: Path, content: Content) -> None:
    metadata = {META: content.said, "id": json.dumps(content.ids, ensure_ascii=False)}
    write_tensor(path, content.vectors, metadata)


def write_tensor(path: Path, rows: NDArray[np.floating[Any]], metadata: Mapping[str, str]) -> Written:
    """Write a safetensors file of one tensor, ``vector``, which may be mapped from a file.

    As the format is written by its own library, which wants all bytes in memory.

    Parameters
    ----------
    path : Path
        File that is written whole or not at all.
    rows : ndarray of float32 or float16, shape [N, D]
        The tensor.
    metadata : mapping
        Names and texts.

    Returns
    -------
    Written
        Size and SHA-256 of the file.
    """
    bits = 8 * rows.itemsize
    header: dict[str, Any] = {
        "__metadata__": dict(metadata),
        "vector": {"dtype": f"F{bits}", "shape": list(rows.shape), "data_offsets": [0, rows.nbytes]},
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replace_file(path, 8 + len(text) + rows.nbytes) as target:
        target.write(struct.pack("<Q", len(text)))
        target.write(text)
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            block = np.ascontiguousarray(rows[start : start + _ROWS_AT_A_TIME], f"<f{rows.itemsize}")
            target.write(block.data.cast("B"))
    return target.written


def _read_safetensors(path: Path) -> Mapping[str, Any] | None:
    from safetensors import safe_open  # noqa: PLC0415 - not needed by the other forms

    open_input(path, StoreError).close()
    with safe_open(path, framework="numpy") as tensors:
        metadata = tensors.metadata() or {}
    return _meta_in(metadata)


def _read_whole_safetensors(path: Path) -> Content:
    from safetensors import safe_open  # noqa: PLC0415

    open_input(path, StoreError).close()
    with safe_open(path, framework="numpy") as tensors:
        metadata = tensors.metadata() or {}
        return _content(decoded(metadata["id"].encode()), tensors.get_tensor("vector"), _meta_in(metadata))


def _safetensors_problem(ids: Sequence[str], _size: int) -> str | None:
    size = sum(len(json.dumps(name)) + 8 for name in ids)
    return (
        f"takes at most {_LONGEST_HEADER // 10**6} MB of ids, and these have more"
        if size > _LONGEST_HEADER
        else None
    )


def _write_parquet(path: Path, content: Content) -> None:
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    width = content.vectors.shape[1]
    columns = [pa.field("id", pa.string()), pa.field("vector", pa.list_(pa.float32(), width))]
    schema = pa.schema(columns, {META: content.said})
    with (
        replace_file(path) as target,
        pq.ParquetWriter(
            pa.PythonFile(_Stream(target), mode="w"),
            schema,
            compression="zstd",
            compression_level=1,
            # Bytes of equal significance of all numbers are stored together: smaller, and faster to write and
            # to read.
            use_byte_stream_split=["vector.list.element"],
            use_dictionary=False,
            write_statistics=["id"],
        ) as writer,
    ):
        for start in range(0, len(content.ids), _ROWS_AT_A_TIME):
            rows = slice(start, start + _ROWS_AT_A_TIME)
            numbers = pa.array(np.ascontiguousarray(content.vectors[rows]).reshape(-1))
            arrays = [
                pa.array(content.ids[rows], pa.string()),
                pa.FixedSizeListArray.from_arrays(numbers, width),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _read_parquet(path: Path) -> Mapping[str, Any] | None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    with open_input(path, StoreError) as file:
        metadata = pq.read_schema(file).metadata or {}
    return _meta_in(metadata, META.encode())


def _read_whole_parquet(path: Path) -> Content:
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    with open_input(path, StoreError) as file:
        table = pq.read_table(file).combine_chunks()
    numbers = table["vector"].combine_chunks()
    rows = numbers.flatten().to_numpy().reshape(len(table), -1)
    return _content(table["id"].to_pylist(), rows, _meta_in(table.schema.metadata or {}, META.encode()))


def _meta_in(values: Mapping[Any, Any], key: str | bytes = META) -> Mapping[str, Any] | None:
    """``meta`` of a file, as text among its other values; None without one."""
    if key not in values:
        return None
    text = values[key]
    value = decoded(text if isinstance(text, bytes) else str(text).encode())
    if not isinstance(value, dict):
        raise DataError("its meta is not an object")
    return value


FORMATS: dict[str, Format] = {
    ".pt": Format(_write_pt, _read_pt, _read_whole_pt, _pt_problem),
    ".npz": Format(_write_npz, _read_npz, _read_whole_npz, _npz_problem),
    ".parquet": Format(
        _write_parquet, _read_parquet, _read_whole_parquet, lambda _ids, _size: None, "pyarrow"
    ),
    ".safetensors": Format(
        _write_safetensors, _read_safetensors, _read_whole_safetensors, _safetensors_problem
    ),
}
"""Forms of a file of vectors, by suffix."""
