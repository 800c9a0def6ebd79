"""``nucpro``: finds the command, runs it, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import gc
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import nucpro
from nucpro.cli.arguments import add_messages, manner_of
from nucpro.cli.console import Terminated, console, exit_code_of, told_end
from nucpro.errors import NucproError

__all__ = ["leave", "main"]

_COMMANDS = {
    "doctor": "doctor",
    "benchmark": "benchmark",
    "download": "download",
    "dataset": "dataset",
    "split": "split",
    "embed-dna": "embed_dna",
    "extract": "extract",
    "validate": "validate",
    "status": "status",
    "inspect": "inspection",
    "report": "report",
    "export": "export",
    "embed": "embed",
    "train": "train",
    "predict": "predict",
    "fetch-models": "models",
}
"""Module of each command, in the order of the help; only that of the command that is run is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of this process.

    Returns
    -------
    int
        0 done, 1 data or validation error, 2 usage, 3 pre-flight, 130 and 143 interrupted, 141 where the reader of
        the answer left.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(argv[0] if argv else "")
    arguments = vars(parser.parse_args(argv))
    command = arguments.pop("run", None)
    if command is None:
        parser.print_help()
        return 2
    manner = manner_of(arguments)
    with console(arguments.pop("log_file")(arguments), manner):
        return told_end(_exit_code(command, arguments))


def _exit_code(command: Callable[[dict[str, Any]], object], arguments: dict[str, Any]) -> int:
    try:
        command(arguments)
    except (NucproError, KeyboardInterrupt, Terminated, Exception) as error:  # noqa: BLE001
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + signal.SIGPIPE
        return exit_code_of(error)
    return 0


def _nobody_reads() -> bool:
    """Whether the reader of the answer has read enough, as ``head`` does: no error, and nothing to tell anybody."""
    stream = select.poll()
    stream.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in stream.poll(0))


def leave(code: int) -> None:
    """End this process.

    After an error or an interrupt, threads may still be at work on the device; nothing they do matters any
    more (files appear whole or not at all), so the process ends without waiting for them.
    """
    # The work is done, or has been answered for: a late signal must not change what is told about it.
    for late in (signal.SIGINT, signal.SIGTERM):
        signal.signal(late, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Nobody reads it any more. What is still in it must not come up again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if code:
        gc.collect()  # ended worker pools give their semaphores back only when they are collected
        os._exit(code)


class _Version(argparse.Action):
    """Looks the version up when it is asked for: reading metadata takes as long as all else before a command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it, and end."""
        print(f"nucpro {nucpro.__version__}")
        parser.exit()


def _parser(command: str) -> argparse.ArgumentParser:
    """Parser of one command; of all, for help and for words that are no command."""
    parser = argparse.ArgumentParser(
        prog="nucpro",
        description="Joined DNABERT-S and protein language model embeddings of viral and host sequences.",
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="show the version and exit"
    )
    subparsers = parser.add_subparsers(metavar="COMMAND")
    for module in [_COMMANDS[command]] if command in _COMMANDS else _COMMANDS.values():
        import_module(f"nucpro.cli.{module}").add_to(subparsers)
    for command_parser in subparsers.choices.values():
        add_messages(command_parser)
    return parser
