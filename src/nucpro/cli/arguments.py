"""Options that several commands share, each added by one function."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nucpro.cli.console import PROGRESS, Manner
from nucpro.cli.parser import INPUT, MESSAGES, MODEL, OUTPUT, PERFORMANCE, Parser, one_of
from nucpro.folder.kinds import holds_data
from nucpro.folder.paths import DataFolder
from nucpro.formats.opening import STANDARD_INPUT, path_of
from nucpro.formats.sequences import SequenceType
from nucpro.options import (
    AUTO_DEVICE,
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
    "add_device_only",
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
_RECORDED = "the model of the data folder's files, else "


def sequences(name: str) -> Path:
    """Name of a sequence file on the command line, where ``-`` is standard input."""
    return STANDARD_INPUT if name == "-" else path_of(name)


class _Once(argparse.Action):
    """Accepts a value as an argument or as an option, but only once."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, _: Any = None) -> None:
        """Store the value, unless it is the default."""
        before = getattr(namespace, self.dest, self.default)
        if values is self.default:
            return
        if before is not self.default and before != values:
            parser.error(f"two data folders are given: {before} and {values}")
        setattr(namespace, self.dest, values)


def add_data_dir(parser: Parser, *, option: bool = False) -> None:
    """Add the data folder as the argument DATA, and optionally also as the option of existing scripts."""
    group, default = parser.group(INPUT), Path("./data/")
    group.add_argument(
        "data_dir",
        type=Path,
        metavar="DATA",
        nargs="?",
        action=_Once,
        default=default,
        help="data folder (default: ./data/)",
    )
    if option:
        group.add_argument(
            "--data-dir",
            type=Path,
            metavar="DATA",
            action=_Once,
            default=default,
            help="the same, as an option",
        )


def add_selection(parser: Parser) -> None:
    """Add the options that select files of a data folder."""
    group = parser.group(INPUT)
    group.add_argument(
        "--sequences-per-file",
        type=int,
        metavar="N",
        help="records per full split file; only full files are used (default: as recorded in the folder, else the "
        f"size of its split files, else {SEQUENCES_PER_FILE})",
    )
    group.add_argument(
        "--host-selection",
        type=one_of(HostSelection),
        choices=list(HostSelection),
        default=_DEFAULTS.host_selection,
        help="which host files to use: auto takes the recorded selection, else the existing one, else a new random "
        "sample (default: %(default)s)",
    )
    group.add_argument(
        "--strict-sampling", action="store_true", help="fail if there are fewer host files than viral files"
    )


def add_protein_model(parser: Parser, *, of_data: bool = True) -> None:
    """Add the options that choose the protein model, by default that of a data folder if the command has one."""
    group = parser.group(MODEL)
    group.add_argument(
        "--protein-model",
        metavar="MODEL",
        help="hub id or folder of an ESM-2 model, or a .pt file of fair-esm "
        f"(default: {_RECORDED if of_data else ''}{DEFAULT_MODELS[SequenceType.PROTEIN]})",
    )
    group.add_argument(
        "--protein-revision",
        dest="revision",
        metavar="REVISION",
        help="its branch, tag or commit on the hub (default: main)",
    )
    group.add_argument(
        "--token-dropout",
        choices=TOKEN_DROPOUT,
        default=_DEFAULTS.token_dropout,
        help="scale token embeddings as in training; auto follows the checkpoint (default: %(default)s)",
    )


def add_dna_model(parser: Parser, *, of_data: bool = True) -> None:
    """Add the options that choose the DNA model, by default that of a data folder if the command has one."""
    group = parser.group(MODEL)
    group.add_argument(
        "--dna-model",
        metavar="MODEL",
        help="hub id or folder of a DNABERT-S or DNABERT-2 model "
        f"(default: {_RECORDED if of_data else ''}{DEFAULT_MODELS[SequenceType.DNA]})",
    )
    group.add_argument(
        "--dna-revision", metavar="REVISION", help="its branch, tag or commit on the hub (default: main)"
    )


def add_device(
    parser: Parser,
    *,
    with_batches: bool = True,
    default: str = AUTO_DEVICE,
    of_files: str = "the precision of the data folder's files, else ",
) -> None:
    """Add the options for the device, precision and batches of a model."""
    add_device_only(parser, default)
    parser.group(MODEL).add_argument(
        "--precision",
        choices=PRECISIONS,
        default=_DEFAULTS.precision,
        help=f"auto is {of_files}fp16 on a GPU and fp32 on a CPU; on a CPU, bf16 applies to matrix products only "
        "(default: %(default)s)",
    )
    if with_batches:
        parser.group(PERFORMANCE).add_argument(
            "--tokens-per-batch",
            type=int,
            metavar="N",
            help="tokens per batch (default: 65536 on a GPU, 16384 if it has less than 12 GiB, 2048 on a CPU)",
        )


def add_dry_run(parser: Parser) -> None:
    """Add ``--dry-run``."""
    parser.group(OUTPUT).add_argument(
        "--dry-run", action="store_true", help="check everything and show the plan; change nothing"
    )


def add_device_only(parser: Parser, default: str = AUTO_DEVICE) -> None:
    """Add ``--device``; commands that write to a data folder have ``cuda`` as the default."""
    parser.group(PERFORMANCE).add_argument(
        "--device",
        default=default,
        metavar="DEVICE",
        help="auto (a GPU if there is one, else the CPU), cuda, cuda:N or cpu (default: %(default)s)",
    )


def add_replace(
    parser: Parser, what: str = "files of the same names that this command did not write"
) -> None:
    """Add ``--replace``, for files that the command does not replace by default."""
    parser.group(OUTPUT).add_argument("--replace", action="store_true", help=f"replace {what}")


def add_engine(parser: Parser) -> None:
    """Add the options that choose the engine."""
    group = parser.group(PERFORMANCE)
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default=_DEFAULTS.engine,
        help="local uses one device of this machine; ray uses all GPUs of this machine or of a cluster "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="address of a running Ray cluster; auto finds the cluster of this machine (default: start Ray on this "
        "machine only)",
    )


def add_encoders(parser: Parser) -> None:
    """Add the options for the number and resources of workers on a cluster."""
    group = parser.group(PERFORMANCE)
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="worker processes on the cluster, each with the models loaded (default: one per GPU)",
    )
    for device in ("GPUs", "CPUs"):
        group.add_argument(
            f"--{device.lower()}-per-worker",
            type=float,
            default=1.0,
            metavar="X",
            help=f"{device} per worker; a fraction shares one (default: %(default)g)",
        )


def add_messages(parser: Parser) -> None:
    """Add the options for messages and progress, which every command has."""
    group = parser.group(MESSAGES)
    group.add_argument(
        "--progress",
        choices=PROGRESS,
        help="how to show progress: as a bar, as plain lines, or as JSON lines on standard error for programs "
        "(default: bar on a terminal, else lines)",
    )
    amount = group.add_mutually_exclusive_group()
    amount.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="show only warnings and errors, and the output of read-only commands",
    )
    amount.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also show times, versions, decisions and the time of each step, and tracebacks",
    )


def manner_of(arguments: dict[str, Any]) -> Manner:
    """Remove the options of :func:`add_messages` from parsed arguments and return them."""
    return Manner(*(arguments.pop(name) for name in ("progress", "quiet", "verbose")))


def log_file(arguments: dict[str, Any]) -> Path | None:
    """Log file of the data folder; None for a dry run, and in a folder that is none."""
    folder = DataFolder(arguments["data_dir"])
    return folder.log if not arguments.get("dry_run") and holds_data(folder.root) else None
