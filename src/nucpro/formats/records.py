"""The one format for records: a JSON object with its own SHA-256 checksum, read through a schema.

All state in a folder is written here and read back as a dataclass whose values have the type, range and size
that their annotations allow. A record may be damaged, or forged with a valid checksum; both raise the same
error. Earlier versions wrote most records without a checksum: these are read too, and :class:`Kept` marks
them, because their content must be verified once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from nucpro.errors import RecordError, shortened
from nucpro.formats.atomic import Written, write_bytes
from nucpro.formats.opening import UNKNOWN, looks_like, open_input, problem_of

__all__ = [
    "Count",
    "Digest",
    "Kept",
    "Matching",
    "Name",
    "Within",
    "checked",
    "decoded",
    "document",
    "parsed",
    "part_of",
    "read_record",
    "unsealed",
    "write_record",
]

Record = TypeVar("Record")

CHECKSUM = "sha256"
"""Key of the checksum in a record."""
_LARGEST = 1 << 30
"""Largest record in bytes: a checkpoint of 100,000 files has a tenth of that."""
_SHOWN = 60


@dataclass(frozen=True)
class Within:
    """Range of a number, or of the length of a text, list or object; both ends are allowed."""

    low: float
    high: float

    def problem_of(self, value: Any) -> str | None:
        """What is expected instead of a value; None where it fits."""
        what, found = ("", value) if isinstance(value, int | float) else ("a length of ", len(value))
        return None if self.low <= found <= self.high else f"{what}{self.low} to {self.high}"


@dataclass(frozen=True)
class Matching:
    """Form of a text, as a regular expression that it must match as a whole."""

    form: str

    def problem_of(self, value: Any) -> str | None:
        """What is expected instead of a value; None where it fits."""
        return None if re.fullmatch(self.form, value) else f"the form {self.form}"


Count = Annotated[int, Within(0, 1 << 53)]
"""A count, or a number of bytes."""
Digest = Annotated[str, Matching("[0-9a-f]{64}")]
"""SHA-256 in hexadecimal."""
Name = Annotated[str, Within(1, 4096)]
"""The name of a file, a path or a model."""


@dataclass(frozen=True)
class Kept(Generic[Record]):
    """A record as it was read.

    Parameters
    ----------
    content : dataclass
        Its content.
    is_sealed : bool
        False for a record of an earlier version, which has no checksum.
    """

    content: Record
    is_sealed: bool


def write_record(path: Path, content: object, *, sort_keys: bool = False, compact: bool = False) -> Written:
    """Write a record whole or not at all; see :func:`document` and :func:`nucpro.formats.replace_file`."""
    return write_bytes(path, document(content, sort_keys=sort_keys, compact=compact))


def document(content: object, *, sort_keys: bool = False, compact: bool = False) -> bytes:
    """Text of a record: UTF-8, one value per line, the checksum last.

    Parameters
    ----------
    content : dataclass or mapping
        Plain values.
    sort_keys : bool
        Sort by name, for content whose order has no meaning.
    compact : bool
        Write everything into one line.
    """
    plain = asdict(cast(Any, content)) if is_dataclass(content) else dict(cast(Mapping[str, Any], content))
    sealed = {**plain, CHECKSUM: _checksum_of(plain)}
    form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 1}
    return (json.dumps(sealed, ensure_ascii=False, sort_keys=sort_keys, **form) + "\n").encode()


def read_record(path: Path, kind: type[Record], what: str, remedy: str) -> Kept[Record] | None:
    """Read a record.

    Parameters
    ----------
    path : Path
        Its path.
    kind : type
        The dataclass that it must be.
    what : str
        What it is, for the message: ``the record of a download``.
    remedy : str
        What to do if it cannot be used.

    Returns
    -------
    Kept or None
        None if there is no such file.

    Raises
    ------
    RecordError
        It cannot be read, is damaged, or does not follow `kind`.
    """
    if not os.path.lexists(path):
        return None
    try:
        plain, is_sealed = unsealed(_bytes_of(path))
        return Kept(checked(kind, plain), is_sealed)
    except ValueError as problem:
        raise RecordError(f"{path}: {what} is damaged ({problem}); {remedy}") from problem
    except OSError as failure:
        raise RecordError(f"{path}: {problem_of(path, failure)}") from failure


def unsealed(raw: bytes) -> tuple[dict[str, Any], bool]:
    """Content of a record without its checksum, and whether it has one.

    Raises
    ------
    ValueError
        It is not a JSON object, or its checksum does not match.
    """
    content = decoded(raw)
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_short(content)}, expected an object")
    checksum = content.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum_of(content):
        raise ValueError("its checksum does not match its content")
    return content, checksum is not None


def _bytes_of(path: Path) -> bytes:
    with open_input(path, RecordError) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise ValueError(f"it has {size} bytes, a record has at most {_LARGEST}")
        return file.read()


def decoded(raw: bytes) -> Any:
    """Value that JSON holds.

    Raises
    ------
    ValueError
        It is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        looks = looks_like(raw)
        raise ValueError(
            f"it is not JSON: {error}{'' if looks in ('JSON', UNKNOWN) else f'; it is {looks}'}"
        ) from error


def parsed(raw: bytes) -> dict[str, Any]:
    """Object that JSON holds; empty if it is damaged or not an object; see :func:`decoded`."""
    try:
        content = decoded(raw)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def part_of(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Object in an object that nobody checked; empty if there is none."""
    part = content.get(name)
    return part if isinstance(part, Mapping) else {}


def _checksum_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def checked(kind: Any, value: object, place: str = "") -> Any:
    """Convert a value of JSON to a type: a dataclass from its fields, lists, objects and plain values.

    Parameters
    ----------
    kind : type
        A dataclass, ``list[…]``, ``tuple[…]``, ``dict[str, …]``, a union, ``Literal``, int, float, str, bool,
        None or ``Any``; annotated with :class:`Within` or :class:`Matching` if not every value is allowed.
    value
        What was decoded.
    place : str
        Its place in the record, for the message.

    Raises
    ------
    ValueError
        The value is of another type, out of range, or too long; unknown or missing entries of an object.
    """
    return _check_of(kind)(value, place)


_Check = Callable[[Any, str], Any]
"""Converts a value to its type, or raises with the place of the value in the record."""


@cache
def _check_of(kind: Any) -> _Check:
    """Check of a type, made once: a checkpoint has hundreds of thousands of values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _ruled(arguments[0], arguments[1:])
    if kind is Any:
        return lambda value, place: value
    if is_dataclass(kind):
        return _object(kind)
    return _FORMS[origin](kind) if origin in _FORMS else partial(_plain, NoneType if kind is None else kind)


def _ruled(kind: Any, rules: Sequence[Any]) -> _Check:
    check = _check_of(kind)

    def ruled(value: Any, place: str) -> Any:
        found = check(value, place)
        for rule in rules:
            if problem := rule.problem_of(found):
                _refuse(place, value, problem)
        return found

    return ruled


def _object(kind: Any) -> _Check:
    types = get_type_hints(kind, include_extras=True)
    checks = {one.name: _check_of(types[one.name]) for one in fields(kind)}
    needed = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}

    def made(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            _refuse(place, value, "an object")
        if not needed <= value.keys() <= checks.keys():
            odd = sorted((needed - value.keys()) | (value.keys() - checks.keys()))
            raise ValueError(f"{place or 'it'} has missing or unknown entries: {_short(', '.join(odd))}")
        start = f"{place}." if place else ""
        return kind(**{name: checks[name](one, start + name) for name, one in value.items()})

    return made


def _literal(kind: Any) -> _Check:
    allowed = get_args(kind)

    def one_of(value: Any, place: str) -> Any:
        if any(type(one) is type(value) and one == value for one in allowed):
            return value
        return _refuse(place, value, " or ".join(map(repr, allowed)))

    return one_of


def _union(kind: Any) -> _Check:
    first, *others = map(_check_of, get_args(kind))

    def any_of(value: Any, place: str) -> Any:
        for check in others:
            with suppress(ValueError):
                return check(value, place)
        # The first alternative is more helpful in a message than "null".
        return first(value, place)

    return any_of


def _items(kind: Any) -> _Check:
    arguments, make = get_args(kind), tuple if get_origin(kind) is tuple else list
    is_fixed = make is tuple and arguments[-1] is not Ellipsis
    checks = [_check_of(one) for one in arguments if one is not Ellipsis]

    def items(value: Any, place: str) -> Any:
        if not isinstance(value, list):
            _refuse(place, value, "a list")
        if is_fixed and len(value) != len(checks):
            _refuse(place, value, f"{len(checks)} values")
        if not is_fixed and _all_fit(arguments[0], value):
            return make(value)
        each = checks if is_fixed else repeat(checks[0])
        return make(
            check(one, f"{place}[{i}]") for i, (check, one) in enumerate(zip(each, value, strict=False))
        )

    return items


def _all_fit(kind: Any, values: list[Any]) -> bool:
    """Whether all values are numbers in a range, checked at once: there may be hundreds of thousands."""
    inner, *rules = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if inner not in (int, float) or not rules or not values or set(map(type, values)) != {inner}:
        return False
    ends = (min(values), max(values))
    return all(map(math.isfinite, values)) and not any(rule.problem_of(end) for end in ends for rule in rules)


def _entries(kind: Any) -> _Check:
    name_of, check = map(_check_of, get_args(kind))

    def entries(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            _refuse(place, value, "an object")
        return {name_of(name, place): check(one, f"{place}.{_short(name)}") for name, one in value.items()}

    return entries


def _plain(kind: Any, value: Any, place: str) -> Any:
    """A single value; true and false are not numbers, and an integer is also a float."""
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    if type(value) is not kind:
        _refuse(place, value, _NAMES[kind])
    if kind is float and not math.isfinite(value):
        _refuse(place, value, "a finite number")
    if kind is int and abs(value) >= 1 << 63:
        _refuse(place, value, "a number of 63 bits")
    if kind is str and not value.isascii() and re.search("[\ud800-\udfff]", value):
        _refuse(place, value, "text")
    return value


_FORMS: dict[Any, Callable[[Any], _Check]] = {
    Union: _union,
    UnionType: _union,
    Literal: _literal,
    list: _items,
    tuple: _items,
    Sequence: _items,
    dict: _entries,
    Mapping: _entries,
}
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


def _refuse(place: str, value: object, expected: str) -> NoReturn:
    raise ValueError(f"{place or 'it'} is {_short(value)}, expected {expected}")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return shortened(text, _SHOWN)
