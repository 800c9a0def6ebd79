"""``nucpro embed``: vectors for anyone's FASTA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.cli.arguments import add_device, add_dna_model, add_protein_model, add_replace, sequences
from nucpro.cli.console import say
from nucpro.errors import FastaError, PreflightError, StoreError, UsageError
from nucpro.formats import replacing_problems
from nucpro.formats.sequences import ALPHABETS, LIMITS, SequenceType, nucleotide_records
from nucpro.options import Options

if TYPE_CHECKING:
    from nucpro.formats.fasta import Records

__all__ = ["add_to"]

_MARK = {"command": "embed"}
"""Tells, in the ``meta`` of a file, that this command made it."""


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
    add_replace(parser)
    parser.set_defaults(run=_run, log_file=lambda _: None)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.embedding import encoder as encoders
    from nucpro.formats.fasta import read, require_usable

    fasta, output = arguments.pop("fasta"), arguments.pop("output")
    replace = arguments.pop("replace")
    side = SequenceType.DNA if arguments.pop("dna") else SequenceType.PROTEIN
    is_sure = arguments.pop("protein")
    options = Options.of(arguments)
    # Checked first: a mistake should not cost the time of loading a model.
    _require_free(output, fasta, replace=replace)
    records = read(fasta, allow_pipe=True)
    require_usable(records, ALPHABETS[side])
    if side is SequenceType.PROTEIN and not is_sure:
        _require_proteins(records)
    encoder = encoders.load(encoders.identify(options, side), options)
    vectors = encoder.store(records, output, **_MARK)
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


def _require_free(output: Path, fasta: Path, *, replace: bool) -> None:
    """Refuse a name that cannot be written, that of the input, and that of a file that this command did not make."""
    if not output.name or output.is_dir():
        raise UsageError(f"--output is the folder {str(output)!r}; name a file in it")
    if not output.parent.is_dir():
        raise UsageError(f"--output is in {output.parent}, which is no folder; make it first")
    if output.exists() and fasta.exists() and output.samefile(fasta):
        raise UsageError(f"--output is {output}, the input itself; name another file")
    problems = replacing_problems([output], _is_own, replace=replace)
    if problems:
        raise PreflightError(problems)


def _is_own(path: Path) -> bool:
    """Whether this command made a file."""
    from nucpro.formats import read_meta

    try:
        return (read_meta(path).meta or {}).items() >= _MARK.items()
    except StoreError:
        return False
