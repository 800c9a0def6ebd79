"""``nucpro``: finds the command, runs it, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import resource
import select
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import nucpro
from nucpro.cli.arguments import add_messages, log_file, manner_of
from nucpro.cli.console import Terminated, console, exit_code_of, say, told_end
from nucpro.cli.parser import Parser, did_you_mean
from nucpro.errors import NucproError, PreflightError, counted, human_size, human_time, printable
from nucpro.machine import cores, ending_signals, free_memory

__all__ = ["answer", "asks_for_help", "commands_of", "leave", "main", "purposes", "tree"]

logger = logging.getLogger(__name__)

_WHAT = "Joined DNABERT-S and protein language model embeddings of viral and host sequences."

_ORDER = (
    "Begin with nucpro doctor. From genomes to a classifier, in this order: dataset, split, embed-dna, extract, train, "
    "predict."
)

_PURPOSES = {
    "Data sets": {"download": "download", "dataset": "dataset", "split": "split"},
    "Vectors": {"embed-dna": "embed_dna", "extract": "extract", "validate": "validate", "embed": "embed"},
    "Monitoring and inspection": {"status": "status", "inspect": "inspection", "report": "report"},
    "Using the vectors": {
        "export": "export",
        "train": "train",
        "evaluate": "evaluation",
        "compare": "evaluation",
        "predict": "predict",
    },
    "This machine": {
        "doctor": "doctor",
        "benchmark": "benchmark",
        "fetch-models": "models",
        "completion": "completion",
    },
}
"""Module of each command by purpose, in the order of the help; only the module of the current command is imported."""
_MODULES = {name: module for commands in _PURPOSES.values() for name, module in commands.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of this process.

    Returns
    -------
    int
        0 success, 1 data or validation error, 2 usage, 3 pre-flight, 129, 130 and 143 interrupted, 141 if the reader of
        the output has closed the pipe.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    if argv[:1] == ["--version"]:
        return answer(f"nucpro {nucpro.__version__}")
    if not argv or argv[0] in ("-h", "--help"):
        return answer(_overview()) or (0 if argv else 2)
    if argv[0] not in _MODULES:
        what = "options come after a command" if argv[0].startswith("-") else f"no command {argv[0]}"
        print(
            f"nucpro: error: {printable(what)}{did_you_mean(argv[0], _MODULES)}\nAll commands: nucpro --help",
            file=sys.stderr,
        )
        return 2
    parser = commands_of(tree([argv[0]]))[argv[0]]
    if asks_for_help(argv):
        return answer(parser.format_help())
    arguments = vars(parser.parse_args(argv[1:]))
    command = arguments.pop("run")
    manner = manner_of(arguments)
    log = log_file(arguments) if arguments.pop("has_log", False) else None
    with console(log, manner):
        if manner.verbose:
            _tell_start(argv, arguments)
        code = told_end(_exit_code(command, arguments))
        if manner.verbose:
            _tell_end(code)
        return code


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for help, which the parser would print without noticing that it cannot."""
    return not {"-h", "--help"}.isdisjoint(argv)


def answer(text: str) -> int:
    """Print a text, and return the exit code."""
    with console():
        return _exit_code(lambda _: say(text.rstrip()), {})


def _tell_start(argv: Sequence[str], arguments: dict[str, Any]) -> None:
    """Log where a command runs, and by what, for those who were not there."""
    from nucpro.state.history import this_software

    free = free_memory()
    software = ", ".join(f"{name} {version}" for name, version in this_software().items())
    options = ", ".join(f"{name} {value}" for name, value in arguments.items() if value is not None)
    logger.debug("Command: %s", shlex.join(["nucpro", *argv]))
    logger.debug("Options: %s", options)
    logger.debug("Software: %s", software)
    logger.debug(
        "Machine: %s, process %d, %s UTC, %s%s; in %s, temporary files in %s",
        os.uname().nodename,
        os.getpid(),
        datetime.now(UTC).isoformat(" ", "seconds").removesuffix("+00:00"),
        counted(cores(), "core"),
        "" if free is None else f", {human_size(free)} of memory free",
        _here() or "a removed folder",
        tempfile.gettempdir(),
    )


def _tell_end(code: int) -> None:
    """Log what a command took: time since the process began, processors and memory."""
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    logger.debug(
        "Exit code %d; %s of CPU time here and %s in worker processes; at most %s of memory here, %s in a worker",
        code,
        *(human_time(used.ru_utime + used.ru_stime) for used in (own, workers)),
        *(human_size(used.ru_maxrss * 1024) for used in (own, workers)),
    )


def _exit_code(command: Callable[[dict[str, Any]], object], arguments: dict[str, Any]) -> int:
    try:
        if _here() is None:
            # Relative paths mean nothing there, and libraries cannot even be loaded.
            raise PreflightError(
                ["the working directory was removed; change to another one (cd), then run again"]
            )
        command(dict(arguments))
    except (NucproError, KeyboardInterrupt, Terminated, Exception) as error:  # noqa: BLE001
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + signal.SIGPIPE
        return exit_code_of(error, arguments)
    return 0


def _here() -> Path | None:
    """Working directory; None if it was removed."""
    with suppress(FileNotFoundError):
        return Path.cwd()
    return None


def _nobody_reads() -> bool:
    """Whether the reader of the output has closed the pipe, like ``head``: this is not an error."""
    stream = select.poll()
    stream.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in stream.poll(0))


def leave(code: int) -> None:
    """End this process.

    After an error or an interrupt, threads may still be using the device. Their work is no longer needed
    (files are written atomically), so the process ends without waiting for them.
    """
    # The result has been reported: a late signal must not change it.
    for late in ending_signals():
        signal.signal(late, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The reader has gone. Buffered output must not raise again when the interpreter exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if code:
        gc.collect()  # finished worker pools release their semaphores only when they are collected
        os._exit(code)


def tree(names: Iterable[str] = _MODULES) -> argparse.ArgumentParser:
    """Parser of the program with the parsers of some commands (by default, all)."""
    root = argparse.ArgumentParser(prog="nucpro")
    subparsers = root.add_subparsers(parser_class=Parser)
    # A module may have several commands.
    for module in dict.fromkeys(_MODULES[name] for name in names):
        import_module(f"nucpro.cli.{module}").add_to(subparsers)
    for parser in subparsers.choices.values():
        add_messages(parser)
    return root


def commands_of(root: argparse.ArgumentParser) -> dict[str, Parser]:
    """Parsers of the commands of :func:`tree` by name."""
    return dict(_subparsers(root).choices)


def purposes() -> dict[str, dict[str, str]]:
    """One-line help of each command, by purpose and name."""
    help_of = {entry.dest: str(entry.help) for entry in _subparsers(tree())._choices_actions}
    return {purpose: {name: help_of[name] for name in names} for purpose, names in _PURPOSES.items()}


def _subparsers(root: argparse.ArgumentParser) -> Any:
    return next(action for action in root._actions if action.nargs == argparse.PARSER)


def _overview() -> str:
    """All commands by purpose."""
    width = max(shutil.get_terminal_size().columns - 2, 40)  # as argparse has it for the help of a command
    lines = ["usage: nucpro COMMAND [options]", "", *textwrap.wrap(_WHAT, width), ""]
    for purpose, commands in purposes().items():
        lines += [f"{purpose}:"]
        for name, text in commands.items():
            first, *rest = textwrap.wrap(text, width - 16)
            lines += [f"  {name:13} {first}", *(f"{'':16}{line}" for line in rest)]
        lines.append("")
    lines += textwrap.wrap(_ORDER, width)
    return "\n".join([*lines, "Options and examples of a command: nucpro COMMAND --help"])
