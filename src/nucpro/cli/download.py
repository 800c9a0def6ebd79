"""``nucpro download``: genomes of the RefSeq release."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_data_dir, add_dry_run, add_replace
from nucpro.cli.console import say, showing
from nucpro.cli.parser import INPUT, PERFORMANCE
from nucpro.errors import counted
from nucpro.genomes.options import DEFAULT_COUNTS, DownloadOptions
from nucpro.genomes.taxonomy import DUMP_NAME

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    defaults = DownloadOptions()
    parser = subparsers.add_parser(
        "download",
        help="fetch genomes of the RefSeq release into a data folder",
        description="Fetch one viral pair of RefSeq files and a seeded sample of each host group, with sizes and "
        "MD5 sums verified. Run again after an interruption, it continues.",
        example="nucpro download data\nnucpro download data --count bacteria=2 --count plant=0 --seed 7",
    )
    add_data_dir(parser)
    parser.group(INPUT).add_argument(
        "--server", default=defaults.server, metavar="URL", help="release folder (default: %(default)s)"
    )
    counts = " ".join(f"{group}={count}" for group, count in DEFAULT_COUNTS.items())
    parser.group(INPUT).add_argument(
        "--count",
        type=_count,
        action="append",
        default=[],
        metavar="GROUP=N",
        help=f"pairs of files of a group, may be repeated (default: {counts})",
    )
    parser.group(INPUT).add_argument(
        "--seed", type=int, default=defaults.seed, help="seed of the draw (default: %(default)s)"
    )
    parser.group(PERFORMANCE).add_argument(
        "--connections",
        type=int,
        default=defaults.connections,
        metavar="N",
        help="files that are fetched at a time (default: %(default)s)",
    )
    add_dry_run(parser)
    add_replace(parser, "files of another release, and files of a genome's name that were not downloaded")
    parser.group(INPUT).add_argument(
        "--taxonomy",
        action="store_true",
        help="fetch NCBI's taxonomy (taxdump.tar.gz, 70 MB) instead, which nucpro train --rank reads",
    )
    parser.group(INPUT).add_argument(
        "--taxonomy-server",
        default=defaults.taxonomy_server,
        metavar="URL",
        help="folder with the taxonomy (default: %(default)s)",
    )
    parser.set_defaults(run=_run, log_file=lambda _: None)


def _count(text: str) -> tuple[str, int]:
    group, _, number = text.partition("=")
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not GROUP=N")
    return group, int(number)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.genomes.download import download, download_taxonomy

    data_dir: Path = arguments.pop("data_dir")
    dry_run: bool = arguments.pop("dry_run")
    wants_taxonomy = arguments.pop("taxonomy")
    options = DownloadOptions(counts=dict(arguments.pop("count")), **arguments)
    if wants_taxonomy:
        with showing() as show:
            is_new = download_taxonomy(data_dir, options, show, dry_run=dry_run)
        what = "to fetch" if dry_run else "fetched now"
        say(f"{data_dir / DUMP_NAME}: {what if is_new else 'the newest one was there'}")
        return
    with showing() as show:
        report = download(data_dir, options, show, dry_run=dry_run)
    what = "to fetch" if dry_run else "fetched now"
    say(
        f"{data_dir}: {counted(len(report.files), 'file')} of release {report.release}, {len(report.fetched)} {what}"
    )
