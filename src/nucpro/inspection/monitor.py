"""State of a run, read from another process.

Reads the lock, what was appended to the history since the last look, and the end of the log; goes to the live view
of the command line. It lists no folder and opens no file of vectors, so it costs the same for 100,000 files.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from itertools import pairwise

from nucpro.errors import StoreError, counted, human_time
from nucpro.extraction.plan import discovery_lines, discovery_warnings, state_lines
from nucpro.extraction.survey import outside_lines, read_only_survey
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats.opening import look_at_kept
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options
from nucpro.state import lock
from nucpro.state.history import DONE, FAILED, INTERRUPTED, FileDone, History, Run

__all__ = ["WARNING", "Monitor", "Rates", "View", "status"]

_RECENT_SECONDS = 60.0
_RECENT_FILES = 200
"""The rate is that of the last minute, but of at least one file; of no more files than these."""
_QUIET_SECONDS = 120.0
_QUIET_FILES = 20.0
"""A run is called quiet after two minutes without a file, and the time of twenty recent ones."""
_LOG_TAIL = 1 << 16
_SHOWN_PROBLEMS = 5
_LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} (WARNING|ERROR) (.*)")
WARNING = "Warning: "
"""Beginning of a problem that does not stop a run."""

_NAMES = {sequence_type.value: sequence_type.word for sequence_type in SequenceType}
_WORDS = {
    DONE: "ended: done",
    FAILED: "ended: failed",
    INTERRUPTED: "ended: interrupted; run the same command again to continue",
}


def status(options: Options) -> list[str]:
    """State of a data folder: done, stale, missing, outside the selection, problems.

    Changes nothing, and may be called during a run.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences per file and the selection.

    Returns
    -------
    list of str
        Lines to show.

    Raises
    ------
    PreflightError
        There is no such folder, or it holds no full viral file.
    """
    with read_only_survey(options) as survey:
        selection = survey.discover()
        problems = survey.inputs()
        recipe = survey.records.recipe_of(survey.sequence_type)
        lines = [_run_line(survey.folder, time.time())]
        if recipe is None:
            lines += _existing(selection.pairs)
            again = shlex.join(["nucpro", "extract", str(options.data_dir), "--dry-run"])
            lines.append(f"No model is recorded here; what a run would keep and make: {again}")
            warnings = list(selection.warnings)
        else:
            plan = survey.compare(recipe)
            lines += [*discovery_lines(selection, plan), *state_lines(plan)]
            warnings = discovery_warnings(selection, plan)
        lines += [f"{WARNING}{warning}" for warning in warnings]
        lines += outside_lines(survey.outside())
        return lines + [f"Problem: {problem}" for problem in problems]


def _existing(pairs: Sequence[FilePair]) -> list[str]:
    """Files of each kind that exist, whatever made them."""
    kinds = (
        ("DNA files:", [pair.dna_vectors for pair in pairs]),
        ("Protein files:", [pair.protein_vectors for pair in pairs]),
        ("Merged files:", [pair.merged for pair in pairs]),
    )
    return [f"{name:15}{sum(path.exists() for path in paths)} of {len(paths)} exist" for name, paths in kinds]


def _run_line(folder: DataFolder, now: float) -> str:
    """Progress of the active run on a folder; else how the last run ended, of either sequence type."""
    view = Monitor(folder).look(now)
    far = f"{view.done} of {counted(view.total, 'file')}" if view.total else ""
    if not view.is_over:
        return f"Run: {', '.join(filter(None, (view.state, view.what, far)))}"
    if view.started is None:
        return "No run in progress, and none is recorded here"
    ended = f"{view.ending} {human_time(max(0.0, now - view.started - view.elapsed), 0)} ago"
    return f"No run in progress. Last: {', '.join(filter(None, (view.what, ended, far)))}"


@dataclass(frozen=True)
class Rates:
    """Rates of the last files, per second.

    Parameters
    ----------
    files, sequences, letters, tokens : float
        Letters: residues or bases; tokens: those that were computed.
    """

    files: float
    sequences: float
    letters: float
    tokens: float


@dataclass(frozen=True)
class View:
    """Snapshot of a run.

    Parameters
    ----------
    state : str
        What it does, or how it ended, in words.
    is_over : bool
        Whether no run holds the data folder.
    sequence_type : str
        ``protein`` or ``dna``; empty before the first run.
    follows : str
        What the same command makes after it; empty for nothing.
    ending : str
        How it ended, in one word; empty while it is at work.
    started : float or None
        In seconds since 1970.
    elapsed : float
        Seconds from its start to now, or to its end.
    total, done, made, stale : int
        Files of the run; those that are done, earlier runs included; those that this run made; those that were
        there at its start, but outdated, and are replaced.
    rates : Rates or None
        None before the first file.
    seconds_left : float or None
        Estimate from the residues or bases left; None if unknown.
    quiet : float
        Seconds since its last sign.
    last_file : str
        FASTA file, below the data folder, whose vectors were finished last.
    stages : tuple of (str, float)
        Stages that ended, with their seconds.
    problems : tuple of str
        Problems and warnings, the latest ones.
    """

    state: str
    is_over: bool
    sequence_type: str = ""
    follows: str = ""
    ending: str = ""
    started: float | None = None
    elapsed: float = 0.0
    total: int = 0
    done: int = 0
    made: int = 0
    stale: int = 0
    rates: Rates | None = None
    seconds_left: float | None = None
    quiet: float = 0.0
    last_file: str = ""
    stages: tuple[tuple[str, float], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """What is made, in words."""
        sequence_type = _NAMES.get(self.sequence_type, self.sequence_type)
        return f"{sequence_type}, then {self.follows}" if self.follows else sequence_type


class Monitor:
    """Reads the state of a data folder repeatedly; changes nothing.

    Parameters
    ----------
    folder : DataFolder
        The data folder.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._history = History(folder)

    def look(self, now: float) -> View:
        """State of the newest run.

        Parameters
        ----------
        now : float
            Seconds since 1970.
        """
        at_work = lock.state(self._folder.lock)
        runs = self._history.refresh()
        is_over = not at_work.startswith("at work")
        if is_over and not runs:
            return View("no run is recorded here yet", is_over)
        run = runs[-1] if runs else None
        if run is None or not (is_over or _is_of(run, at_work)):
            # A run writes its first line when its checks are over.
            return View(f"{at_work}: checking files before the start", is_over)
        return self._view(run, at_work, is_over, now)

    def _view(self, run: Run, at_work: str, is_over: bool, now: float) -> View:
        end = (run.ended or run.last) if is_over else now
        total, before = run.planned.get("files", 0), run.planned.get("done", 0)
        recent = _recent(run.files)
        rates = _rates(recent)
        quiet = max(0.0, now - run.last)
        is_extracting = not is_over and run.ended is None and before + len(run.files) < total
        problems = [*_endings(run, is_over), *self._logged(run.started, run.ended)]
        if is_extracting and rates and quiet > max(_QUIET_SECONDS, _QUIET_FILES / rates.files):
            problems.append(f"no file was finished for {quiet:.0f} s; check {self._folder.log}")
        sequence_type = str(run.facts.get("side", ""))
        follows = run.facts.get("protein_follows") is True
        return View(
            state=_state(run, at_work, is_over, follows=follows),
            is_over=is_over,
            sequence_type=sequence_type,
            follows=SequenceType.PROTEIN.word if follows else "",
            ending=(run.how or "killed") if is_over else "",
            started=run.started,
            elapsed=max(0.0, end - run.started),
            total=total,
            done=before + len(run.files),
            made=len(run.files),
            stale=run.planned.get("stale", 0),
            rates=rates,
            seconds_left=_seconds_left(run, rates, quiet) if is_extracting else None,
            quiet=quiet,
            last_file=self._fasta(run.files[-1].file, sequence_type) if run.files else "",
            stages=tuple(run.stages),
            problems=tuple(problems[-_SHOWN_PROBLEMS:]),
        )

    def _fasta(self, key: str, sequence_type: str) -> str:
        """FASTA file that a run read, given the key of its pair, which is that of the nucleotide file."""
        pair = self._folder.pair_of_key(key)
        if pair is None or sequence_type not in _NAMES:
            return key
        return pair.relative(pair.fasta(SequenceType(sequence_type)))

    def _logged(self, since: float, until: float | None) -> Iterator[str]:
        """Warnings and errors at the end of the log that are of the time of the run: training writes there too."""
        lines = _tail(self._folder).splitlines()
        for line, following in pairwise([*lines, ""]):
            match = _LOG_LINE.fullmatch(line)
            if match and int(since) <= _moment(match[1]) <= (until or math.inf):
                # The first line of a list only announces it.
                first = f" {following.strip().removeprefix('- ')}" if match[3].endswith(":") else ""
                yield f"{WARNING if match[2] == 'WARNING' else ''}{match[3]}{first}"


def _is_of(run: Run, at_work: str) -> bool:
    """Whether the process that holds the lock is the one that wrote the run's lines."""
    facts = run.facts
    return at_work == f"at work, process {facts.get('process')} on host {facts.get('host')}"


def _state(run: Run, at_work: str, is_over: bool, *, follows: bool) -> str:
    if run.how == DONE and follows:
        # The command holds the lock until it ends; the next run writes its first line after its checks.
        stopped = "ended: DNA files done, protein files not begun; run the same command again to continue"
        return stopped if is_over else f"{at_work}: DNA files done, checking protein files"
    if run.how is not None:
        return _WORDS.get(run.how, f"ended: {run.how}")
    if is_over:
        return "ended: killed; run the same command again to continue"
    return at_work


def _endings(run: Run, is_over: bool) -> list[str]:
    return run.message.splitlines() if is_over and run.how == FAILED else []


def _recent(files: list[FileDone]) -> list[FileDone]:
    """Files of the last minute, at least the last one."""
    seconds, first = 0.0, len(files)
    while first > 0 and len(files) - first < _RECENT_FILES and seconds < _RECENT_SECONDS:
        first -= 1
        seconds += files[first].elapsed
    return files[first:]


def _rates(files: list[FileDone]) -> Rates | None:
    seconds = sum(file.elapsed for file in files)
    if seconds <= 0:
        return None
    return Rates(
        len(files) / seconds,
        sum(file.records for file in files) / seconds,
        sum(file.letters for file in files) / seconds,
        sum(file.tokens for file in files) / seconds,
    )


def _seconds_left(run: Run, rates: Rates | None, quiet: float) -> float | None:
    left = run.planned.get("letters", 0) - sum(file.letters for file in run.files)
    if rates is None or rates.letters <= 0 or left <= 0:
        return None
    return max(0.0, left / rates.letters - quiet)


def _tail(folder: DataFolder) -> str:
    try:
        with look_at_kept(folder.log) or BytesIO() as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            return file.read().decode(errors="replace")
    except (OSError, StoreError):
        return ""


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
