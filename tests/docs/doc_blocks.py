"""What the documentation tells people to type: the fenced blocks of README.md and docs/."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*\Z")
"""The comment in the line above a block that cannot run everywhere; it gives the reason."""
SHOWN_ONLY = ("text", "json", "tsv")
"""Languages of blocks that nobody types."""


@dataclass(frozen=True)
class Block:
    """A block of code of a page; ``line`` counts from 1, ``not_run`` is the reason why it is not run.

    What a block of commands shows stands in a block of text right below it: the button that copies a block copies what
    can be pasted.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None
    shown: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page in order; the language of an indented one is empty."""
    found: list[Block] = []
    before = None
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            mark = NOT_RUN.search(before.content) if before and before.type == "html_block" else None
            line = token.map[0] + 1 if token.map else 0
            follows = before is not None and before.type == "fence" and before.info.strip() == "bash"
            if follows and token.info.strip() == "text":
                found[-1] = replace(found[-1], shown=token.content)
            found.append(Block(page, line, token.info.strip(), token.content, mark and mark[1]))
        before = token
    return found


def runnable(page: Path) -> list[Block]:
    """Those that can be typed everywhere."""
    return [b for b in blocks_of(page) if b.not_run is None and b.language not in SHOWN_ONLY]


@dataclass(frozen=True)
class Command:
    """A command of a block, and the lines that the page shows below it."""

    text: str
    shown: tuple[str, ...] = ()


def commands_of(block: Block) -> list[Command]:
    """One command a line, which may go on after a backslash; what is shown is shown by the last."""
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    commands = [Command(line) for line in lines if line.strip() and not line.startswith("#")]
    assert commands, f"{block.place} has no command"
    commands[-1] = replace(commands[-1], shown=tuple(block.shown.splitlines()))
    return commands
