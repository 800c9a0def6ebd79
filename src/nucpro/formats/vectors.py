"""Schemas of the three kinds of ``.pt`` files: checking a value that was read, and making the value to write.

Values come from :mod:`nucpro.formats.pickles` and go, as one :class:`Content`, to
:mod:`nucpro.formats.vectors`, which reads the bytes of the tensors. Unknown keys of a file, or of a DNABERT-S
row, are ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import StoreError, counted, first_few, is_plain
from nucpro.formats.archive import REMEDY, SIZE_LIMIT, Archive, archive_pieces, load_archive, look_at_archive
from nucpro.formats.atomic import Written, replace_file
from nucpro.formats.pickles import Storage, Tensor, dump, load
from nucpro.formats.sequences import DNA_WIDTH, SequenceType

__all__ = [
    "Content",
    "Kind",
    "MergedFile",
    "MergedRows",
    "Meta",
    "Place",
    "Row",
    "Summary",
    "VectorFile",
    "canonical_meta",
    "check_directory",
    "check_ids",
    "content_of",
    "label_of",
    "no_label",
    "read_ids",
    "read_merged",
    "read_merged_rows",
    "read_meta",
    "read_vectors",
    "value_of",
    "write_merged",
    "write_vectors",
]

Kind = Literal["dna", "protein", "merged"]
"""A DNABERT-S file, a protein file, or a merged file."""
Row = Tensor | list[object]
"""One vector: a tensor, or a list of numbers in which runs of floats are arrays."""
Meta = dict[str, object]
"""Plain values: str, int, float, bool, None, and lists and dicts of them with str keys."""

_FLOATS = {"dna": ("float16", "bfloat16", "float32", "float64"), "protein": ("float32",)}
"""Element types of rows. DNABERT-S files of other scripts are used as they are; protein files of any type but float32
are stale, and are recomputed."""
_ID_KEYS: dict[Kind, str] = {"dna": "nucleotide", "protein": "proteins", "merged": "ids"}
_META_DEPTH = 32
_META_VALUES = 100_000
_META_BITS = 2000
_SHOWN = 5
"""Duplicate ids or keys that a message lists."""


@dataclass(frozen=True, slots=True)
class Place:
    """The file that is read or written, and the remedy if it is invalid: for messages."""

    path: Path
    remedy: str = REMEDY

    def error(self, problem: str) -> StoreError:
        """Error that rejects the file."""
        return StoreError(f"{self.path}: {problem}; {self.remedy}")


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a file, with its numbers not read yet.

    ``data`` is one tensor ``[N, D]`` in a merged file, else one row per record. ``label`` is None if the kind
    or the file has none, and a tensor of one element if the file stores it so.
    """

    kind: Kind
    ids: list[str]
    data: Tensor | list[Row]
    width: int
    label: int | Tensor | None
    meta: Meta | None


def content_of(value: object, expected: Kind | None, place: Place) -> Content:
    """Check what a pickle built against the schema of its kind.

    Parameters
    ----------
    value : object
        What :func:`nucpro.formats.pickles.load` returned.
    expected : str or None
        Required kind; None accepts any.
    place : Place
        The file, for messages.

    Raises
    ------
    StoreError
        The value does not follow the schema; the message names the row, what was expected and what was found.
    """
    if not isinstance(value, dict):
        raise place.error(f"holds {_a(value)}, expected a dict")
    kinds: list[Kind] = [kind for kind, key in _ID_KEYS.items() if key in value]
    if len(kinds) != 1 or expected not in {None, kinds[0]}:
        keys = [repr(key) for kind, key in _ID_KEYS.items() if expected in {None, kind}]
        raise place.error(f"has the keys {_listed(list(value))}, expected 'data' and {' or '.join(keys)}")
    kind = kinds[0]
    ids = check_ids(value[_ID_KEYS[kind]], place)
    meta = None if value.get("meta") is None else canonical_meta(value["meta"], place)
    if kind == "merged":
        data, width = _matrix(value.get("data"), len(ids), place)
        # Files that were merged for prediction, not for training, have no class.
        label = _label(value["labels"], place) if "labels" in value else None
        return Content(kind, ids, data, width, label, meta)
    rows = _rows(kind, value.get("data"), ids, place)
    return Content(kind, ids, rows, _common_width(kind, rows, ids, place), None, meta)


def value_of(
    kind: Kind, ids: list[str], width: int, label: int | None, meta: Meta | None
) -> dict[str, object]:
    """Value of a file whose vectors are the rows of storage ``"0"``, in the order of `ids`.

    `meta` must come from :func:`canonical_meta`.
    """
    storage = Storage("0", "float32", len(ids) * width)
    value: dict[str, object] = {_ID_KEYS[kind]: ids}
    rows = [Tensor(storage, offset, (width,), (1,)) for offset in range(0, storage.count, width)]
    if kind == "protein":
        value["data"] = rows
    elif kind == "dna":
        pairs = zip(ids, rows, strict=True)
        value["data"] = [{"label": name, "mean_representation": row} for name, row in pairs]
    else:
        value["data"] = Tensor(storage, 0, (len(ids), width), (width, 1))
        value |= {} if label is None else {"labels": [label]}
    return value if meta is None else {**value, "meta": meta}


def check_ids(ids: object, place: Place) -> list[str]:
    """Return the ids if there is at least one, all are strings without control characters, and none is a duplicate."""
    if not isinstance(ids, list) or not ids:
        raise place.error(f"its ids are {_a(ids)}, expected a list with one str per record")
    for row, name in enumerate(ids):
        if type(name) is not str:
            raise place.error(f"id of row {row} is {_a(name)}, expected a str")
        if not is_plain(name):
            raise place.error(f"id of row {row} holds control characters: {name[:100]!a}")
    if len(set(ids)) != len(ids):
        twice = [name for name, count in Counter(ids).items() if count > 1]
        raise place.error(f"{len(twice)} of its ids are duplicates: {_listed(twice)}")
    return ids


def canonical_meta(meta: object, place: Place) -> Meta:
    """Copy ``meta`` with sorted keys, so that equal content is written as equal bytes.

    Raises
    ------
    StoreError
        A value is not plain, or there are too many or too deeply nested ones.
    """
    if type(meta) is not dict:
        raise place.error(f"meta is {_a(meta)}, expected a dict")
    return cast(Meta, _Plain(place).copy(meta, "meta", _META_DEPTH))


class _Plain:
    """Copies plain values and counts them: a few shared lists could expand to billions."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.left = _META_VALUES

    def copy(self, value: object, name: str, depth: int) -> object:
        """Copy a plain value with sorted keys; `name` is its place in the file."""
        self.left -= 1
        if self.left < 0 or depth < 0:
            limits = f"{_META_VALUES} values, or deeper than {_META_DEPTH} levels"
            raise self.place.error(f"{name} has more than {limits}")
        if type(value) is list:
            return self.copy_list(value, name, depth)
        if type(value) is dict:
            if not all(type(key) is str for key in value):
                raise self.place.error(f"{name} has a key that is no str")
            return {key: self.copy(value[key], f"{name}.{key[:100]}", depth - 1) for key in sorted(value)}
        small = type(value) is int and value.bit_length() < _META_BITS
        if not (small or value is None or type(value) in {str, float, bool}):
            allowed = "str, int, float, bool, None, or a list or dict of them"
            raise self.place.error(f"{name} is {_a(value)}, expected {allowed}")
        return value

    def copy_list(self, values: list[object], name: str, depth: int) -> list[object]:
        """Copy a list, and expand the arrays of floats in it."""
        result: list[object] = []
        for index, value in enumerate(values):
            if isinstance(value, np.ndarray):
                self.left -= value.size
                result += value.tolist()
            else:
                result.append(self.copy(value, f"{name}[{index}]", depth - 1))
        return result


def _rows(kind: Kind, data: object, ids: list[str], place: Place) -> list[Row]:
    """One vector per record; in a DNABERT-S file each is in a dict that repeats the id."""
    if not isinstance(data, list) or len(data) != len(ids):
        raise place.error(
            f"'data' is {_a(data)}, expected a list with one entry for each of the {len(ids)} ids"
        )
    if kind == "protein":
        return data
    return [_dna_row(item, ids[row], row, place) for row, item in enumerate(data)]


def _dna_row(item: object, name: str, row: int, place: Place) -> Row:
    if not isinstance(item, dict) or "mean_representation" not in item:
        expected = "a dict with 'mean_representation'"
        raise place.error(f"row {row} ({name!r}) is {_a(item)}, expected {expected}")
    # The label repeats the id; some scripts omit it.
    label = item.get("label", name)
    if label != name:
        found = repr(label[:100]) if isinstance(label, str) else _a(label)
        raise place.error(f"row {row} has the label {found}, expected its id {name!r}")
    return _single(item["mean_representation"])


def _single(row: object) -> Row:
    """The single row of a matrix of shape [1, D], the output of a model for a batch of one sequence."""
    if isinstance(row, Tensor) and len(row.shape) == 2 and row.shape[0] == 1:
        return Tensor(row.storage, row.offset, row.shape[1:], row.strides[1:])
    if isinstance(row, list) and len(row) == 1 and isinstance(row[0], list):
        return row[0]
    return cast(Row, row)


def _common_width(kind: Kind, rows: list[Row], ids: list[str], place: Place) -> int:
    """Number of values of every row."""
    floats = _FLOATS[kind]
    width = _width(rows[0], floats)
    for number, row in enumerate(rows):
        found = _width(row, floats)
        if found is None:
            expected = "a float32 vector or a list of floats"
            raise place.error(f"row {number} ({ids[number]!r}) is {_a(row)}, expected {expected}")
        if found != width:
            expected = f"{width} as in row 0"
            raise place.error(f"row {number} ({ids[number]!r}) has {found} values, expected {expected}")
    return cast(int, width)


def _width(row: object, floats: Collection[str]) -> int | None:
    """Count the values of a vector of one of these types or a list of floats; None for anything else, or nothing."""
    if isinstance(row, Tensor):
        vector = len(row.shape) == 1 and row.storage.dtype in floats
        return (row.shape[0] or None) if vector else None
    if not isinstance(row, list) or not all(type(part) in {np.ndarray, float} for part in row):
        return None
    return sum(part.size if isinstance(part, np.ndarray) else 1 for part in row) or None


def _matrix(data: object, count: int, place: Place) -> tuple[Tensor, int]:
    """Matrix of a merged file and its number of columns."""
    if not isinstance(data, Tensor) or data.storage.dtype != "float32" or len(data.shape) != 2:
        raise place.error(f"'data' is {_a(data)}, expected a float32 tensor with one row per record")
    rows, width = data.shape
    if rows != count or width == 0:
        raise place.error(f"'data' has the shape {data.shape}, expected one row for each of the {count} ids")
    return data, width


def _label(labels: object, place: Place) -> int | Tensor:
    """The one label, or the tensor of one element that holds it."""
    # NumPy has no bfloat16, and nobody saves a label in it.
    if isinstance(labels, Tensor) and labels.shape in {(), (1,)} and labels.storage.dtype != "bfloat16":
        return labels
    first = labels[0] if isinstance(labels, list) and len(labels) == 1 else labels
    if type(first) is not int or first not in {0, 1}:
        raise place.error(f"'labels' holds {_a(first)}, expected [1] (viral) or [0] (host)")
    return first


def _a(value: object) -> str:
    """Short description of a value."""
    if isinstance(value, Tensor):
        dtype = str(value.storage.dtype)
        return f"{'an' if dtype.startswith('int') else 'a'} {dtype} tensor of shape {value.shape}"
    if isinstance(value, np.ndarray):
        return f"{value.size} floats"
    if isinstance(value, list | tuple | dict | str):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"{type(value).__name__} {value}" if type(value) in {int, bool, float} else type(value).__name__


def _listed(names: Sequence[object]) -> str:
    """List the first few of many names."""
    return first_few([repr(str(name)[:100]) for name in names], _SHOWN)


Matrix = NDArray[np.float32]

_KINDS: dict[SequenceType, Kind] = {SequenceType.DNA: "dna", SequenceType.PROTEIN: "protein"}
_NOT_WRITTEN = "nothing was written: correct what is to be written"
_SHARING_LIMIT = 8
"""Largest size of the matrix, as a multiple of the file's size; rows that share storage need more than one."""
_BLOCK = 1024
"""Rows that are checked at a time, so that the check needs little memory."""


@dataclass(frozen=True, eq=False, repr=False)
class VectorFile:
    """A DNABERT-S or protein file in memory.

    Attributes
    ----------
    ids : list of str
        One per row, without duplicates.
    vectors : ndarray of float32, shape [N, D]
        C-contiguous and finite; a view of the bytes that were read, if the rows are in order there.
    meta : dict or None
        What made the file; None for a file of the original scripts.
    digest : str
        SHA-256 of the file's bytes, in hexadecimal.
    """

    ids: list[str]
    vectors: Matrix
    meta: Meta | None
    digest: str

    def __repr__(self) -> str:
        rows, columns = self.vectors.shape
        return f"<{type(self).__name__}: {counted(rows, 'row')} of {counted(columns, 'column')}{self._more}>"

    @property
    def _more(self) -> str:
        return ""


@dataclass(frozen=True, eq=False, repr=False)
class MergedFile(VectorFile):
    """A merged file in memory.

    Attributes
    ----------
    label : int or None
        1 for viral, 0 for host; one for the whole file. None if the file was merged without a class.
    """

    label: int | None

    @property
    def _more(self) -> str:
        return {1: ", viral", 0: ", host"}.get(
            self.label if self.label is not None else -1, ", without a class"
        )


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
        1 for viral, 0 for host; one for the whole file. None if the file was merged without a class.
    """

    ids: list[str]
    vectors: Matrix
    label: int | None


@dataclass(frozen=True)
class Summary:
    """Metadata of a ``.pt`` file.

    Attributes
    ----------
    kind : {"dna", "protein", "merged"}
        Which of the three schemas it follows.
    count, width : int
        Rows and columns of its matrix.
    meta : dict or None
        What made the file; None for a file of the original scripts.
    has_label : bool
        Whether it has the class of its rows, as only merged files do.
    """

    kind: Kind
    count: int
    width: int
    meta: Meta | None
    has_label: bool


def read_vectors(path: str | Path, sequence_type: SequenceType | str) -> VectorFile:
    """Read a ``_DNABERT_S.pt`` or an ``_ESM.pt`` file of any width.

    Rows may be tensors, in one storage or in one each, or lists of floats, which are rounded to float32. In a
    ``_DNABERT_S.pt`` they may also be float16, bfloat16 or float64, and of shape ``[1, D]``: they are converted.

    Parameters
    ----------
    path : Path
        The file.
    sequence_type : SequenceType
        Which of the two schemas it must follow.

    Returns
    -------
    VectorFile
        Ids, vectors as float32 ``[N, width]``, ``meta`` and the SHA-256 of the file.

    Raises
    ------
    StoreError
        The file cannot be read, is damaged, contains code to run, or does not follow the schema: the message
        names the row and its id, what was expected and what was found.
    """
    return _read(Path(path), _KINDS[SequenceType(sequence_type)])[0]


def read_merged(path: str | Path) -> MergedFile:
    """Read a ``_merged.pt`` file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    MergedFile
        Ids, rows as float32 ``[N, width]``, label, ``meta`` and the SHA-256 of the file.

    Raises
    ------
    StoreError
        As in :func:`read_vectors`.
    """
    file, label = _read(Path(path), "merged")
    return MergedFile(file.ids, file.vectors, file.meta, file.digest, label)


def label_of(merged: MergedFile | MergedRows, path: Path) -> int:
    """Class of a merged file that must have one: 1 for viral, 0 for host.

    Parameters
    ----------
    merged : MergedFile or MergedRows
        Contents of the file.
    path : Path
        The file, for the message.

    Returns
    -------
    int
        1 or 0.

    Raises
    ------
    StoreError
        It was merged without a class; the message contains the remedy.
    """
    if merged.label is None:
        raise StoreError(no_label(path))
    return merged.label


def no_label(path: Path) -> str:
    """Error for a merged file without a class, with the remedy.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        The message.
    """
    return (
        f"{path}: has no 'labels': it was merged without a class; run nucpro extract DATA, which merges files of its "
        "selection again, or merge it with data_type='viral' or 'host', or move it out of the data folder"
    )


def read_merged_rows(path: Path, choose: Callable[[int], Sequence[int]]) -> MergedRows:
    """Read a few rows of a ``_merged.pt`` file, much faster than all of it.

    Directory, ids and label are checked as in :func:`read_merged`; numbers are neither checked against the
    archive's CRC-32 nor for being finite.

    Parameters
    ----------
    path : Path
        The file.
    choose : callable
        Called with the number of rows; returns the indices of those to read, from 0, in order.

    Returns
    -------
    MergedRows
        Ids, label and the chosen rows, float32 ``[K, width]``.

    Raises
    ------
    StoreError
        As in :func:`read_vectors`, except for damage and values inside the matrix.
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


def read_meta(path: str | Path) -> Summary:
    """Read the metadata of a ``.pt`` file: directory and pickle are checked, storages are not read.

    Parameters
    ----------
    path : str or Path
        A file of any kind.

    Returns
    -------
    Summary
        Kind, number of rows, width and ``meta``.

    Raises
    ------
    StoreError
        As in :func:`read_vectors`, except for damage and values inside the storages.
    """
    with look_at_archive(Path(path)) as archive:
        content = _content(archive, None)
    has_label = content.label is not None
    return Summary(content.kind, len(content.ids), content.width, content.meta, has_label)


def read_ids(path: Path) -> list[str]:
    """Ids of a ``.pt`` file of any kind, in the order of its rows; checked as by :func:`read_meta`.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of str
        The ids.

    Raises
    ------
    StoreError
        As in :func:`read_meta`.
    """
    with look_at_archive(path) as archive:
        return _content(archive, None).ids


def rows_unlike(
    merged: MergedFile, source: VectorFile, sequence_type: SequenceType
) -> tuple[list[str], list[str]]:
    """Compare the columns of one sequence type in merged rows, bit by bit, with the vectors of the same ids.

    Parameters
    ----------
    merged : MergedFile
        The rows.
    source : VectorFile
        The file that these columns come from.
    sequence_type : SequenceType
        DNA for the first columns, protein for the rest.

    Returns
    -------
    list of str
        Ids that the source lacks; if there are any, nothing is compared.
    list of str
        Ids whose rows differ.
    """
    row_of = {name: row for row, name in enumerate(source.ids)}
    absent = [name for name in merged.ids if name not in row_of]
    if absent:
        return absent, []
    first, others = np.split(merged.vectors, [DNA_WIDTH], axis=1)
    expected = source.vectors[[row_of[name] for name in merged.ids]]
    wrong = (_bits(first if sequence_type is SequenceType.DNA else others) != _bits(expected)).any(axis=1)
    return [], [name for name, differs in zip(merged.ids, wrong, strict=True) if differs]


def _bits(matrix: Matrix) -> NDArray[np.uint32]:
    return np.ascontiguousarray(matrix).view(np.uint32)


def check_directory(path: str | Path) -> None:
    """Check that a file is a complete archive of ``torch.save``, by its directory alone.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    StoreError
        The file cannot be read, was truncated, or is not such an archive.
    """
    with look_at_archive(Path(path)):
        pass


def write_vectors(
    path: str | Path, ids: list[str], vectors: Matrix, meta: Meta | None, sequence_type: SequenceType | str
) -> Written:
    """Write a ``_DNABERT_S.pt`` or an ``_ESM.pt`` file; equal content gives equal bytes.

    Parameters
    ----------
    path : Path
        Final name; the file gets it when it is complete, see :func:`nucpro.formats.replace_file`.
    ids : list of str
        One per row, without duplicates.
    vectors : ndarray of float32, shape [N, D]
        Finite. Written without a copy where it is C-contiguous.
    meta : dict or None
        Plain values: str, int, float, bool, None, and lists and dicts of them with str keys. Written with
        sorted keys.
    sequence_type : SequenceType
        Which of the two schemas to follow.

    Returns
    -------
    Written
        Size and SHA-256 of the file.

    Raises
    ------
    StoreError
        An argument is not as described, or the file cannot be written.
    """
    return _write(_KINDS[SequenceType(sequence_type)], Path(path), ids, vectors, meta)


def write_merged(
    path: str | Path, ids: list[str], vectors: Matrix, meta: Meta | None, label: int | None
) -> Written:
    """Write a ``_merged.pt`` file; see :func:`write_vectors`.

    Parameters
    ----------
    label : int or None
        1 for viral, 0 for host; None for rows without a class.

    Returns
    -------
    Written
        Size and SHA-256 of the file.
    """
    if label not in {0, 1, None}:
        problem = f"the label to write is {label!r}, expected 1 (viral), 0 (host) or None"
        raise Place(Path(path), _NOT_WRITTEN).error(problem)
    return _write("merged", Path(path), ids, vectors, meta, None if label is None else int(label))


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
        """Label of a merged file; None if it, or the kind, has none."""
        if not isinstance(label, Tensor):
            return label
        value = self.array(label).item()
        if value not in (0, 1):
            raise self.place.error(f"'labels' holds {value}, expected 1 (viral) or 0 (host)")
        return int(value)

    def matrix(self, content: Content) -> Matrix:
        """All vectors, without a copy if they are stored in order."""
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
    """Matrix whose rows are these, in order; None if they are not stored like that."""
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
