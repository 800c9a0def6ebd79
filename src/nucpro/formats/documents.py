"""JSON documents beside the data: what was chosen, made or learned, as people and programs read it.

Content comes from whoever keeps a record (selection, data sets, exports, models, predictions) and goes to disk through
:mod:`nucpro.formats.atomic`. Records that decide what a run does hold a digest of what they say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucpro.formats.atomic import Written, write_bytes

__all__ = ["SEAL", "decoded", "document", "parsed", "seal_of", "write_document"]

SEAL = "sha256"
"""Name of the digest in a document that holds one."""


def document(content: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """Text of a document: UTF-8, one value a line.

    Parameters
    ----------
    content : mapping
        Plain values.
    sort_keys : bool
        Sort by name, for content whose order says nothing.
    """
    return (json.dumps(content, indent=1, ensure_ascii=False, sort_keys=sort_keys) + "\n").encode()


def write_document(path: Path, content: Mapping[str, Any], *, sort_keys: bool = False) -> Written:
    """Write a document whole or not at all; see :func:`document` and :func:`nucpro.formats.replace_file`."""
    return write_bytes(path, document(content, sort_keys=sort_keys))


def decoded(raw: bytes) -> Any:
    """Value that a document holds.

    Raises
    ------
    ValueError
        It is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def parsed(raw: bytes) -> dict[str, Any]:
    """Content of a document; nothing where it is damaged or no object."""
    try:
        content = decoded(raw)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def seal_of(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of everything that a document says, beside that digest itself."""
    said = {name: value for name, value in content.items() if name != SEAL}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
