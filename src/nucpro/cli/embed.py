"""``nucpro embed``: vectors for anyone's FASTA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_device, add_dna_model, add_protein_model
from nucpro.cli.console import say
from nucpro.fasta import ALPHABETS, LIMITS, read, require_usable
from nucpro.layout import Side
from nucpro.options import Options

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "embed",
        help="embed the records of a FASTA file",
        description="Write one vector for each record of a FASTA file, in its order, as a .pt file in the format "
        "of a data folder: ids, float32 vectors and meta.",
    )
    parser.add_argument("fasta", type=Path, help="FASTA file, plain or gzip")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.pt", help="file to write")
    parser.add_argument("--dna", action="store_true", help="the records are nucleotides; by default proteins")
    add_protein_model(parser)
    add_dna_model(parser, "--dna-revision")
    add_device(parser)
    parser.set_defaults(run=_run, log_file=lambda _: None)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro import encoders  # noqa: PLC0415 - imports torch

    fasta, output = arguments.pop("fasta"), arguments.pop("output")
    side = Side.DNA if arguments.pop("dna") else Side.PROTEIN
    options = Options.of(arguments)
    # Checked first: a mistake in the input should not cost the time of loading a model.
    require_usable(read(fasta), ALPHABETS[side])
    encoder = encoders.load(encoders.identify(options, side), options)
    vectors = encoder.extract(fasta, output)
    say(f"{output}: {vectors.matrix.shape[0]} vectors of width {vectors.matrix.shape[1]}")
    if vectors.truncated:
        say(
            f"Warning: {vectors.truncated} sequences were longer than {LIMITS[side]} letters and were cut there"
        )
    if encoder.counts.unknown:
        say(f"Warning: {encoder.counts.unknown} of {encoder.counts.tokens} tokens are unknown to the model")
