"""``nucpro train``: a classifier from merged files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.classifier.options import COLUMNS, FEW_GROUPS, SCORES, Placement, SplitBy, TrainingOptions
from nucpro.cli.arguments import add_data_dir, add_device_only, add_replace
from nucpro.cli.console import showing, summary
from nucpro.cli.parser import EVALUATION, OUTPUT, PERFORMANCE, TRAINING, Parser, one_of
from nucpro.genomes.taxonomy import RANKS

if TYPE_CHECKING:
    from nucpro.classifier.metrics import Comparison, Measured
    from nucpro.classifier.training import Trained

__all__ = ["add_options", "add_to", "comparison_lines", "run", "table_lines", "with_interval"]

_DEFAULTS = TrainingOptions()


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "train",
        help="train a classifier on the merged files of a data folder",
        description="Train VirNucPro's classifier on all merged files of a data folder, and test it on "
        "held-out genomes. After an interruption, the same command resumes.",
        example="nucpro train data\nnucpro train data --compare --epochs 50 -o models/compared",
    )
    add_data_dir(parser)
    add_options(parser)
    parser.set_defaults(run=run, has_log=True)


def add_options(parser: Parser) -> None:
    """Add all options except the data folder."""
    parser.group(OUTPUT).add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="model folder (default: DATA/model)"
    )
    _add_evaluation(parser)
    _add_recipe(parser)
    add_device_only(parser)
    parser.group(PERFORMANCE).add_argument(
        "--features",
        dest="placement",
        type=one_of(Placement),
        choices=list(Placement),
        default=_DEFAULTS.placement,
        help="where the features are held; auto is the GPU if they fit there, else memory, else disk "
        "(default: %(default)s)",
    )
    parser.group(OUTPUT).add_argument(
        "--no-curves", dest="curves", action="store_false", help="do not draw curves.png and curves.svg"
    )
    add_replace(parser, "an existing model, even one made with other options, instead of resuming")


def _add_evaluation(parser: Parser) -> None:
    parser.group(EVALUATION).add_argument(
        "--split-by",
        type=one_of(SplitBy),
        choices=list(SplitBy),
        default=_DEFAULTS.split_by,
        help="what is kept together in one part of the split; row is VirNucPro's split, with test rows from "
        "genomes of the training part (default: %(default)s)",
    )
    parser.group(EVALUATION).add_argument(
        "--families", type=Path, metavar="TSV", help="record and family on each line, for --split-by family"
    )
    parser.group(EVALUATION).add_argument(
        "--rank",
        choices=RANKS,
        help="with --split-by taxon, group by taxon of this rank (default: by taxon id)",
    )
    parser.group(EVALUATION).add_argument(
        "--taxonomy",
        type=Path,
        metavar="FILE",
        help="NCBI's taxdump.tar.gz, or a folder with its files, for --rank (default: DATA/taxdump.tar.gz, from "
        "nucpro download DATA --taxonomy)",
    )
    for part in ("validation", "test"):
        parser.group(EVALUATION).add_argument(
            f"--{part}",
            type=float,
            default=_DEFAULTS.test,
            metavar="X",
            help=f"fraction of the rows for {part} (default: %(default)s)",
        )
    columns = parser.group(TRAINING).add_mutually_exclusive_group()
    columns.add_argument(
        "--compare",
        action="store_true",
        help="train on DNA columns, on protein columns and on both, and compare the models",
    )
    columns.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="K-fold cross-validation: train K models, each tested on a different part of the groups",
    )
    columns.add_argument(
        "--columns",
        dest="sequence_types",
        choices=list(COLUMNS),
        default="both",
        help="columns to train on (default: %(default)s)",
    )
    parser.group(EVALUATION).add_argument(
        "--precision-at",
        type=float,
        metavar="X",
        help="choose the threshold that reaches this precision on validation, also for prediction (default: threshold "
        "0.5); precision is lower where viruses are rarer",
    )
    parser.group(EVALUATION).add_argument(
        "--bootstrap",
        type=int,
        default=_DEFAULTS.bootstrap,
        metavar="N",
        help="bootstrap resamples of genomes for confidence intervals (default: %(default)s)",
    )


def _add_recipe(parser: Parser) -> None:
    parser.group(TRAINING).add_argument(
        "--seed",
        type=int,
        default=_DEFAULTS.seed,
        metavar="N",
        help="random seed of split, weights, row order and dropout (default: %(default)s)",
    )
    for name, text in (
        ("batch_size", "rows per batch"),
        ("epochs", "maximum number of epochs"),
        ("patience", "epochs without a lower validation loss before training ends"),
    ):
        default = getattr(_DEFAULTS, name)
        parser.group(TRAINING).add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.group(TRAINING).add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help="initial learning rate (default: 0.0002 per 32 rows of a batch)",
    )


def run(arguments: dict[str, Any]) -> None:
    """Train, and show the metrics."""
    from nucpro.classifier.training import train

    arguments["sequence_types"] = COLUMNS[arguments["sequence_types"]]
    with showing() as show:
        trained = train(TrainingOptions.of(arguments), show)
    summary(_lines(trained))


def _lines(trained: Trained) -> Iterator[str]:
    yield from comparison_lines(trained.comparison, trained.drawn)
    for folder in trained.folders.values():
        yield f"Model: {folder}"


def comparison_lines(comparison: Comparison, drawn: str) -> Iterator[str]:
    """Show the metrics of models in a table, and their differences."""
    names = list(comparison.models)
    yield from table_lines(["test part", *names], _rows(comparison, names))
    for (first, second), found in comparison.differences.items():
        yield f"AUROC difference, {first} - {second}: {with_interval(found, 'auroc', '+.4f')}"
    if any(found.intervals["auroc"] is None for found in comparison.models.values()):
        yield f"n/a: no intervals, since a class has fewer than {FEW_GROUPS} test {drawn}"
    else:
        yield f"In brackets: 95% bootstrap intervals over {drawn}"


def _rows(comparison: Comparison, names: Sequence[str]) -> Iterator[list[str]]:
    for metric in SCORES:
        yield [metric, *(with_interval(comparison.models[name], metric, ".4f") for name in names)]


def with_interval(found: Measured, metric: str, form: str) -> str:
    """Show a metric with its interval."""
    interval = found.intervals[metric]
    shown = "n/a" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"
    return f"{found.values[metric]:{form}} ({shown})"


def table_lines(head: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    """Align the columns of a table."""
    lines = [list(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
