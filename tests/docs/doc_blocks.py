"""What the documentation tells people to type: the fenced blocks of README.md and docs/."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    """A block of code of a page; ``line`` counts from 1, ``not_run`` is the reason why it is not run."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

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
            found.append(Block(page, line, token.info.strip(), token.content, mark and mark[1]))
        before = token
    return found


def runnable(page: Path) -> list[Block]:
    """Those that can be typed everywhere."""
    return [b for b in blocks_of(page) if b.not_run is None and b.language not in SHOWN_ONLY]


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the lines that the page shows below it."""

    text: str
    shown: tuple[str, ...]


def commands_of(block: Block) -> list[Command]:
    """Commands stand behind ``$``, and may go on after a backslash; the other lines are what they show."""
    commands: list[list[str]] = []
    goes_on = False
    for line in block.text.splitlines():
        if goes_on:
            commands[-1][0] += line.strip()
        elif line.startswith("$ "):
            commands.append([line[2:]])
        else:
            assert commands, f"{block.place} begins without a command"
            commands[-1].append(line)
        goes_on = (goes_on or line.startswith("$ ")) and line.endswith("\\")
        if goes_on:
            commands[-1][0] = commands[-1][0][:-1]
    return [Command(text, tuple(shown)) for text, *shown in commands]
