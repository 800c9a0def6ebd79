"""``nucpro status``: where a data folder stands."""

from __future__ import annotations

from typing import Any

from nucpro.cli.arguments import add_data_dir, add_selection
from nucpro.cli.console import say
from nucpro.options import Options
from nucpro.pipeline import status

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "status",
        help="show what is done, stale and missing in a data folder",
        description="Show what is done, stale and missing in a data folder. Changes nothing, also during a run.",
    )
    add_data_dir(parser)
    add_selection(parser)
    parser.set_defaults(run=_run, log_file=lambda _: None)


def _run(arguments: dict[str, Any]) -> None:
    for line in status(Options.of(arguments)):
        say(line)
