"""``nucpro embed``: vectors for anyone's FASTA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_device, add_dna_model, add_protein_model, sequences
from nucpro.cli.console import say
from nucpro.errors import FastaError, StoreError, UsageError
from nucpro.fasta import ALPHABETS, LIMITS, Records, read, require_usable
from nucpro.layout import Side
from nucpro.letters import nucleotide_records
from nucpro.options import Options
from nucpro.store import read_meta

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "embed",
        help="embed the records of a FASTA file",
        description="Write one vector for each record of a FASTA file, in its order, as a .pt file in the format "
        "of a data folder: ids, float32 vectors and meta.",
    )
    parser.add_argument(
        "fasta",
        type=sequences,
        help="FASTA file, plain or packed with gzip, bzip2 or xz; - for standard input",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.pt", help="file to write")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--dna", action="store_true", help="the records are nucleotides; by default proteins")
    kind.add_argument(
        "--protein",
        action="store_true",
        help="the records are proteins even where they look like nucleotides",
    )
    add_protein_model(parser)
    add_dna_model(parser, "--dna-revision")
    add_device(parser)
    parser.set_defaults(run=_run, log_file=lambda _: None)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro import encoders  # noqa: PLC0415 - imports torch

    fasta, output = arguments.pop("fasta"), arguments.pop("output")
    side = Side.DNA if arguments.pop("dna") else Side.PROTEIN
    is_sure = arguments.pop("protein")
    options = Options.of(arguments)
    # Checked first: a mistake should not cost the time of loading a model.
    _require_free(output)
    records = read(fasta, allow_pipe=True)
    require_usable(records, ALPHABETS[side])
    if side is Side.PROTEIN and not is_sure:
        _require_proteins(records)
    encoder = encoders.load(encoders.identify(options, side), options)
    vectors = encoder.store(records, output)
    say(f"{output}: {vectors.matrix.shape[0]} vectors of width {vectors.matrix.shape[1]}")
    if vectors.truncated:
        say(
            f"Warning: {vectors.truncated} sequences were longer than {LIMITS[side]} letters and were cut there"
        )
    if encoder.counts.unknown:
        say(f"Warning: {encoder.counts.unknown} of {encoder.counts.tokens} tokens are unknown to the model")


def _require_proteins(records: Records) -> None:
    """Refuse nucleotides, for which the protein model gives vectors that mean nothing."""
    found = nucleotide_records(records.sequences)
    if found:
        raise FastaError(
            f"{records.path}: {len(found)} of {len(records)} records look like nucleotides, first "
            f"{records.ids[found[0]]}; add --dna to embed nucleotides, or --protein if they are proteins"
        )


def _require_free(output: Path) -> None:
    """Refuse a name that cannot be written, or that belongs to a file of another kind, as the input itself."""
    if not output.name or output.is_dir():
        raise UsageError(f"--output is the folder {str(output)!r}; name a file in it")
    if not output.parent.is_dir():
        raise UsageError(f"--output is in {output.parent}, which is no folder; make it first")
    if not output.exists():
        return
    try:
        read_meta(output)
    except StoreError as error:
        raise UsageError(
            f"--output is {output}, which exists and holds no vectors; name another file, or remove it"
        ) from error
