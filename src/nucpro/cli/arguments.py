"""Options that several commands share, each added by one function."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nucpro.cli.console import PROGRESS, Manner
from nucpro.folder.paths import DataFolder
from nucpro.formats.opening import STANDARD_INPUT
from nucpro.formats.sequences import SequenceType
from nucpro.options import (
    DEFAULT_MODELS,
    ENGINES,
    PRECISIONS,
    SEQUENCES_PER_FILE,
    TOKEN_DROPOUT,
    HostSelection,
    Options,
)

__all__ = [
    "add_data_dir",
    "add_device",
    "add_dna_model",
    "add_dry_run",
    "add_encoders",
    "add_engine",
    "add_messages",
    "add_protein_model",
    "add_replace",
    "add_selection",
    "log_file",
    "manner_of",
    "sequences",
]

_DEFAULTS = Options()
_RECORDED = "that of the data folder's files, else "


def sequences(name: str) -> Path:
    """Name of a sequence file on the command line, where ``-`` stands for standard input."""
    return STANDARD_INPUT if name == "-" else Path(name)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the data folder as the argument DATA."""
    parser.add_argument(
        "data_dir",
        type=Path,
        metavar="DATA",
        nargs="?",
        default=Path("./data/"),
        help="data folder (default: ./data/)",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which files of a data folder are used."""
    parser.add_argument(
        "--sequences-per-file",
        type=int,
        metavar="N",
        help="records of a full split file; only full files are used (default: as recorded in the folder, else as its "
        f"split folders have it, else {SEQUENCES_PER_FILE})",
    )
    parser.add_argument(
        "--host-selection",
        type=HostSelection,
        choices=list(HostSelection),
        default=_DEFAULTS.host_selection,
        help="which host files: auto takes the recorded selection, else the existing one, else a new draw "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--strict-sampling", action="store_true", help="refuse fewer host files than viral files"
    )


def add_protein_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the protein model."""
    parser.add_argument(
        "--protein-model",
        metavar="MODEL",
        help=f"hub id or folder of an ESM-2 model (default: {_RECORDED}{DEFAULT_MODELS[SequenceType.PROTEIN]})",
    )
    parser.add_argument("--revision", help="revision of the protein model on the hub")
    parser.add_argument(
        "--token-dropout",
        choices=TOKEN_DROPOUT,
        default=_DEFAULTS.token_dropout,
        help="scale token embeddings as in training; auto follows the checkpoint (default: %(default)s)",
    )


def add_dna_model(parser: argparse.ArgumentParser, revision: str) -> None:
    """Add the options that choose the DNA model; its revision has another name where proteins have one too."""
    parser.add_argument(
        "--dna-model",
        metavar="MODEL",
        help="hub id or folder of a DNABERT-S or DNABERT-2 model "
        f"(default: {_RECORDED}{DEFAULT_MODELS[SequenceType.DNA]})",
    )
    parser.add_argument(revision, dest="dna_revision", help="revision of the DNA model on the hub")


def add_device(parser: argparse.ArgumentParser, *, with_batches: bool = True) -> None:
    """Add the options that say where and how a model runs."""
    parser.add_argument(
        "--device", default=_DEFAULTS.device, help="cuda, cuda:N or cpu (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=_DEFAULTS.precision,
        help="auto is that of the data folder's files, else fp16 on a GPU and fp32 on a CPU, where bf16 is that of "
        "products only (default: %(default)s)",
    )
    if with_batches:
        parser.add_argument(
            "--tokens-per-batch", type=int, metavar="N", help="token budget of a batch (default: by device)"
        )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add the option to change nothing."""
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and show the plan; change nothing"
    )


def add_replace(
    parser: argparse.ArgumentParser, what: str = "files of the same names that this command did not make"
) -> None:
    """Add the option to replace what the command would not replace unasked."""
    parser.add_argument("--replace", action="store_true", help=f"replace {what}")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which machines do the work."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=_DEFAULTS.engine,
        help="local is this machine with one device; ray is all GPUs of this machine, or of a cluster "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="a running Ray cluster, auto for the one that this machine is part of (default: start one of this "
        "machine alone)",
    )


def add_encoders(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how many models are loaded on a cluster, and what each takes."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="models to load on the cluster (default: one a GPU)"
    )
    for device in ("gpus", "cpus"):
        parser.add_argument(
            f"--{device}-per-worker",
            type=float,
            default=1.0,
            metavar="X",
            help=f"{device.upper()} of each; a part of 1 to share one (default: %(default)g)",
        )


def add_messages(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much is told, and in which form; every command has them."""
    group = parser.add_argument_group("messages")
    group.add_argument(
        "--progress",
        choices=PROGRESS,
        help="how progress is shown: drawn, as plain lines, or as JSON lines on standard error for programs "
        "(default: bar on a terminal, else lines)",
    )
    amount = group.add_mutually_exclusive_group()
    amount.add_argument("-q", "--quiet", action="store_true", help="only warnings, errors and the answer")
    amount.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also times, details, and where in the code an error arose",
    )


def manner_of(arguments: dict[str, Any]) -> Manner:
    """Take the options of :func:`add_messages` out of parsed arguments."""
    return Manner(*(arguments.pop(name) for name in ("progress", "quiet", "verbose")))


def log_file(arguments: dict[str, Any]) -> Path | None:
    """Log file of the data folder; none for a run that changes nothing."""
    return None if arguments.get("dry_run") else DataFolder(arguments["data_dir"]).log
