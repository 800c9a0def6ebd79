"""``nucpro evaluate`` and ``nucpro compare``: evaluation of trained classifiers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nucpro.classifier.options import SCORES
from nucpro.cli.arguments import add_device, add_device_only
from nucpro.cli.console import say, showing
from nucpro.cli.parser import EVALUATION, INPUT, MODEL, Parser, whole_of

__all__ = ["add_to"]

_FRAMES = 200


def add_to(subparsers: Any) -> None:
    """Add both commands to the parser of ``nucpro``."""
    evaluate = subparsers.add_parser(
        "evaluate",
        help="evaluate a classifier on its test genomes at other chunk lengths",
        description="Cut the test genomes of a classifier into chunks of other lengths, embed and score their "
        "annotated frames, and add the metrics to its card, so that nucpro predict can warn outside the tested range.",
        example="nucpro evaluate data/model --lengths 150,300,500",
    )
    evaluate.group(INPUT).add_argument(
        "model", type=Path, metavar="MODEL", help="model folder of nucpro train"
    )
    evaluate.group(EVALUATION).add_argument(
        "--lengths",
        type=_lengths,
        required=True,
        metavar="N,N",
        help="bases per full chunk, such as 150,300,500",
    )
    evaluate.group(EVALUATION).add_argument(
        "--frames-per-genome",
        type=int,
        default=_FRAMES,
        metavar="N",
        help="maximum number of frames per genome, sampled with the model's seed (default: %(default)s)",
    )
    _add_data(evaluate)
    for sequence_type in ("protein", "dna"):
        evaluate.group(MODEL).add_argument(
            f"--{sequence_type}-model",
            metavar="MODEL",
            help="hub id or folder of the encoder (default: as recorded by the classifier)",
        )
    add_device(evaluate, of_files="the precision of the training data on a GPU, else ")
    evaluate.set_defaults(run=_run_evaluate)
    compare = subparsers.add_parser(
        "compare",
        help="compare classifiers on the same test rows",
        description="Evaluate two or more classifiers that were trained on the same data with the same split on their "
        "test rows, with intervals of the differences.",
        example="nucpro compare data/model other/model",
    )
    compare.group(INPUT).add_argument(
        "models", type=Path, nargs="+", metavar="MODEL", help="folders of models"
    )
    _add_data(compare)
    add_device_only(compare)
    compare.set_defaults(run=_run_compare)


def _add_data(parser: Parser) -> None:
    group = parser.group(INPUT)
    group.add_argument(
        "--trained-on",
        type=Path,
        metavar="DATA",
        help="data folder of the training (default: the one above MODEL)",
    )
    group.add_argument(
        "--families", type=Path, metavar="TSV", help="table of families, for models with --split-by family"
    )
    group.add_argument(
        "--taxonomy",
        type=Path,
        metavar="FILE",
        help="NCBI's taxonomy, for models with --rank (default: that of DATA)",
    )


def _lengths(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of lengths such as 150,300,500")
    return tuple(map(whole_of, words))


def _data_of(arguments: dict[str, Any]) -> Any:
    from nucpro.prediction.evaluation import ModelData

    return ModelData(*(arguments.pop(name) for name in ("trained_on", "families", "taxonomy")))


def _run_evaluate(arguments: dict[str, Any]) -> None:
    from nucpro.cli.train import table_lines, with_interval
    from nucpro.prediction.evaluation import evaluate_lengths
    from nucpro.prediction.options import PredictionOptions

    model: Path = arguments.pop("model")
    data = _data_of(arguments)
    lengths, per_genome = arguments.pop("lengths"), arguments.pop("frames_per_genome")
    options = PredictionOptions.of({**arguments, "input": model, "model": model, "output": model})
    with showing() as show:
        found = evaluate_lengths(model, lengths, data, options, per_genome, show)
    head = ["test genomes", *(f"{one.length} bases" for one in found)]
    rows = [
        ["frames", *(str(one.frames) for one in found)],
        ["genomes", *(str(one.genomes) for one in found)],
        *([name, *(with_interval(one.measured, name, ".4f") for one in found)] for name in SCORES),
    ]
    for line in table_lines(head, iter(rows)):
        say(line)


def _run_compare(arguments: dict[str, Any]) -> None:
    from nucpro.cli.train import comparison_lines
    from nucpro.prediction.evaluation import compare_models

    models = arguments.pop("models")
    data = _data_of(arguments)
    with showing() as show:
        comparison, drawn = compare_models(models, data, arguments["device"], show)
    for line in comparison_lines(comparison, drawn):
        say(line)
