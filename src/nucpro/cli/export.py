"""``nucpro export``: merged vectors in formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_data_dir, add_replace, add_selection
from nucpro.cli.console import showing, summary
from nucpro.cli.parser import OUTPUT
from nucpro.errors import counted, human_size
from nucpro.export.formats import FORMATS
from nucpro.options import Options

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "export",
        help="write the merged vectors as Parquet, safetensors or NumPy files",
        description="Write the rows of all selected merged files as shards, one per file, with a manifest and "
        "SHA-256 sums. After an interruption, the same command resumes; later, it updates the export.",
        example="nucpro export data --to parquet\nnucpro export data --to npz -o rows",
    )
    add_data_dir(parser)
    parser.group(OUTPUT).add_argument(
        "--to", required=True, choices=list(FORMATS), help="format of the shards"
    )
    parser.group(OUTPUT).add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="folder to write (default: DATA/export/FORMAT)"
    )
    add_selection(parser)
    add_replace(parser)
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.export.exporting import export_folder

    format_name, output = arguments.pop("to"), arguments.pop("output")
    replacing = arguments.pop("replace")
    with showing() as show:
        made = export_folder(Options.of(arguments), format_name, output, show, replacing=replacing)
    shards = f"{counted(made.shards, 'file')}, {human_size(made.bytes)}; {made.made} written now"
    summary([f"{made.folder}: {counted(made.rows, 'row')} of width {made.width} in {shards}"])
