"""``nucpro doctor``: whether this machine can run nucpro, and what will be slow."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nucpro.cli.arguments import add_device, add_dna_model, add_protein_model
from nucpro.cli.console import say
from nucpro.cli.parser import INPUT, MODEL, OUTPUT
from nucpro.errors import PreflightError
from nucpro.options import Options

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine: torch, GPU, kernels, models, disk, data folder",
        description="Check the requirements of a run on this machine, and show what will be slow and why. Changes "
        "nothing. Exit code 3 if a run would not start.",
        example="nucpro doctor data\nnucpro doctor --device cpu --json",
    )
    parser.group(INPUT).add_argument(
        "data_dir", type=Path, metavar="DATA", nargs="?", help="data folder to check as well"
    )
    add_device(parser)
    add_protein_model(parser)
    add_dna_model(parser)
    parser.group(MODEL).add_argument(
        "--models",
        action="store_true",
        help="also load the models that are available locally, and compare their vectors of fixed sequences with "
        "known ones",
    )
    parser.group(OUTPUT).add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.inspection.environment import Verdict, examine

    data_dir, as_json = arguments.pop("data_dir"), arguments.pop("json")
    answers = arguments.pop("models")
    options = Options.of(arguments)
    findings = examine(options, data_dir, answers=answers)
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            for line in _lines(f"{finding.verdict:8} {finding.name + ':':17}", finding.text):
                say(line)
    problems = [finding.name for finding in findings if finding.verdict is Verdict.PROBLEM]
    if problems:
        raise PreflightError([f"{name}: see its line above" for name in problems])


def _lines(head: str, text: str) -> list[str]:
    """One line; on a terminal as many as it takes, below each other."""
    if not sys.stdout.isatty():
        return [head + text]
    width = max(shutil.get_terminal_size().columns, len(head) + 20)
    return textwrap.wrap(
        head + text, width, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
    )
