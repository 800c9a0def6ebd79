"""``nucpro benchmark``: the speed of this machine, as a table to paste into an issue."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import nucpro
from nucpro.cli.arguments import add_device
from nucpro.cli.console import say
from nucpro.cli.parser import OUTPUT, PERFORMANCE
from nucpro.options import Options, require

__all__ = ["add_to"]

_SECONDS = 45
"""About a minute in total, including model creation and kernel compilation."""


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "benchmark",
        help="measure the speed of both encoders on this machine, in about a minute",
        description="Measure sequences/s of both encoders, with random weights of the real shapes, and compare them "
        "with the rate of matrix products on this machine. Needs no model and no network, and changes nothing. Paste "
        "the output into an issue to add your card to the table.",
        example="nucpro benchmark --device cuda:1\nnucpro benchmark --seconds 20 --json > card.json",
    )
    add_device(parser, with_batches=False, of_files="")
    parser.group(PERFORMANCE).add_argument(
        "--seconds",
        type=float,
        default=_SECONDS,
        metavar="N",
        help="duration of the measurement (default: %(default)s)",
    )
    parser.group(OUTPUT).add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    seconds, as_json = arguments.pop("seconds"), arguments.pop("json")
    require(0 < seconds <= 3600, "--seconds", seconds, "more than 0, at most 3600")
    from nucpro.embedding.device import PRECISIONS, choose_device, settled, use_processors
    from nucpro.embedding.identification import precision_of
    from nucpro.inspection.speed import machine, matrix_rate, speeds

    options = settled(Options.of(arguments))
    device = choose_device(options.device)
    dtype = PRECISIONS[precision_of(options)]
    with _without_messages():
        if device.type == "cpu":
            use_processors(dtype)
        result = {
            **asdict(machine(device)),
            "nucpro": nucpro.__version__,
            "precision": precision_of(options),
            "matrix_teraflops": matrix_rate(device, dtype, seconds * 0.1),
            "speeds": [asdict(speed) for speed in speeds(device, dtype, seconds * 0.9)],
        }
    for line in [json.dumps(result, indent=1)] if as_json else _table(result):
        say(line)


@contextmanager
def _without_messages() -> Iterator[None]:
    """Suppress log messages of encoders: the table contains the information, and scripts read the output."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _table(result: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    rate = result["matrix_teraflops"]
    return [
        f"{result['device']}; {result['precision']}",
        "",
        "| encoder | input | runs | sequences/s | TFLOP/s | of the matrix rate |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one['encoder']} | {one['sequences']} | {one['runs']} | {_number(one['sequences_per_s'])} | "
            f"{one['teraflops']:.3g} | {one['teraflops'] / rate:.0%} |"
            for one in result["speeds"]
        ),
        "",
        f"Matrix rate: {rate:.3g} TFLOP/s. nucpro {result['nucpro']}, {result['software']}",
    ]


def _number(value: float) -> str:
    """Format with four digits or as a whole number, never with an exponent."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"
