"""``nucpro embed``: vectors for anyone's protein FASTA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.extract import add_model_arguments
from nucpro.fasta import RESIDUES, read, require_usable
from nucpro.layout import MAX_RESIDUES
from nucpro.options import Options

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "embed",
        help="embed the proteins of a FASTA file",
        description="Write one vector for each protein of a FASTA file, in its order, as a .pt file with the keys "
        "proteins (ids), data (float32 vectors) and meta.",
    )
    parser.add_argument("fasta", type=Path, help="protein FASTA, plain or gzip")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.pt", help="file to write")
    add_model_arguments(parser)
    parser.set_defaults(run=_run, log_file=lambda _: None)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro import encoders  # noqa: PLC0415 - imports torch

    fasta, output = arguments.pop("fasta"), arguments.pop("output")
    options = Options.of(arguments)
    # Checked first: a mistake in the input should not cost the time of loading a model.
    require_usable(read(fasta), RESIDUES)
    vectors = encoders.load(encoders.identify(options), options).extract(fasta, output)
    print(f"{output}: {vectors.matrix.shape[0]} vectors of width {vectors.matrix.shape[1]}")
    if vectors.truncated:
        print(
            f"Warning: {vectors.truncated} sequences were longer than {MAX_RESIDUES} residues and were cut there"
        )
