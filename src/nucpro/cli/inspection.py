"""``nucpro inspect``: the contents of a file or folder, on one screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nucpro.cli.console import say
from nucpro.cli.parser import INPUT, OUTPUT
from nucpro.errors import counted, shortened

__all__ = ["add_to", "lines_of"]

_MOST_LINES = 45
_LONGEST = 100
_COLUMN = 28

_LABELS = {
    "letters": "total length",
    "foreign_letters": "foreign characters",
    "least": "min",
    "greatest": "max",
    "deviation": "std",
}
"""Names on the screen of keys that ``--json`` keeps."""


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "inspect",
        help="show the contents of a file or folder: shapes, ids, value ranges, provenance",
        description="Show the contents of a file of vectors, a FASTA file, a data folder, or the folder of a "
        "classifier or an encoder. Changes nothing. "
        "Files are read completely; of a data folder, only names and sizes are read.",
        example="nucpro inspect data\nnucpro inspect data/data_merge/viral.1.1_merged/output_1_merged.pt",
    )
    parser.group(INPUT).add_argument(
        "path", type=Path, metavar="FILE|DATA|MODEL", help="file or folder to inspect"
    )
    parser.group(OUTPUT).add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.inspection.files import inspect

    facts = inspect(arguments["path"])
    if arguments["json"]:
        say(json.dumps(facts, indent=1))
        return
    lines = list(lines_of(facts))
    for line in lines[:_MOST_LINES]:
        say(line)
    if len(lines) > _MOST_LINES:
        say(f"… and {counted(len(lines) - _MOST_LINES, 'more line')}: --json")


def lines_of(facts: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Format nested values as lines, one per value; a short dict of plain values takes one line."""
    for name, value in facts.items():
        label = f"{indent}{_label(name)}"
        if not isinstance(value, dict) or not value:
            yield f"{label:{_COLUMN}}{_text(value)}"
            continue
        row = ", ".join(f"{_label(key)} {_text(one)}" for key, one in value.items())
        if value and not any(isinstance(one, dict | list) for one in value.values()) and len(row) <= _LONGEST:
            yield f"{label:{_COLUMN}}{row}"
        else:
            yield label
            yield from lines_of(value, f"{indent}  ")


def _label(name: str) -> str:
    return _LABELS.get(name) or _text(name.replace("_", " "))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    text = "none" if value in (None, {}) else str(value)
    # Names may hold line ends, which would begin a line of their own.
    return shortened(text.replace("\n", "\\n"), _LONGEST)
