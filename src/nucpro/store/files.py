"""Reading and writing DNABERT-S, protein and merged files: ids, one float32 matrix, and what made them.

Files come from this module or, years before it, from ``torch.save`` in the original scripts; both forms are
read. Matrices come from the encoders and the merge, and go to merging, validation and training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import StoreError
from nucpro.layout import DNA_WIDTH, Side
from nucpro.store.archive import SIZE_LIMIT, Archive, archive_pieces, load_archive, look_at_archive
from nucpro.store.atomic import Written, replace_file
from nucpro.store.emitter import dump
from nucpro.store.pickles import Tensor, load
from nucpro.store.schema import (
    Content,
    Kind,
    Meta,
    Place,
    Row,
    canonical_meta,
    check_ids,
    content_of,
    value_of,
)

__all__ = [
    "MergedFile",
    "MergedRows",
    "Summary",
    "VectorFile",
    "check_directory",
    "label_of",
    "no_label",
    "read_ids",
    "read_merged",
    "read_merged_rows",
    "read_meta",
    "read_vectors",
    "write_merged",
    "write_vectors",
]

Matrix = NDArray[np.float32]

_KINDS: dict[Side, Kind] = {Side.DNA: "dna", Side.PROTEIN: "protein"}
_NOT_WRITTEN = "nothing was written: correct what is to be written"
_SHARING_LIMIT = 8
"""Times the file's size that its matrix may take; rows that share their numbers need more than one."""
_BLOCK = 1024
"""Rows that are checked at a time, so that the check needs little memory."""


@dataclass(frozen=True, eq=False)
class VectorFile:
    """A DNABERT-S or protein file in memory.

    Attributes
    ----------
    ids : list of str
        One a row, each once.
    vectors : ndarray of float32, shape [N, D]
        C-contiguous and finite; a view of the bytes that were read where the rows lie there in order.
    meta : dict or None
        What made the file; None for a file of the original scripts.
    digest : str
        SHA-256 of the file's bytes, in hexadecimal.
    """

    ids: list[str]
    vectors: Matrix
    meta: Meta | None
    digest: str


@dataclass(frozen=True, eq=False)
class MergedFile(VectorFile):
    """A merged file in memory.

    Attributes
    ----------
    label : int or None
        1 for viral, 0 for host; one for the whole file. None where the file was merged without a class.
    """

    label: int | None


@dataclass(frozen=True, eq=False)
class MergedRows:
    """Some rows of a merged file.

    Attributes
    ----------
    ids : list of str
        Of these rows.
    vectors : ndarray of float32, shape [N, D]
        These rows.
    label : int or None
        1 for viral, 0 for host; one for the whole file. None where the file was merged without a class.
    """

    ids: list[str]
    vectors: Matrix
    label: int | None


@dataclass(frozen=True)
class Summary:
    """What a ``.pt`` file says about itself.

    Attributes
    ----------
    kind : {"dna", "protein", "merged"}
        Which of the three schemas it follows.
    count, width : int
        Rows and columns of its matrix.
    meta : dict or None
        What made the file; None for a file of the original scripts.
    has_label : bool
        Whether it says the class of its rows, as only merged files do.
    """

    kind: Kind
    count: int
    width: int
    meta: Meta | None
    has_label: bool


def read_vectors(path: Path, side: Side) -> VectorFile:
    """Read a ``_DNABERT_S.pt`` or an ``_ESM.pt`` file of any width.

    Rows may be tensors, in one storage or in one each, or lists of floats, which are rounded to float32. In a
    ``_DNABERT_S.pt`` they may also be float16, bfloat16 or float64, and of shape ``[1, D]``: they are converted.

    Parameters
    ----------
    path : Path
        The file.
    side : Side
        Which of the two schemas it must follow.

    Raises
    ------
    StoreError
        The file cannot be read, is damaged, wants to run something, or is not of the schema: the message
        names the row and its id, what was expected and what was found.
    """
    return _read(path, _KINDS[side])[0]


def read_merged(path: Path) -> MergedFile:
    """Read a ``_merged.pt`` file.

    Raises
    ------
    StoreError
        As in :func:`read_vectors`.
    """
    file, label = _read(path, "merged")
    return MergedFile(file.ids, file.vectors, file.meta, file.digest, label)


def label_of(merged: MergedFile | MergedRows, path: Path) -> int:
    """Class of a merged file that must have one: 1 for viral, 0 for host.

    Raises
    ------
    StoreError
        It was merged without a class; the message says how to give it one.
    """
    if merged.label is None:
        raise StoreError(no_label(path))
    return merged.label


def no_label(path: Path) -> str:
    """Say that a merged file has no class, and how to give it one."""
    return (
        f"{path}: has no 'labels': it was merged without a class; run nucpro extract, which merges files of its "
        "selection again, or merge it with data_type='viral' or 'host', or move it out of the data folder"
    )


def read_merged_rows(path: Path, choose: Callable[[int], Sequence[int]]) -> MergedRows:
    """Read a few rows of a ``_merged.pt`` file, to look at: much faster than all of it.

    Directory, ids and label are checked as in :func:`read_merged`; numbers are neither checked against the
    archive's CRC-32 nor for being finite.

    Parameters
    ----------
    path : Path
        The file.
    choose : callable
        Gets the number of rows and gives those to read, from 0, in the order in which they are wanted.

    Raises
    ------
    StoreError
        As in :func:`read_vectors`, but for damage and values inside the matrix.
    """
    with look_at_archive(path) as archive:
        content = _content(archive, "merged")
        assert isinstance(content.data, Tensor)
        rows = list(choose(len(content.ids)))
        label = _Storages(archive).label(content.label)
        vectors = _rows_of(archive, content.data, rows)
    return MergedRows([content.ids[row] for row in rows], vectors, label)


def _rows_of(archive: Archive, matrix: Tensor, rows: Sequence[int]) -> Matrix:
    """Rows of a float32 matrix, each read on its own, with as many numbers as its columns span."""
    down, right = matrix.strides
    width = matrix.shape[1]
    span = (width - 1) * right + 1
    vectors = np.empty((len(rows), width), np.float32)
    for place, row in enumerate(rows):
        start = 4 * (matrix.offset + row * down)
        piece = archive.piece(f"data/{matrix.storage.key}", start, 4 * span)
        vectors[place] = np.frombuffer(piece, "<f4")[::right]
    return vectors


def read_meta(path: Path) -> Summary:
    """Look at a ``.pt`` file without its storages: directory and pickle are checked, numbers are not.

    Raises
    ------
    StoreError
        As in :func:`read_vectors`, but for damage and values inside the storages.
    """
    with look_at_archive(path) as archive:
        content = _content(archive, None)
    has_label = content.label is not None
    return Summary(content.kind, len(content.ids), content.width, content.meta, has_label)


def read_ids(path: Path) -> list[str]:
    """Ids of a ``.pt`` file of any kind, in the order of its rows; checked as by :func:`read_meta`.

    Raises
    ------
    StoreError
        As in :func:`read_meta`.
    """
    with look_at_archive(path) as archive:
        return _content(archive, None).ids


def rows_unlike(merged: MergedFile, source: VectorFile, side: Side) -> tuple[list[str], list[str]]:
    """Compare one side of merged rows, bit by bit, with the vectors of the same ids.

    Parameters
    ----------
    merged : MergedFile
        The rows.
    source : VectorFile
        Where their columns of that side come from.
    side : Side
        DNA for the first columns, protein for the others.

    Returns
    -------
    list of str
        Ids that the source lacks; where there are any, nothing is compared.
    list of str
        Ids whose rows differ.
    """
    row_of = {name: row for row, name in enumerate(source.ids)}
    absent = [name for name in merged.ids if name not in row_of]
    if absent:
        return absent, []
    first, others = np.split(merged.vectors, [DNA_WIDTH], axis=1)
    expected = source.vectors[[row_of[name] for name in merged.ids]]
    wrong = (_bits(first if side is Side.DNA else others) != _bits(expected)).any(axis=1)
    return [], [name for name, differs in zip(merged.ids, wrong, strict=True) if differs]


def _bits(matrix: Matrix) -> NDArray[np.uint32]:
    return np.ascontiguousarray(matrix).view(np.uint32)


def check_directory(path: Path) -> None:
    """Check that a file is a complete archive of ``torch.save``, by its directory alone.

    Raises
    ------
    StoreError
        The file cannot be read, was cut off, or is no such archive.
    """
    with look_at_archive(path):
        pass


def write_vectors(path: Path, ids: list[str], vectors: Matrix, meta: Meta | None, side: Side) -> Written:
    """Write a ``_DNABERT_S.pt`` or an ``_ESM.pt`` file; equal content gives equal bytes.

    Parameters
    ----------
    path : Path
        Final name; the file appears there when it is complete, see :func:`nucpro.store.replace_file`.
    ids : list of str
        One a row, each once.
    vectors : ndarray of float32, shape [N, D]
        Finite. Written without a copy where it is C-contiguous.
    meta : dict or None
        Plain values: str, int, float, bool, None, and lists and dicts of them with str keys. Written with
        sorted keys.
    side : Side
        Which of the two schemas to follow.

    Raises
    ------
    StoreError
        An argument is not as described, or the file cannot be written.
    """
    return _write(_KINDS[side], path, ids, vectors, meta)


def write_merged(
    path: Path, ids: list[str], vectors: Matrix, meta: Meta | None, label: int | None
) -> Written:
    """Write a ``_merged.pt`` file; see :func:`write_vectors`.

    Parameters
    ----------
    label : int or None
        1 for viral, 0 for host; None for rows without a class.
    """
    if label not in {0, 1, None}:
        problem = f"the label to write is {label!r}, expected 1 (viral), 0 (host) or None"
        raise Place(path, _NOT_WRITTEN).error(problem)
    return _write("merged", path, ids, vectors, meta, None if label is None else int(label))


def _read(path: Path, kind: Kind) -> tuple[VectorFile, int | None]:
    archive, digest = load_archive(path)
    content = _content(archive, kind)
    storages = _Storages(archive)
    label = storages.label(content.label)
    vectors = storages.matrix(content)
    _check_finite(vectors, content.ids, storages.place)
    return VectorFile(content.ids, vectors, content.meta, digest), label


def _content(archive: Archive, kind: Kind | None) -> Content:
    value = load(archive.read("data.pkl"), archive.storage_sizes, str(archive.path))
    return content_of(value, kind, Place(archive.path))


class _Storages:
    """Numbers of an archive's storages; each storage is read and checked once."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.place = Place(archive.path)
        self.read: dict[str, memoryview] = {}

    def array(self, tensor: Tensor) -> NDArray[np.generic]:
        """Elements of a tensor, as a view of the bytes that were read; float32 for bfloat16, which NumPy lacks."""
        storage = tensor.storage
        if storage.key not in self.read:
            self.read[storage.key] = self.archive.read(f"data/{storage.key}")
        is_brain_float = storage.dtype == "bfloat16"
        dtype = np.dtype("uint16" if is_brain_float else storage.dtype).newbyteorder("<")
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        elements: NDArray[np.generic] = np.ndarray(
            tensor.shape, dtype, self.read[storage.key], tensor.offset * dtype.itemsize, strides
        )
        if is_brain_float:
            # The upper half of a float32.
            return (elements.astype(np.uint32) << 16).view(np.float32)
        return elements

    def label(self, label: int | Tensor | None) -> int | None:
        """Label of a merged file; None where it, or the kind, has none."""
        if not isinstance(label, Tensor):
            return label
        value = self.array(label).item()
        if value not in (0, 1):
            raise self.place.error(f"'labels' holds {value}, expected 1 (viral) or 0 (host)")
        return int(value)

    def matrix(self, content: Content) -> Matrix:
        """All vectors, without a copy where they lie in order."""
        claimed = len(content.ids) * content.width * 4
        if claimed > _SHARING_LIMIT * self.archive.size:
            raise self.place.error(f"its vectors claim {claimed} bytes, the file has {self.archive.size}")
        whole = content.data if isinstance(content.data, Tensor) else _joined(content.data)
        # A float too large for float32 becomes infinity, which the check of finite values reports by its row.
        with np.errstate(over="ignore", invalid="ignore"):
            if whole is not None:
                return np.require(self.array(whole), np.float32, ["C", "A"])
            assert isinstance(content.data, list)
            vectors = np.empty((len(content.ids), content.width), np.float32)
            for index, row in enumerate(content.data):
                vectors[index] = self.array(row) if isinstance(row, Tensor) else _joined_floats(row)
        return vectors


def _joined(rows: list[Row]) -> Tensor | None:
    """Matrix that the rows are the rows of, in order; None where they do not lie like that."""
    first = rows[0]
    if not isinstance(first, Tensor):
        return None
    width = first.shape[0]
    for index, row in enumerate(rows):
        if not isinstance(row, Tensor) or row.storage is not first.storage or row.strides != (1,):
            return None
        if row.offset != first.offset + index * width:
            return None
    return Tensor(first.storage, first.offset, (len(rows), width), (width, 1))


def _joined_floats(row: list[object]) -> NDArray[np.float64]:
    """Numbers of one list, whose parts are floats and arrays of floats."""
    return np.concatenate([np.atleast_1d(cast(NDArray[np.float64], part)) for part in row])


def _check_finite(vectors: Matrix, ids: list[str], place: Place) -> None:
    for start in range(0, len(vectors), _BLOCK):
        finite = np.isfinite(vectors[start : start + _BLOCK])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            value = vectors[start + row, column]
            name = f"row {start + row} ({ids[start + row]!r})"
            raise place.error(f"{name} holds {value} at column {column}, expected finite float32 values")


def _write(
    kind: Kind, path: Path, ids: list[str], vectors: Matrix, meta: Meta | None, label: int | None = None
) -> Written:
    place = Place(path, _NOT_WRITTEN)
    check_ids(ids, place)
    _check_matrix(vectors, ids, place)
    plain = None if meta is None else canonical_meta(meta, place)
    pickle = dump(value_of(kind, ids, vectors.shape[1], label, plain))
    if len(pickle) + vectors.nbytes > SIZE_LIMIT:
        raise place.error(f"{len(ids)} rows need {vectors.nbytes} bytes, a file holds at most {SIZE_LIMIT}")
    _check_finite(vectors, ids, place)
    pieces = archive_pieces(pickle, np.ascontiguousarray(vectors, "<f4").data.cast("B"))
    with replace_file(path, sum(map(len, pieces))) as target:
        for piece in pieces:
            target.write(piece)
    return target.written


def _check_matrix(vectors: Matrix, ids: list[str], place: Place) -> None:
    found = f"{vectors.dtype} of shape {vectors.shape}"
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(ids) or vectors.shape[1] == 0:
        raise place.error(f"its vectors are {found}, expected float32 of shape ({len(ids)}, D)")
