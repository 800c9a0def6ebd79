"""``nucpro download``: genomes of the RefSeq release."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_data_dir, add_dry_run, add_replace
from nucpro.cli.console import showing, summary
from nucpro.cli.parser import INPUT, PERFORMANCE, whole_of
from nucpro.errors import counted
from nucpro.genomes.options import DEFAULT_COUNTS, DownloadOptions
from nucpro.genomes.taxonomy import DUMP_NAME
from nucpro.options import require

__all__ = ["add_to"]

_OF_GENOMES = ("server", "seed", "connections")


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    defaults = DownloadOptions()
    parser = subparsers.add_parser(
        "download",
        help="download genomes of the RefSeq release into a data folder",
        description="Download one viral pair of RefSeq files and a seeded sample of each host group, and verify sizes "
        "and MD5 sums. After an interruption, the same command resumes.",
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
        help=f"file pairs of a group; may be repeated (default: {counts})",
    )
    parser.group(INPUT).add_argument(
        "--seed", type=int, default=defaults.seed, help="random seed of the sample (default: %(default)s)"
    )
    parser.group(PERFORMANCE).add_argument(
        "--connections",
        type=int,
        default=defaults.connections,
        metavar="N",
        help="simultaneous downloads (default: %(default)s)",
    )
    add_dry_run(parser)
    add_replace(
        parser, "files of another release, and files with the name of a genome that were not downloaded"
    )
    parser.group(INPUT).add_argument(
        "--taxonomy",
        action="store_true",
        help="download NCBI's taxonomy (taxdump.tar.gz, 70 MB) instead, for nucpro train --rank",
    )
    parser.group(INPUT).add_argument(
        "--taxonomy-server",
        default=defaults.taxonomy_server,
        metavar="URL",
        help="folder with the taxonomy (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _count(text: str) -> tuple[str, int]:
    group, _, number = text.partition("=")
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not GROUP=N")
    return group, whole_of(number)


def _require_used(arguments: dict[str, Any], *, wants_taxonomy: bool) -> None:
    """Refuse options of genomes for the taxonomy, and the other way round."""
    defaults = {"count": [], **{name: getattr(DownloadOptions(), name) for name in _OF_GENOMES}}
    allowed = "only without --taxonomy"
    if not wants_taxonomy:
        defaults, allowed = {"taxonomy_server": DownloadOptions().taxonomy_server}, "only with --taxonomy"
    for name, default in defaults.items():
        value = arguments[name]
        shown = ", ".join(f"{group}={count}" for group, count in value) if name == "count" else value
        require(value == default, f"--{name.replace('_', '-')}", shown, allowed)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.genomes.download import download, download_taxonomy

    data_dir: Path = arguments.pop("data_dir")
    dry_run: bool = arguments.pop("dry_run")
    wants_taxonomy = arguments.pop("taxonomy")
    _require_used(arguments, wants_taxonomy=wants_taxonomy)
    options = DownloadOptions(counts=dict(arguments.pop("count")), **arguments)
    if wants_taxonomy:
        with showing() as show:
            is_new = download_taxonomy(data_dir, options, show, dry_run=dry_run)
        what = "to download" if dry_run else "downloaded"
        summary([f"{data_dir / DUMP_NAME}: {what if is_new else 'already up to date'}"])
        return
    with showing() as show:
        report = download(data_dir, options, show, dry_run=dry_run)
    what = "to download" if dry_run else "downloaded now"
    files = f"{counted(len(report.files), 'file')} of release {report.release}"
    summary([f"{data_dir}: {files}, {len(report.fetched)} {what}"])
