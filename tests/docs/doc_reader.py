"""Somebody who types what the documentation says, on a machine without a GPU and with small files."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from doc_blocks import ROOT, Block, Command, commands_of

from nucpro.cli import main

CPU = ["--device", "cpu"]
HERE = {
    "embed-dna": CPU,
    "extract": [*CPU, "--no-report"],
    "report": ["--points", "100"],
}
"""What commands of other pages than the quick start, which is typed as it stands, are given here: this machine has no
GPU, and pictures take their time."""
SCRIPTS = {
    "scripts/extract_training_data.py": "extract",
    "features_extract.py": "extract",
    "train.py": "train",
}


class Reader:
    """Types the blocks of one page, one after the other, in one folder; ``here`` adds options to commands."""

    def __init__(self, folder: Path, here: Mapping[str, Sequence[str]] | None = None) -> None:
        self.folder = folder
        self.here = HERE if here is None else here
        self.names: dict[str, object] = {"__name__": "page"}

    def follow(self, block: Block) -> None:
        """Do what a block says; raise where it fails, or shows something else than the page."""
        with contextlib.chdir(self.folder):
            if block.language == "python":
                exec(compile("\n" * block.line + block.text, str(block.page), "exec"), self.names)
            else:
                for command in commands_of(block):
                    self._type(block, command)

    def nucpro(self, arguments: Sequence[str]) -> str:
        """Run a command of nucpro; returns what it shows."""
        with contextlib.chdir(self.folder):
            return _shown_by(lambda: main([*arguments, *self.here.get(arguments[0], [])]))

    def _type(self, block: Block, command: Command) -> None:
        try:
            shown = self._run(command.text)
        except AssertionError as error:
            raise AssertionError(f"{block.place}: {command.text}\n{error}") from error
        for line in command.shown:
            assert line in ("", "...") or _pattern(line) in _pattern(shown), (
                f"{block.place}: {command.text!r} shows no line like {line!r}, but\n{shown}"
            )

    def _run(self, text: str) -> str:
        words = [name for word in shlex.split(text, comments=True) for name in _files_of(word)]
        if words[0] == "nucpro" and not set(words) & {"|", "&&", ">", ";"}:
            return self.nucpro(words[1:])
        if words[0] == "python" and words[1] in SCRIPTS:
            return _shown_by(lambda: _run_script(words[1], [*words[2:], *self.here[SCRIPTS[words[1]]]]))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def _files_of(word: str) -> list[str]:
    """Names that a shell makes of a pattern; the word itself where it is none, such as a command of sed."""
    return sorted(map(str, Path().glob(word))) if "*" in word and not word.startswith("/") else [word]


def _shown_by(call: Callable[[], object]) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = call()
        except SystemExit as ended:  # of argparse
            code = ended.code
    assert code == 0, f"ended with {code}:\n{shown.getvalue()}"
    return shown.getvalue()


def _run_script(name: str, arguments: list[str]) -> int:
    found: int = runpy.run_path(str(ROOT / name))["main"](arguments)
    return found


def _pattern(text: str) -> str:
    """Text without its numbers and units of size: sizes of the demo and times are not those of the page."""
    return re.sub(r"\d[\d.,]*", "0", re.sub(r"(\d) [kMG]?B\b", r"\1 B", text))
