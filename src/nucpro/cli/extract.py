"""``nucpro extract``: the main job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nucpro.cli.arguments import (
    add_data_dir,
    add_device,
    add_dna_model,
    add_dry_run,
    add_encoders,
    add_engine,
    add_protein_model,
    add_replace,
    add_selection,
)
from nucpro.cli.console import showing
from nucpro.cli.parser import OUTPUT, Parser
from nucpro.options import Options

if TYPE_CHECKING:
    from nucpro.extraction.survey import Survey

__all__ = ["add_arguments", "add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "extract",
        help="extract, merge and validate the protein embeddings of a data folder",
        description="Extract the protein embeddings of a VirNucPro data folder, merge them with its DNABERT-S "
        "files and validate the result. After an interruption, the same command resumes.",
        example="nucpro extract data\nnucpro extract data --with-dna --protein-model models --dry-run",
    )
    add_arguments(parser)
    parser.set_defaults(run=_run, has_log=True)


def add_arguments(parser: Parser) -> None:
    """Add the options of the command; the script has the same."""
    add_data_dir(parser, option=True)
    add_protein_model(parser)
    add_device(parser, default="cuda")
    add_engine(parser)
    add_encoders(parser)
    add_selection(parser)
    parser.group(OUTPUT).add_argument(
        "--trust-existing",
        action="store_true",
        help="keep protein files of the right width without provenance metadata",
    )
    parser.group(OUTPUT).add_argument(
        "--verify-existing",
        type=int,
        default=0,
        metavar="N",
        help="keep such files if N random records, recomputed in float32, agree with the model of the run "
        "(default: 0, recompute all of them)",
    )
    add_replace(parser, "files of another or an unknown model, or with other options")
    parser.group(OUTPUT).add_argument(
        "--with-dna", action="store_true", help="compute missing DNA vectors first (see nucpro embed-dna)"
    )
    add_dna_model(parser)
    parser.group(OUTPUT).add_argument(
        "--audit",
        type=int,
        default=0,
        metavar="N",
        help="recompute N random sequences in float32 and compare (default: 0)",
    )
    parser.group(OUTPUT).add_argument(
        "--no-report",
        dest="report",
        action="store_false",
        help="do not write DATA/report/report.html at the end (see nucpro report)",
    )
    add_dry_run(parser)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.extraction.run import extract

    with showing() as show:
        options = Options.of(arguments)
        extract(options, show, _report if options.report else None)


def _report(survey: Survey, problems: Sequence[str]) -> None:
    from nucpro.report.writing import report_at_end

    report_at_end(survey, problems)
