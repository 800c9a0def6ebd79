"""``nucpro embed``: vectors of any FASTA file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.cli.arguments import (
    add_device,
    add_dna_model,
    add_encoders,
    add_engine,
    add_protein_model,
    add_replace,
    sequences,
)
from nucpro.cli.console import showing, summary
from nucpro.cli.parser import INPUT, MODEL, OUTPUT, whole_of
from nucpro.errors import UsageError, counted
from nucpro.folder.kinds import require_sequences
from nucpro.formats.fasta import bare_name
from nucpro.formats.opening import STANDARD_INPUT
from nucpro.formats.sequences import LIMITS, SequenceType
from nucpro.models.config import CUT, LONG_RECORDS, MEAN, POOLINGS, REFUSE, RESIDUE_TYPES, WINDOW, Readout
from nucpro.options import Options, require

if TYPE_CHECKING:
    from nucpro.vectors.job import EmbedReport

__all__ = ["add_to"]

_FORMATS = ("npz", "pt", "parquet", "safetensors")


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "embed",
        help="embed the records of a FASTA file",
        description="Write one vector per record of a FASTA file, in the same order, with ids and metadata. The "
        "suffix of the output sets its format. After an interruption, the same command resumes.",
        example="nucpro embed proteins.fasta -o proteins.pt\n"
        "zcat contigs.fasta.gz | nucpro embed - --dna -o contigs.parquet\n"
        "nucpro embed proteomes/*.faa.gz -o vectors --format npz",
    )
    parser.group(INPUT).add_argument(
        "fasta",
        type=sequences,
        nargs="+",
        metavar="FASTA",
        help="FASTA files, uncompressed or compressed (.gz, .bz2, .xz, .zst); - for standard input; several need "
        "--format",
    )
    parser.group(OUTPUT).add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="file to write: OUT.pt, OUT.npz, OUT.parquet or OUT.safetensors; its folder is created; with --format, "
        "or --per-residue, a folder to create; with --per-residue also OUT.h5 or OUT.hdf5",
    )
    parser.group(OUTPUT).add_argument(
        "--format",
        choices=_FORMATS,
        help="write one file per input into the folder OUT: x.faa.gz becomes OUT/x.FORMAT",
    )
    kind = parser.group(INPUT).add_mutually_exclusive_group()
    kind.add_argument("--dna", action="store_true", help="the records are nucleotides (default: proteins)")
    kind.add_argument(
        "--protein",
        action="store_true",
        help="the records are proteins, even if they look like nucleotides",
    )
    parser.group(INPUT).add_argument(
        "--long",
        choices=LONG_RECORDS,
        default=CUT,
        help="records longer than the maximum length of the model: truncate and count them; read proteins in windows "
        "of that length that overlap by half; or fail before anything is computed (default: %(default)s)",
    )
    _add_readout(parser.group(OUTPUT))
    add_replace(parser)
    add_protein_model(parser, of_data=False)
    add_dna_model(parser, of_data=False)
    parser.group(MODEL).add_argument(
        "--adapter",
        metavar="FOLDER",
        help="LoRA adapter of PEFT, merged into the model that is named, or else into its own base model",
    )
    add_device(parser, of_files="")
    add_engine(parser)
    add_encoders(parser)
    parser.set_defaults(run=_run)


def _add_readout(group: Any) -> None:
    group.add_argument(
        "--layer",
        type=_layers,
        action="extend",
        metavar="N",
        help="layers to pool, numbered as in hidden_states of transformers: 0 is the embedding, -1 the last layer, "
        "the only one after the final norm; separate several by commas, or repeat the option (default: -1)",
    )
    group.add_argument(
        "--pool",
        type=lambda text: tuple(text.split(",")),
        metavar="POOLING[,POOLING]",
        help=f"{', '.join(POOLINGS)}; several are concatenated in the order given, for each layer (default: mean)",
    )
    group.add_argument(
        "--per-residue",
        action="store_true",
        help="write a vector for each residue of a protein, not pooled, to safetensors files in the folder OUT, or "
        "to one HDF5 file",
    )
    group.add_argument(
        "--dtype",
        choices=RESIDUE_TYPES,
        help=f"element type of vectors of residues (default: {RESIDUE_TYPES[0]}); others are float32",
    )


def _readout(arguments: dict[str, Any], *, windows: bool) -> Readout:
    layers, poolings = tuple(arguments.pop("layer") or (-1,)), arguments.pop("pool")
    per_residue, element_type = arguments.pop("per_residue"), arguments.pop("dtype")
    if per_residue:
        require(poolings is None, "--pool", ",".join(poolings or ()), "only without --per-residue")
        return Readout(layers, per_residue=element_type or RESIDUE_TYPES[0], windows=windows)
    require(element_type is None, "--dtype", element_type, "only with --per-residue")
    return Readout(layers, poolings or (MEAN,), windows=windows)


def _layers(text: str) -> tuple[int, ...]:
    return tuple(map(whole_of, text.split(",")))


_layers.__name__ = "number"


def _outputs(inputs: list[Path], output: Path, form: str | None) -> list[Path]:
    """Files to write, one per input."""
    if form is None:
        if len(inputs) > 1:
            raise UsageError(
                f"{len(inputs)} input files are given, and one output; add --format {_FORMATS[0]} (or another), and "
                "name a folder with --output: it will hold one file per input"
            )
        return [output]
    if os.path.lexists(output) and not output.is_dir():
        raise UsageError(f"--output is the file {output}; with --format, name a folder")
    named: dict[str, Path] = {}
    for path in inputs:
        name = "stdin" if path == STANDARD_INPUT else bare_name(path)
        if name in named:
            raise UsageError(
                f"{named[name]} and {path} would both become {output / name}.{form}; embed them into two folders"
            )
        named[name] = path
    return [output / f"{name}.{form}" for name in named]


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.vectors.job import EmbedOptions, embed_files

    inputs = arguments.pop("fasta")
    require_sequences(inputs)
    form = arguments.pop("format")
    outputs = _outputs(inputs, arguments.pop("output"), form)
    sequence_type = SequenceType.DNA if arguments.pop("dna") else SequenceType.PROTEIN
    is_sure, replace = arguments.pop("protein"), arguments.pop("replace")
    long, adapter = arguments.pop("long"), arguments.pop("adapter")
    readout = _readout(arguments, windows=long == WINDOW)
    require(
        form is None or not readout.per_residue,
        "--format",
        form,
        "not with --per-residue, whose output is one folder or HDF5 file",
    )
    models = Options.of(arguments)
    jobs = [
        EmbedOptions(
            fasta,
            output,
            models,
            sequence_type,
            is_sure=is_sure,
            replace=replace,
            readout=readout,
            refuse_long=long == REFUSE,
            adapter=adapter,
        )
        for fasta, output in zip(inputs, outputs, strict=True)
    ]
    with showing() as show:
        reports = embed_files(jobs, show)
    for report in reports:
        of_records = f" of {counted(report.records, 'record')}" if readout.per_residue else ""
        line = f"{report.output}: {counted(report.vectors, 'vector')} of width {report.width}{of_records}"
        summary([line], _warnings(report, sequence_type))


def _warnings(report: EmbedReport, sequence_type: SequenceType) -> Iterator[str]:
    if report.truncated:
        yield (
            f"{report.output}: {counted(report.truncated, 'sequence')} longer than {LIMITS[sequence_type]:,} "
            f"{sequence_type.unit}, truncated"
        )
    if report.unknown:
        yield f"{report.output}: {report.unknown} of {counted(report.tokens, 'token')} unknown to the model"
