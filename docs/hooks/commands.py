"""The page of all commands and options, made of their parsers whenever the site is built."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from nucpro.cli.main import commands_of, purposes, tree
from nucpro.cli.parser import MESSAGES, Help, Parser, value_of


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add all commands to their page; MkDocs calls this for each page."""
    return f"{markdown}\n{reference()}" if page.file.src_uri == "commands.md" else markdown


def reference() -> str:
    """Every command with its options."""
    parsers = commands_of(tree())
    lines = []
    for purpose, commands in purposes().items():
        lines.append(f"## {purpose}\n")
        for name in commands:
            lines += [*_command(name, parsers[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, parser: Parser) -> Iterator[str]:
    yield f"### nucpro {name}\n"
    yield f"{parser.description}\n"
    yield f"```text\n{parser.usage_line}\n```\n"
    yield f"```bash\n{parser.example}\n```\n"
    formatter = Help(parser.prog)
    for group in parser._action_groups:
        # Those about messages are the same for all, and stand at the top.
        if group._group_actions and group.title != MESSAGES:
            yield f"| {group.title} | |\n|---|---|"
            for action in group._group_actions:
                yield f"| {_names(action)} | {_cell(formatter._expand_help(action))} |"
            yield ""


def _names(action: argparse.Action) -> str:
    *short, long = action.option_strings or [""]
    whole = f"{long} {value_of(action)}".strip()
    return _cell(", ".join(f"`{name}`" for name in (*short, whole)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
