"""``nucpro validate``: read and check every file."""

from __future__ import annotations

from typing import Any

from nucpro.cli.arguments import add_data_dir, add_engine, add_selection
from nucpro.cli.console import showing
from nucpro.options import Options

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "validate",
        help="read and check every selected file of a data folder",
        description="Check every protein and merged file of a data folder against its sources. Changes nothing.",
        example="nucpro validate data\nnucpro validate data --engine ray --progress json",
    )
    add_data_dir(parser)
    add_selection(parser)
    add_engine(parser)
    parser.set_defaults(device="cpu", run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.extraction.run import validate_folder

    with showing() as show:
        validate_folder(Options.of(arguments), show)
