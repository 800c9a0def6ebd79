"""Commands that faults strike, the folders they start from, and what must hold when they have struck."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from folders import leftovers
from nucpro.cli import main
from nucpro.errors import NucproError
from nucpro.folder.paths import DataFolder
from nucpro.formats import read_merged, read_vectors
from nucpro.formats.atomic import TEMPORARY_MARK
from nucpro.formats.sequences import SequenceType

STRIKE = Path(__file__).parent / "strike.py"
WHOLE = "only in `make faults`, or with --faults=all"
"""Why a case is skipped that is not one of the fast selection."""
JOURNAL_OF_PARTS = "parts.jsonl"
"""Record of an unfinished ``nucpro embed``; the folder with it gets its final name when it is whole."""


@dataclass(frozen=True)
class Scenario:
    """A command on a folder.

    Parameters
    ----------
    start : Path
        The folder as it is before.
    command : callable
        Arguments of ``nucpro`` for a folder.
    """

    start: Path
    command: Callable[[Path], list[str]]

    def struck(
        self, data: Path, point: str, *, before: Sequence[str] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in a process of its own, with a fault at a point (see ``strike.py``)."""
        # The mark is inherited by worker processes, so that they can be told from all others.
        marked = {**os.environ, "STARTED_FOR": str(data), **environment}
        command = [*before, *self.strike_command(data, point)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=marked, timeout=300, errors="replace"
        )

    def strike_command(self, data: Path, point: str) -> list[str]:
        return [sys.executable, str(STRIKE), str(data), point, *self.command(data)]

    def events(self, data: Path) -> dict[str, int]:
        """Numbers of events of an undisturbed run by who counts them; of the worker with the most of them."""
        result = self.struck(data, "all:0:none")
        assert result.returncode == 0, result.stderr
        counts = Path(f"{data}.events")
        most: dict[str, int] = {}
        for path in counts.iterdir():
            who = path.name.partition("-")[0]
            most[who] = max(most.get(who, 0), int(path.read_text()))
        shutil.rmtree(counts)
        return most

    def repeat(self, data: Path) -> int:
        """Run the command here, undisturbed."""
        return main(self.command(data))


@dataclass(frozen=True)
class Baseline:
    """A scenario with what an undisturbed run makes of it, and how many events that takes."""

    scenario: Scenario
    initial: dict[str, bytes]
    final: dict[str, bytes]
    events: dict[str, int]

    def point(self, who: str, part: int, parts: int, *, share: float = 1.0) -> str:
        """Middle of one of ``parts`` equal parts of all events, or of the first share of them."""
        return f"{who}:{1 + int((2 * part + 1) * share * (self.events[who] - 1)) // (2 * parts)}"

    def points(self, who: str, part: int, parts: int, *, every: bool) -> list[str]:
        """One point of a part, or every event that falls to it: all parts together have each event once."""
        if not every:
            return [self.point(who, part, parts)]
        return [f"{who}:{number}" for number in range(1 + part, self.events[who] + 1, parts)]

    def require_whole_files(self, data: Path) -> None:
        """Whatever has its final name is whole: the new file, or the old one that it will replace."""
        for name, content in state(data).items():
            assert content in (self.final.get(name), self.initial.get(name)), name

    def require_recovery(self, data: Path) -> None:
        """A repeated run ends as one that was never disturbed."""
        assert self.scenario.repeat(data) == 0
        again = state(data)
        names = sorted(again.keys() | self.final.keys())
        others = [name for name in names if again.get(name) != self.final.get(name)]
        assert others == [], others
        assert leftovers(data) == []
        assert [*data.rglob("*unfinished"), *data.rglob(JOURNAL_OF_PARTS)] == []


def baseline(scenario: Scenario, folder: Path) -> Baseline:
    """Run a scenario undisturbed in a new folder."""
    data = copied(scenario.start, folder / "data")
    initial = state(data)
    events = scenario.events(data)
    return Baseline(scenario, initial, state(data), events)


def state(data: Path) -> dict[str, bytes]:
    """Everything in a folder that must be equal after equal work, by path; unfinished files are left out."""
    selection = DataFolder(data).selection
    files = (path for path in sorted(data.rglob("*")) if path.is_file())
    return {
        path.relative_to(data).as_posix(): timeless(path.read_bytes())
        for path in files
        if path == selection or not _is_of_runs(path.relative_to(data))
    }


def timeless(content: bytes) -> bytes:
    """Content of an output without the one time that one tells: when a report was made."""
    return _TIME.sub(b"", content)


_TIME = re.compile(rb"(?<=<p>Report of )[0-9-]+ [0-9:]+(?= UTC</p>)")


def _is_of_runs(path: Path) -> bool:
    """Whether a file is a record of runs, which tells times, or what an unfinished one keeps for the next."""
    hidden = path.name.startswith(
        (".", "extraction.log", "nucpro_source.json", "training.json", JOURNAL_OF_PARTS)
    )
    return hidden or any(part.endswith("unfinished") for part in path.parts) or TEMPORARY_MARK in str(path)


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, symlinks=True))


def readable(path: Path) -> bool:
    """Whether our reader takes a ``.pt`` file."""
    sequence_type = SequenceType.DNA if path.name.endswith("_DNABERT_S.pt") else SequenceType.PROTEIN
    try:
        _ = read_merged(path) if path.name.endswith("_merged.pt") else read_vectors(path, sequence_type)
    except NucproError:
        return False
    return True
