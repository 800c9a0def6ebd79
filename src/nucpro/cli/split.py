"""``nucpro split``: the split folders of all sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_data_dir
from nucpro.cli.console import say
from nucpro.cli.parser import OUTPUT
from nucpro.errors import PreflightError
from nucpro.folder.paths import DataFolder
from nucpro.options import SEQUENCES_PER_FILE
from nucpro.state.lock import hold

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "split",
        help="split the FASTA files of a data folder",
        description="Make the split folders that are missing, both sides with the same boundaries. Folders that "
        "exist are left as they are.",
        example="nucpro split data\nnucpro split data --sequences-per-file 20",
    )
    add_data_dir(parser)
    parser.group(OUTPUT).add_argument(
        "--sequences-per-file",
        type=int,
        default=SEQUENCES_PER_FILE,
        metavar="N",
        help="records of a full file (default: %(default)s)",
    )
    parser.set_defaults(run=_run, log_file=lambda _: None)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.folder.splitting import remove_unfinished, split_source

    data_dir: Path = arguments["data_dir"]
    if not data_dir.is_dir():
        raise PreflightError([f"{data_dir}: no such folder"])
    folder = DataFolder(data_dir)
    with hold(folder.lock):
        sources = folder.walk_sources()
        remove_unfinished(sources)
        for source in sources:
            made = split_source(source, arguments["sequences_per_file"])
            say(f"{source.name}: {', '.join(map(str, made)) or 'was split already'}")
