"""``nucpro extract``: the main job."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nucpro.cli.console import FileBar
from nucpro.layout import DataFolder
from nucpro.options import DEFAULT_MODEL, PRECISIONS, TOKEN_DROPOUT, Options
from nucpro.pipeline import Progress, run
from nucpro.selection import HostSelection

__all__ = ["add_arguments", "add_model_arguments", "add_to", "log_file"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "extract",
        help="extract, merge and validate the protein embeddings of a data folder",
        description="Extract the protein embeddings of a VirNucPro data folder, merge them with its DNABERT-S "
        "files and validate the result. Run again after an interruption, it continues.",
    )
    add_arguments(parser)
    parser.set_defaults(run=_run, log_file=log_file)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the job; the script of the same job has the same."""
    defaults = Options()
    parser.add_argument(
        "--data-dir", type=Path, default=Path("./data/"), help="the data folder (default: ./data/)"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--sequences-per-file",
        type=int,
        default=defaults.sequences_per_file,
        metavar="N",
        help="records of a full split file; only full files are used (default: %(default)s)",
    )
    parser.add_argument(
        "--host-selection",
        type=HostSelection,
        choices=list(HostSelection),
        default=defaults.host_selection,
        help="which host files: auto takes the recorded selection, else the existing one, else a new draw "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--strict-sampling", action="store_true", help="refuse fewer host files than viral files"
    )
    parser.add_argument(
        "--trust-existing",
        action="store_true",
        help="keep protein files of the right width that say nothing of their origin",
    )
    parser.add_argument(
        "--audit",
        type=int,
        default=0,
        metavar="N",
        help="recompute N random sequences in float32 and compare",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and show the plan; change nothing"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the protein model and how it runs."""
    defaults = Options()
    parser.add_argument(
        "--protein-model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help="hub id or folder of an ESM-2 model (default: %(default)s)",
    )
    parser.add_argument("--revision", help="revision of the model on the hub")
    parser.add_argument(
        "--device", default=defaults.device, help="cuda, cuda:N or cpu (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=defaults.precision,
        help="auto is fp16 on a GPU and fp32 on a CPU (default: %(default)s)",
    )
    parser.add_argument(
        "--token-dropout",
        choices=TOKEN_DROPOUT,
        default=defaults.token_dropout,
        help="scale token embeddings as in training; auto follows the checkpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--tokens-per-batch", type=int, metavar="N", help="token budget of a batch (default: by device)"
    )


def log_file(arguments: dict[str, Any]) -> Path | None:
    """Log file of the data folder; none for a run that changes nothing."""
    return None if arguments.get("dry_run") else DataFolder(arguments["data_dir"]).log


def _run(arguments: dict[str, Any]) -> None:
    bar: FileBar | None = None

    def show(progress: Progress) -> None:
        nonlocal bar
        bar = bar or FileBar(progress)
        bar.show(progress)

    try:
        run(Options.of(arguments), show)
    finally:
        if bar is not None:
            bar.close()
