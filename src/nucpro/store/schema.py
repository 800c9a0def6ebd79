"""What the three kinds of ``.pt`` files hold: the check of a value that was read, and the value to write.

Values come from :mod:`nucpro.store.pickles` and go, as one :class:`Content`, to :mod:`nucpro.store.files`,
which knows the bytes behind the tensors. Keys of a file, or of a DNABERT-S row, that are not known here are
left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from nucpro.errors import StoreError
from nucpro.store.archive import REMEDY
from nucpro.store.pickles import Storage, Tensor
from nucpro.text import first_few, is_plain

__all__ = ["Content", "Kind", "Meta", "Place", "Row", "canonical_meta", "check_ids", "content_of", "value_of"]

Kind = Literal["dna", "protein", "merged"]
"""A DNABERT-S file, a protein file, or a merged file."""
Row = Tensor | list[object]
"""One vector: a tensor, or a list of numbers in which arrays stand for runs of floats."""
Meta = dict[str, object]
"""Plain values: str, int, float, bool, None, and lists and dicts of them with str keys."""

_FLOATS = {"dna": ("float16", "bfloat16", "float32", "float64"), "protein": ("float32",)}
"""Element types of rows. DNABERT-S files come from the scripts of many people and are used as they are; protein files
of another type than ours are outdated, and are made again."""
_ID_KEYS: dict[Kind, str] = {"dna": "nucleotide", "protein": "proteins", "merged": "ids"}
_META_DEPTH = 32
_META_VALUES = 100_000
_META_BITS = 2000
_SHOWN = 5
"""Duplicate ids or keys that a message lists."""


@dataclass(frozen=True, slots=True)
class Place:
    """The file that is read or written, and what to do when it is not as it must be: for messages."""

    path: Path
    remedy: str = REMEDY

    def error(self, problem: str) -> StoreError:
        """Give the error that refuses the file."""
        return StoreError(f"{self.path}: {problem}; {self.remedy}")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, with its numbers still where they are.

    ``data`` is one tensor ``[N, D]`` in a merged file, else one row a record. ``label`` is None where the
    kind or the file has none, and a tensor of one element where the file holds it so.
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
        What :func:`nucpro.store.pickles.load` returned.
    expected : str or None
        Kind that the file must be; None takes what it is.
    place : Place
        The file, for messages.

    Raises
    ------
    StoreError
        The value is not of the schema; the message names the row, what was expected and what was found.
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
        # Files that were merged to be predicted, not to be trained on, have no class.
        label = _label(value["labels"], place) if "labels" in value else None
        return Content(kind, ids, data, width, label, meta)
    rows = _rows(kind, value.get("data"), ids, place)
    return Content(kind, ids, rows, _common_width(kind, rows, ids, place), None, meta)


def value_of(
    kind: Kind, ids: list[str], width: int, label: int | None, meta: Meta | None
) -> dict[str, object]:
    """Give the value of a file whose vectors are the rows of storage ``"0"``, in the order of `ids`.

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
    """Give the ids back if there are some, all are strings without controls and none is there twice."""
    if not isinstance(ids, list) or not ids:
        raise place.error(f"its ids are {_a(ids)}, expected a list with one str a record")
    for row, name in enumerate(ids):
        if type(name) is not str:
            raise place.error(f"id of row {row} is {_a(name)}, expected a str")
        if not is_plain(name):
            raise place.error(f"id of row {row} holds control characters: {name[:100]!a}")
    if len(set(ids)) != len(ids):
        twice = [name for name, count in Counter(ids).items() if count > 1]
        raise place.error(f"{len(twice)} of its ids are there more than once: {_listed(twice)}")
    return ids


def canonical_meta(meta: object, place: Place) -> Meta:
    """Copy ``meta`` with sorted keys, so that equal content is written as equal bytes.

    Raises
    ------
    StoreError
        A value is not plain, or there are more or deeper ones than a description of a file can need.
    """
    if type(meta) is not dict:
        raise place.error(f"meta is {_a(meta)}, expected a dict")
    return cast(Meta, _Plain(place).copy(meta, "meta", _META_DEPTH))


class _Plain:
    """Copies plain values and counts them: a few shared lists could stand for billions."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.left = _META_VALUES

    def copy(self, value: object, name: str, depth: int) -> object:
        """Copy a plain value with sorted keys; `name` is its place in the file."""
        self.left -= 1
        if self.left < 0 or depth < 0:
            limits = f"{_META_VALUES} values, or deeper than {_META_DEPTH} levels"
            raise self.place.error(f"{name} goes on for more than {limits}")
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
        """Copy a list, and take the arrays in it apart that stand for runs of floats."""
        result: list[object] = []
        for index, value in enumerate(values):
            if isinstance(value, np.ndarray):
                self.left -= value.size
                result += value.tolist()
            else:
                result.append(self.copy(value, f"{name}[{index}]", depth - 1))
        return result


def _rows(kind: Kind, data: object, ids: list[str], place: Place) -> list[Row]:
    """Give one vector a record; in a DNABERT-S file each lies in a dict that repeats the id."""
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
    # It repeats the id; some scripts leave it out.
    label = item.get("label", name)
    if label != name:
        found = repr(label[:100]) if isinstance(label, str) else _a(label)
        raise place.error(f"row {row} has the label {found}, expected its id {name!r}")
    return _single(item["mean_representation"])


def _single(row: object) -> Row:
    """Take the one row out of a matrix of shape [1, D], as a model gives it for a batch of one sequence."""
    if isinstance(row, Tensor) and len(row.shape) == 2 and row.shape[0] == 1:
        return Tensor(row.storage, row.offset, row.shape[1:], row.strides[1:])
    if isinstance(row, list) and len(row) == 1 and isinstance(row[0], list):
        return row[0]
    return cast(Row, row)


def _common_width(kind: Kind, rows: list[Row], ids: list[str], place: Place) -> int:
    """Give the number of values of every row."""
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
    """Give the matrix of a merged file and its number of columns."""
    if not isinstance(data, Tensor) or data.storage.dtype != "float32" or len(data.shape) != 2:
        raise place.error(f"'data' is {_a(data)}, expected a float32 tensor with one row a record")
    rows, width = data.shape
    if rows != count or width == 0:
        raise place.error(f"'data' has the shape {data.shape}, expected one row for each of the {count} ids")
    return data, width


def _label(labels: object, place: Place) -> int | Tensor:
    """Give the one label, or the tensor of one element that holds it."""
    # NumPy has no bfloat16, and nobody saves a label in it.
    if isinstance(labels, Tensor) and labels.shape in {(), (1,)} and labels.storage.dtype != "bfloat16":
        return labels
    first = labels[0] if isinstance(labels, list) and len(labels) == 1 else labels
    if type(first) is not int or first not in {0, 1}:
        raise place.error(f"'labels' holds {_a(first)}, expected [1] (viral) or [0] (host)")
    return first


def _a(value: object) -> str:
    """Say in a few words what a value is."""
    if isinstance(value, Tensor):
        return f"a {value.storage.dtype} tensor of shape {value.shape}"
    if isinstance(value, np.ndarray):
        return f"{value.size} floats"
    if isinstance(value, list | tuple | dict | str):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"{type(value).__name__} {value}" if type(value) in {int, bool, float} else type(value).__name__


def _listed(names: Sequence[object]) -> str:
    """List the first few of many names."""
    return first_few([repr(str(name)[:100]) for name in names], _SHOWN)
