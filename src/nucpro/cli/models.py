"""``nucpro fetch-models``: fill a folder with a model, for machines without network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_replace
from nucpro.cli.console import showing, summary
from nucpro.cli.parser import MODEL, OUTPUT
from nucpro.folder.kinds import Kind, require_place
from nucpro.formats.sequences import SequenceType
from nucpro.options import DEFAULT_MODELS

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "fetch-models",
        help="download a model into a folder, for a machine without network",
        description="Download a model from the Hugging Face hub into a folder. Use the folder with --protein-model or "
        "--dna-model.",
        example="nucpro fetch-models models\nnucpro fetch-models dna_models --model zhihan1996/DNABERT-S",
    )
    parser.group(OUTPUT).add_argument("folder", type=Path, metavar="FOLDER", help="folder to write")
    parser.group(MODEL).add_argument(
        "--model", default=DEFAULT_MODELS[SequenceType.PROTEIN], help="hub id (default: %(default)s)"
    )
    parser.group(MODEL).add_argument("--revision", help="branch, tag or commit (default: main)")
    parser.group(MODEL).add_argument(
        "--endpoint", metavar="URL", help="address of the hub (default: that of Hugging Face)"
    )
    add_replace(parser)
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.models.weights import fetch

    require_place(arguments["folder"], "models", {Kind.ENCODER})
    with showing() as show:
        files = fetch(
            arguments["model"],
            arguments["folder"],
            revision=arguments["revision"],
            endpoint=arguments["endpoint"],
            show=show,
            replace=arguments["replace"],
        )
    summary(
        [
            f"{files.id}, revision {files.revision}: {', '.join(str(path) for path in files.weights)}",
            f"SHA-256 of the weights: {files.digest()}",
        ]
    )
