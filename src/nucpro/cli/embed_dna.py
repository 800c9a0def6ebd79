"""``nucpro embed-dna``: the DNABERT-S files of a data folder."""

from __future__ import annotations

from typing import Any

from nucpro.cli.arguments import (
    add_data_dir,
    add_device,
    add_dna_model,
    add_dry_run,
    add_encoders,
    add_engine,
    add_replace,
    add_selection,
)
from nucpro.cli.console import showing
from nucpro.cli.parser import INPUT
from nucpro.options import Options

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "embed-dna",
        help="compute the DNA vectors of a data folder",
        description="Compute the _DNABERT_S.pt files of the selected files of a data folder if they are missing, or "
        "outdated according to their metadata; others are kept. After an interruption, the same command resumes.",
        example="nucpro embed-dna data\nnucpro embed-dna data --dna-model dna_models --device cpu --dry-run",
    )
    add_data_dir(parser)
    add_dna_model(parser)
    add_device(parser, default="cuda")
    add_engine(parser)
    add_encoders(parser)
    add_selection(parser)
    parser.group(INPUT).add_argument(
        "--all",
        dest="all_files",
        action="store_true",
        help="embed all full files, not only the selected ones",
    )
    add_replace(parser, "files of another or an unknown model, or with other options")
    add_dry_run(parser)
    parser.set_defaults(run=_run, has_log=True)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.extraction.run import embed_dna

    with showing() as show:
        embed_dna(Options.of(arguments), show)
