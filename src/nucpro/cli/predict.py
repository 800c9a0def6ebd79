"""``nucpro predict``: classifies sequences as viral or host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.cli.arguments import add_device, add_encoders, add_engine, add_replace, sequences
from nucpro.cli.console import showing, summary
from nucpro.cli.parser import INPUT, MODEL, OUTPUT, PERFORMANCE
from nucpro.errors import counted
from nucpro.folder.kinds import require_sequences
from nucpro.prediction.options import PLOT_FORMATS
from nucpro.prediction.outputs import OUTPUTS

if TYPE_CHECKING:
    from nucpro.prediction.running import PredictionReport

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "predict",
        help="classify sequences as viral or host",
        description="Cut sequences into chunks, embed every reading frame without a stop codon, and score frames, "
        "chunks and whole sequences with a classifier of nucpro train. After an interruption, the same command "
        "resumes.",
        example="nucpro predict contigs.fasta --model data/model\n"
        "nucpro predict bins/*.fa -o scores --viral-fasta --gff3 --html\n"
        "zcat contigs.fasta.gz | nucpro predict - --model data/model -o scores --plot",
    )
    parser.group(INPUT).add_argument(
        "input",
        type=sequences,
        nargs="+",
        metavar="INPUT",
        help="FASTA or FASTQ files, uncompressed or compressed (.gz, .bz2, .xz, .zst), read as one input; - for "
        "standard input",
    )
    parser.group(MODEL).add_argument(
        "--model",
        type=Path,
        default=Path("data/model"),
        metavar="FOLDER",
        help="model folder of nucpro train (default: %(default)s)",
    )
    parser.group(OUTPUT).add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder to write (default: INPUT's name + _prediction)",
    )
    parser.group(INPUT).add_argument(
        "--length", type=int, metavar="N", help="bases per full chunk (default: as in the training data)"
    )
    parser.group(OUTPUT).add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="minimum score of a viral sequence (default: that of the classifier, 0.5 unless another was chosen)",
    )
    parser.group(OUTPUT).add_argument(
        "--min-length",
        type=int,
        metavar="N",
        help="shorter sequences are undetermined (default: half a chunk)",
    )
    _add_outputs(parser)
    _add_models(parser)
    add_device(parser, of_files="the precision of the training data on a GPU, else ")
    add_engine(parser)
    add_encoders(parser)
    parser.group(PERFORMANCE).add_argument(
        "--chunks-per-unit",
        type=int,
        metavar="N",
        help="chunks that are scored and saved together (default: 8192 on a GPU, 256 on a CPU)",
    )
    parser.set_defaults(run=_run)


def _add_outputs(parser: Any) -> None:
    for output in OUTPUTS:
        value: dict[str, Any] = {"action": "store_true"}
        if output.default is not None:
            value = {"type": int, "nargs": "?", "const": output.default, "default": 0, "metavar": "N"}
        parser.group(OUTPUT).add_argument(output.option, dest=output.field, help=output.about, **value)
    parser.group(OUTPUT).add_argument(
        "--plot-format",
        choices=PLOT_FORMATS,
        default=PLOT_FORMATS[0],
        help="format of plots (default: %(default)s)",
    )
    add_replace(parser, "another prediction in the output folder")


def _add_models(parser: Any) -> None:
    group = parser.group(MODEL)
    for sequence_type, name in (("protein", "protein"), ("dna", "DNA")):
        group.add_argument(
            f"--{sequence_type}-model",
            metavar="MODEL",
            help=f"hub id or folder of the {name} model of the training data (default: as recorded by the classifier)",
        )
        group.add_argument(
            f"--{sequence_type}-revision",
            dest="revision" if sequence_type == "protein" else "dna_revision",
            metavar="REVISION",
            help="its branch, tag or commit on the hub (default: as recorded by the classifier)",
        )


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.prediction.options import PredictionOptions

    first, *more = arguments.pop("input")
    require_sequences([first, *more])
    options = PredictionOptions.of({**arguments, "input": first, "also": tuple(more)})
    # Imports torch: mistakes in the options are reported before.
    from nucpro.prediction.running import predict

    with showing() as show:
        report = predict(options, show)
    summary(_lines(report), _warnings(report))


def _lines(report: PredictionReport) -> Iterator[str]:
    counts = report.counts
    yield (
        f"{counted(counts['records'], 'sequence')}: {counts['viral']} viral, {counts['host']} host, "
        f"{counts['undetermined']} undetermined (too short, or no frame to score)"
    )
    without = counts["chunks_without_frame"]
    yield f"{counted(counts['chunks'], 'chunk')}, {without} of them without a frame to score"
    if report.scored_frames:
        rate = report.scored_frames / max(report.seconds, 1e-9)
        yield f"{counted(report.scored_frames, 'frame')} in {report.seconds:.1f} s: {rate:,.1f} frames/s"
    files = ", ".join(path.relative_to(report.folder).as_posix() for path in report.files)
    yield f"Results in {report.folder}: {files}"


def _warnings(report: PredictionReport) -> Iterator[str]:
    counts = report.counts
    found = {
        "frames were left out because most of their residues are unknown": counts["unknown_frames"],
        "frames were longer than the maximum length of an encoder and were truncated": counts["cut_frames"],
        "batches were halved after running out of memory": report.splits,
    }
    return (f"{count} {what}" for what, count in found.items() if count)
