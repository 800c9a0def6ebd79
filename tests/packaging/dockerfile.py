"""What a Dockerfile does, done in a folder without a Docker engine: absolute paths lie below that folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    name: str
    text: str


def instructions(dockerfile: Path) -> list[Instruction]:
    """All instructions, with continued lines joined as Docker joins them."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


class Build:
    """The state of an image while it is built.

    Parameters
    ----------
    context : Path
        Folder that is copied from.
    root : Path
        Folder that stands for the root of the image.
    base : dict of str to str
        Variables of the base image.
    """

    def __init__(self, context: Path, root: Path, base: Mapping[str, str]) -> None:
        self.context = context
        self.root = root
        self.variables = dict(base)
        self.folder = root
        self.user = "root"
        self.entrypoint: list[str] = []
        self.command: list[str] = []

    def run(self, dockerfile: Path) -> None:
        """Follow all instructions; an unknown one is an error."""
        for instruction in instructions(dockerfile):
            getattr(self, f"_{instruction.name.lower()}")(instruction.text)

    def start(self, *more: str, arguments: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Start a container: the entry point with the command of the image, or with other arguments."""
        words = [self._placed(word) for word in [*self.entrypoint, *(arguments or self.command)]]
        return subprocess.run(
            [*words, *more], cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False
        )

    def _placed(self, word: str) -> str:
        return (
            str(self.root / word[1:])
            if word.startswith("/") and not word.startswith(str(self.root))
            else word
        )

    def _arg(self, text: str) -> None:
        name, _, default = text.partition("=")
        if default or text.endswith("="):
            self.variables.setdefault(name, default)

    def _from(self, text: str) -> None:
        assert text == "${BASE}", "the folder stands for the base"

    def _workdir(self, text: str) -> None:
        self.folder = Path(self._placed(text))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _copy(self, text: str) -> None:
        *sources, target = text.split()
        for source in sources:
            to = self.folder / target
            if (self.context / source).is_dir():
                shutil.copytree(self.context / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(self.context / source, to)

    def _env(self, text: str) -> None:
        for name, value in re.findall(r"(\w+)=(\S+)", text):
            self.variables[name] = self._placed(value)

    def _run(self, text: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", text],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"

    def _user(self, text: str) -> None:
        self.user = text

    def _entrypoint(self, text: str) -> None:
        self.entrypoint = json.loads(text)

    def _cmd(self, text: str) -> None:
        self.command = json.loads(text)


def copied_paths(dockerfile: Path) -> Iterator[str]:
    """Everything that is copied from the context."""
    for name, text in instructions(dockerfile):
        if name == "COPY":
            yield from text.split()[:-1]
