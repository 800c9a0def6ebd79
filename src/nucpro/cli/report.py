"""``nucpro report``: an HTML report of a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_data_dir, add_replace, add_selection
from nucpro.cli.console import showing
from nucpro.cli.parser import OUTPUT
from nucpro.options import Options
from nucpro.report import LAYOUTS, MOST_POINTS, POINTS

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "report",
        help="write an HTML report of a data folder: files, runs, lengths, and a map of the embeddings",
        description="Write report.html, one page that needs no network, and figures for publications. Also works after "
        "a failed run. A report that shows files is never replaced by one that shows none. Needs the extra "
        "nucpro[report].",
        example="nucpro report data\nnucpro report data --points 50000 -o pages",
    )
    add_data_dir(parser)
    add_selection(parser)
    group = parser.group(OUTPUT)
    group.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="folder to write (default: DATA/report)"
    )
    group.add_argument(
        "--points",
        type=int,
        default=POINTS,
        metavar="N",
        help=f"sequences on the map, at most {MOST_POINTS} (default: %(default)s)",
    )
    group.add_argument(
        "--layout",
        choices=LAYOUTS,
        default=LAYOUTS[0],
        help="method of the map; umap needs the extra nucpro[maps], and minutes (default: %(default)s)",
    )
    add_replace(parser)
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.report.writing import report_folder

    points, output = arguments.pop("points"), arguments.pop("output")
    replace, layout = arguments.pop("replace"), arguments.pop("layout")
    with showing() as show:
        report_folder(Options.of(arguments), points, show, output, replace=replace, layout=layout)
