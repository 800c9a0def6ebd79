"""``nucpro validate``: read everything back and judge it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nucpro.layout import SEQUENCES_PER_FILE
from nucpro.options import Options
from nucpro.pipeline import validate_folder
from nucpro.selection import HostSelection

__all__ = ["add_folder_arguments", "add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "validate",
        help="read back every selected file of a data folder and check it",
        description="Check every protein and merged file of a data folder against its sources. Changes nothing.",
    )
    add_folder_arguments(parser)
    parser.set_defaults(run=_run, log_file=lambda _: None)


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which folder and which files of it."""
    parser.add_argument(
        "data_dir", type=Path, metavar="DATA", nargs="?", default=Path("./data/"), help="data folder"
    )
    parser.add_argument("--sequences-per-file", type=int, default=SEQUENCES_PER_FILE, metavar="N")
    parser.add_argument(
        "--host-selection", type=HostSelection, choices=list(HostSelection), default=HostSelection.AUTO
    )


def _run(arguments: dict[str, Any]) -> None:
    validate_folder(Options.of(arguments))
