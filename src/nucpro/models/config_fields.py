"""JSON files of a checkpoint, and checked fields of its ``config.json`` for the configurations of all encoders.

The files are found by :mod:`nucpro.models.weights`; a Hugging Face model object has a configuration too. Checked
values go to :mod:`nucpro.models.config` and :mod:`nucpro.models.mosaic_bert`.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucpro.errors import ModelError
from nucpro.opening import UNKNOWN, looks_like, read_input

__all__ = ["MOST_LAYERS", "positive", "read_json", "refuse_other_values", "required", "size"]

_LARGEST_SIZE = 1_000_000
MOST_LAYERS = 1_000
"""Encoder layers above which a configuration is taken to be damaged."""


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    file : Path
        ``config.json``, or the index of a sharded checkpoint.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    ModelError
        If the file cannot be read or holds anything else.
    """
    raw = read_input(file, ModelError)
    try:
        content = json.loads(raw.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        looks = looks_like(raw)
        reason = str(error) if looks in ("JSON", UNKNOWN) else f"it is {looks}"
        raise ModelError(
            f"{file}: cannot be read as JSON ({reason}); fetch the model again (nucpro fetch-models)"
        ) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ModelError(
            f"{file}: holds a JSON {kind}, not an object; fetch the model again (nucpro fetch-models)"
        )
    return content


def required(fields: Mapping[str, Any], name: str) -> Any:
    """Value of a field that must be there.

    Raises
    ------
    ModelError
        If it is not.
    """
    if name not in fields:
        raise ModelError(f"config.json: {name} is missing; fetch the model again (nucpro fetch-models)")
    return fields[name]


def size(fields: Mapping[str, Any], name: str, largest: int = _LARGEST_SIZE) -> int:
    """Value of a field that counts something, from 1 to ``largest``.

    Raises
    ------
    ModelError
        If it is missing or anything else.
    """
    value = required(fields, name)
    if type(value) is not int or not 1 <= value <= largest:
        raise ModelError(f"config.json: {name} is {value!r}; it must be a whole number from 1 to {largest:,}")
    return value


def positive(fields: Mapping[str, Any], name: str) -> float:
    """Value of a field that is a positive, finite number.

    Raises
    ------
    ModelError
        If it is missing or anything else.
    """
    value = required(fields, name)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ModelError(f"config.json: {name} is {value!r}; it must be a positive number")
    return float(value)


def refuse_other_values(
    fields: Mapping[str, Any], wanted: Mapping[str, Any], which: str, others: str
) -> None:
    """Raise where a field has another value than all models of an architecture have; it may be missing.

    Parameters
    ----------
    fields : mapping
        The configuration.
    wanted : mapping
        The one value allowed for each field.
    which, others : str
        The architecture, and those that may have been given instead, in words.

    Raises
    ------
    ModelError
        If a field says otherwise.
    """
    for name, value in wanted.items():
        found = fields.get(name, value)
        if found != value:
            raise ModelError(
                f"config.json: {name} is {found!r}, but {which} has {value!r}; "
                f"this is another architecture ({others}), which is not supported"
            )
