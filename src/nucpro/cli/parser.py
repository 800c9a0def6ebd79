"""Parsing and help of the command line: one parser per command, with its options in groups.

Differences from argparse: an error shows the usage of the command, not of the program; misspelt options get a
suggestion; and an option with an optional number takes the next word only if it is a number.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from nucpro.errors import printable, shortened
from nucpro.formats.opening import path_of

__all__ = [
    "EVALUATION",
    "GROUPS",
    "INPUT",
    "MESSAGES",
    "MODEL",
    "OUTPUT",
    "PERFORMANCE",
    "TRAINING",
    "Help",
    "Parser",
    "did_you_mean",
    "one_of",
    "value_of",
    "whole_of",
]

Choice = TypeVar("Choice", bound=StrEnum)

INPUT, MODEL, TRAINING, EVALUATION = "input", "model", "training", "evaluation"
OUTPUT, PERFORMANCE, MESSAGES = "output", "performance", "messages"
GROUPS = (INPUT, MODEL, TRAINING, EVALUATION, OUTPUT, PERFORMANCE, MESSAGES)
"""Groups of options, in the order of the help."""

_LARGEST = (1 << 32) - 1
_WIDEST = 100
_INDENT = 28


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a suggestion of similar words for a message; empty if there is none.

    Examples
    --------
    >>> did_you_mean("extrat", ["extract", "export"])
    '; did you mean extract?'
    """
    # Without the hyphens that all options share.
    names = {name.lstrip("-"): name for name in known}
    near = [names[name] for name in difflib.get_close_matches(word.lstrip("-"), names, 2, cutoff=0.6)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


class Help(argparse.HelpFormatter):
    """Help formatter with the width of the terminal that keeps the lines of examples."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _WIDEST) - 2
        super().__init__(prog, max_help_position=_INDENT, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap single paragraphs; keep the lines of other text."""
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(f"{indent}{line}" for line in text.splitlines())

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Show the value of an option once: ``-o, --output FOLDER``."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {value_of(action)}"


def whole_of(word: str) -> int:
    """Whole number of a word, of a size that every record can hold."""
    number = int(word)
    if abs(number) > _LARGEST:
        raise argparse.ArgumentTypeError(f"{shortened(word, 20)}; allowed: whole numbers up to {_LARGEST}")
    return number


@cache  # one function for one enumeration, in every command
def one_of(kind: type[Choice]) -> Callable[[str], Choice]:
    """Type of an option whose value is a member of an enumeration; for other values, the error lists all members."""

    def member(word: str) -> Choice:
        try:
            return kind(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{word}; allowed: {', '.join(kind)}") from None

    return member


class Parser(argparse.ArgumentParser):
    """Parser of one command.

    Parameters
    ----------
    example : str
        Example commands, for the help and the manual.
    **options
        Options of ``argparse.ArgumentParser``.
    """

    def __init__(self, *, example: str = "", **options: Any) -> None:
        super().__init__(**options, formatter_class=Help, add_help=False, allow_abbrev=False)
        self.register("type", Path, path_of)
        self.register("type", int, whole_of)
        # Values such as -1,-2 and -1e5 are no options either.
        self._negative_number_matcher = re.compile(r"-[0-9.]")
        self.example = example
        self._usage = ""
        if example:
            self.epilog = "\n".join(["examples:", *(f"  {line}" for line in example.splitlines())])
        self._groups = {name: self.add_argument_group(name) for name in GROUPS}
        self.group(MESSAGES).add_argument("-h", "--help", action="help", help="show this help and exit")

    def group(self, name: str) -> argparse._ArgumentGroup:
        """Return a group, to add options to it."""
        return self._groups[name]

    @property
    def actions(self) -> list[argparse.Action]:
        """All arguments and options."""
        return self._actions

    def format_usage(self) -> str:
        """Format one line with the required arguments; the help lists the options."""
        return f"usage: {self.usage_line}\n"

    @property
    def usage_line(self) -> str:
        """The command with all required arguments."""
        needed = [action for action in self._actions if action.required and action.option_strings]
        words = [value_of(action) for action in self._get_positional_actions()]
        words += [f"{action.option_strings[-1]} {value_of(action)}" for action in needed]
        return " ".join([self.prog, *words, "[options]"])

    def format_help(self) -> str:
        """Format usage, description, options in groups, and examples."""
        self.usage = self.usage_line.replace("%", "%%")
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, the usage of this command, and the error message."""
        self.exit(
            2,
            f"{self._usage or self.format_usage()}{self.prog}: error: {printable(message)}\n"
            f"All options: {self.prog} --help\n",
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, refuse empty values, and suggest similar options for an unknown one."""
        args = sys.argv[1:] if args is None else args
        for before, word in pairwise([self.prog, *args]):
            if not word or (word.startswith("--") and word.endswith("=")):
                name = word[:-1] or (before if before.startswith("-") else "an argument")
                self.error(f"{name} is empty; give a value (a variable of the shell may not be set)")
        # What is missing comes last: an unknown option may have been meant for it.
        required = [action for action in self._actions if action.required]
        self._usage = self.format_usage()
        try:
            for action in required:
                action.required = False
            _, unknown = self.parse_known_args(args)
        finally:
            for action in required:
                action.required = True
        if unknown:
            name = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
            if name.startswith("-"):
                self.error(f"no option {name}{did_you_mean(name, self._option_string_actions)}")
            self.error(f"one argument too many: {name}")
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an option with an optional number takes the next word only if it is a number."""
        return super().parse_known_args(args if args is None else list(self._with_numbers(args)), namespace)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse ``--length=--``: argparse drops the value, and gives an empty list."""
        if action.option_strings and "--" in arg_strings:
            self.error(f"{'/'.join(action.option_strings)} is --, which is not a value")
        return super()._get_values(action, arg_strings)

    def _with_numbers(self, words: Sequence[str]) -> Iterator[str]:
        for word, following in pairwise([*words, ""]):
            action = self._option_string_actions.get(word)
            if action is not None and action.nargs == argparse.OPTIONAL and not _fits(action, following):
                yield f"{word}={action.const}"
            else:
                yield word


def _fits(action: argparse.Action, word: str) -> bool:
    """Whether a word is a value of an option."""
    if not callable(action.type):
        return True
    try:
        action.type(word)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False
    return True


def value_of(action: argparse.Action) -> str:
    """Format the value of an option: ``N``, ``[N]``, ``{fp16,fp32}``; empty if it takes none."""
    if action.nargs == 0:
        return ""
    name = action.metavar or (
        f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
    )
    if action.nargs == argparse.ONE_OR_MORE:
        return f"{name} ..."
    return f"[{name}]" if action.nargs == argparse.OPTIONAL else str(name)
