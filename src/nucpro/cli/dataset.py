"""``nucpro dataset``: reading frames of annotated genomes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nucpro.cli.arguments import add_data_dir, add_engine, add_replace
from nucpro.cli.console import showing, summary
from nucpro.cli.parser import INPUT, PERFORMANCE
from nucpro.errors import counted, first_few
from nucpro.options import Options, require

if TYPE_CHECKING:
    from nucpro.genomes.reports import DatasetReport

__all__ = ["add_to"]

_SHOWN = 3


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "dataset",
        help="write the reading frames of genomes as FASTA files",
        description="Cut the genomes of a data folder into chunks and keep the reading frames that are part of "
        "annotated proteins. Complete files are kept if they were made from the same genomes with the same options.",
        example="nucpro dataset data --length 300\n"
        "nucpro dataset data --length 500 --genetic-code auto --replace",
    )
    add_data_dir(parser)
    parser.group(INPUT).add_argument(
        "--length",
        type=int,
        required=True,
        metavar="N",
        help="bases per full chunk; published models were trained on 300 and 500",
    )
    parser.group(INPUT).add_argument(
        "--genetic-code",
        choices=("standard", "auto"),
        default="standard",
        help="standard, as in VirNucPro, or auto: the code recorded for each CDS (default: %(default)s)",
    )
    parser.group(PERFORMANCE).add_argument(
        "--processes",
        dest="workers",
        type=int,
        metavar="N",
        help="processes on this machine (default: one per core)",
    )
    add_engine(parser)
    add_replace(parser, "files that were made with other options")
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.execution.engine import engine_of
    from nucpro.genomes.dataset import build
    from nucpro.genomes.options import DatasetOptions

    engine, address = arguments.pop("engine"), arguments.pop("address")
    where = Options(arguments.pop("data_dir"), engine=engine, address=address, device="cpu")
    processes = arguments["workers"]
    require(processes is None or not where.uses_cluster, "--processes", processes, "only with --engine local")
    options = DatasetOptions(**{k: v for k, v in arguments.items() if v is not None})
    with engine_of(where) as machines, showing() as show:
        if where.uses_cluster:
            report = build(where.anywhere().data_dir, options, show, machines.workers)
        else:
            report = build(where.data_dir, options, show)
    again = shlex.join(["nucpro", "split", str(where.data_dir)])
    summary([*_lines(report), f"Next: {again}"], _warnings(report))


def _lines(report: DatasetReport) -> list[str]:
    made = sum(source.made for source in report.sources)
    lines = [
        f"{counted(len(report.sources), 'pair')} of genome files at {report.length} bases: {made} made, "
        f"{len(report.sources) - made} already up to date"
    ]
    for category, counts in report.by_category.items():
        lines.append(
            f"{category or 'no category'}: {counted(counts.records, 'record')}, "
            f"{counted(counts.chunks, 'chunk')}, {counts.kept_frames} of {counted(counts.frames, 'frame')} kept"
        )
    return lines


def _warnings(report: DatasetReport) -> Iterator[str]:
    differing = [name for source in report.sources for name in source.differing]
    if differing:
        yield (
            f"recreated {counted(len(differing), 'FASTA file')} that differed from earlier output: "
            f"{first_few(differing, _SHOWN)}; keep edited copies under other names"
        )
    lost, left_out = report.totals.lost_frames, report.totals.left_out_records
    if lost:
        yield f"{counted(lost, 'frame')} of another genetic code left out; --genetic-code auto uses them"
    if left_out:
        yield f"{counted(left_out, 'record')} left out; the .identified.json files give the reasons"
