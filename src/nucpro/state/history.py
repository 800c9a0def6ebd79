"""The history of runs in a data folder: for people to read, never for decisions.

A run appends JSON objects, one per line, to a file beside the checkpoint: its start and options, the time of
each stage, one line per finished file, the result of validation, and how it ended. A run that ends before it
changes anything leaves no line. A training appends one line, with the folder of its model. The report and the
live view read the file; losing it changes no later run.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import nucpro
from nucpro.errors import StoreError
from nucpro.formats.opening import LONGEST_LINE, look_at_kept
from nucpro.formats.records import Count, Name, Within, checked
from nucpro.state.checkpoint import Journal, StateFiles, journal_lines

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "FileDone",
    "History",
    "Loaded",
    "Recorder",
    "Run",
    "Totals",
    "models",
    "read",
    "record_model",
    "this_software",
]

logger = logging.getLogger(__name__)

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
"""How a run ended; a killed run records nothing."""

_LONGEST_MESSAGE = 4000
_TRAINED = "trained"
_PACKAGES = ("torch", "numpy", "tokenizers", "safetensors")


@dataclass(frozen=True, slots=True)
class FileDone:
    """One file whose vectors were made.

    Parameters
    ----------
    time : float
        When it was written, in seconds since 1970.
    file : str
        Key of its pair (:attr:`nucpro.folder.paths.FilePair.key`).
    seconds : float
        From its first batch on the device to its vectors on disk; the times of files overlap.
    records, letters : int
        Records, and residues or bases that the model read.
    tokens : int
        Tokens computed since the previous file was finished; the encoder is ahead of the disk, so they may
        belong to the next file.
    elapsed : float
        Seconds since the previous file was finished: their sum over all files is the time of the extraction.
    """

    time: float
    file: str
    seconds: float
    records: int
    letters: int
    tokens: int
    elapsed: float


@dataclass
class Run:
    """One run, from its lines in the history.

    Parameters
    ----------
    started : float
        In seconds since 1970.
    facts : dict
        What the run used: ``sequence_type``, ``engine``, ``process``, ``host``, ``software``, ``options``, and whether
        ``protein_follows`` in the same command.
    planned : dict
        ``files``, those ``done`` and those ``stale`` before the run, and ``letters`` (residues or bases) to
        read; empty until known.
    stages : list of (str, float)
        Name and seconds of each stage that ended, in order.
    files : list of FileDone
        In the order in which they were finished.
    validated : dict
        ``files``, ``viral`` and ``host`` records that passed; empty if validation did not pass.
    ended : float or None
        None for a run that is active or was killed.
    how : str or None
        :data:`DONE`, :data:`FAILED`, :data:`INTERRUPTED`, or None.
    message : str
        Why it failed.
    """

    started: float
    facts: dict[str, Any]
    planned: dict[str, int] = field(default_factory=dict)
    stages: list[tuple[str, float]] = field(default_factory=list)
    files: list[FileDone] = field(default_factory=list)
    validated: dict[str, int] = field(default_factory=dict)
    ended: float | None = None
    how: str | None = None
    message: str = ""

    @property
    def last(self) -> float:
        """Time of the last line, in seconds since 1970."""
        return self.ended or (self.files[-1].time if self.files else self.started)


class Totals(NamedTuple):
    """Counts of one encoder, or of several together.

    Parameters
    ----------
    splits : int
        Batches that were split after running out of memory.
    tokens, unknown : int
        Computed tokens, special ones included, and unknown ones.
    repeated : int
        Sequences that were not computed, since an equal one of their file was.
    """

    splits: int = 0
    tokens: int = 0
    unknown: int = 0
    repeated: int = 0


class Loaded(Protocol):
    """What an engine has loaded: it counts its work, and can be stopped from writing."""

    @property
    def totals(self) -> Totals:
        """Counts since it was loaded."""
        ...

    def stop_writing(self) -> None:
        """Wait for files that are being written; begin no other, though threads may still be computing."""
        ...


class Recorder:
    """Appends the lines of one run; a disk error loses lines, never the run.

    Nothing is written before :meth:`open`: a run that fails its checks changes nothing.

    Parameters
    ----------
    folder : StateFiles
        Path of the history.
    facts : mapping
        Plain values that describe the start of the run; see :class:`Run`.
    """

    def __init__(self, folder: StateFiles, facts: Mapping[str, Any]) -> None:
        self._journal = Journal(folder.history)
        self._waiting: list[dict[str, Any]] = []
        self._is_open = False
        self._in_stage = False
        who = {"process": os.getpid(), "host": platform.node()}
        self._note("started", **who, **facts)

    def used(self, **facts: Any) -> None:
        """Add what a run uses, once that is known; see :class:`Run`. Call before :meth:`open`."""
        self._waiting[0].update(facts)

    def open(self, files: int, done: int, letters: int, stale: int = 0) -> None:
        """Start writing, with the plan: all files, those that are done, residues or bases to read, stale files."""
        self._is_open = True
        self._note("planned", files=files, done=done, letters=letters, stale=stale)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; one that fails or is interrupted is recorded too, a stage within it is part of it."""
        if self._in_stage:
            yield
            return
        start, self._in_stage = time.perf_counter(), True
        try:
            yield
        finally:
            self._in_stage = False
            self._note("stage", name=name, seconds=round(time.perf_counter() - start, 3))

    def file(self, key: str, seconds: float, records: int, letters: int, tokens: int, elapsed: float) -> None:
        """Record a finished file; see :class:`FileDone`."""
        times = {"seconds": round(seconds, 3), "elapsed": round(elapsed, 3)}
        self._note("file", file=key, **times, records=records, letters=letters, tokens=tokens)

    def validated(self, files: int, viral: int, host: int) -> None:
        """Record that validation passed: files, and records of each class."""
        self._note("validated", files=files, viral=viral, host=host)

    def close(self, how: str, message: str = "") -> None:
        """Record how the run ended, and close the file."""
        if self._is_open:
            self._note("ended", how=how, message=message[:_LONGEST_MESSAGE])
        self._is_open = False
        self._journal.close()

    def _note(self, event: str, **values: Any) -> None:
        self._waiting.append({"event": event, "time": _now(), **values})
        if not self._is_open:
            return
        try:
            self._journal.append(self._waiting)
        except StoreError as error:
            logger.warning("%s; the report will lack this run", error)
            self._is_open = False
        self._waiting = []


class History:
    """The runs of a data folder, read incrementally: :meth:`refresh` reads only new lines.

    Parameters
    ----------
    folder : StateFiles
        Path of the history.
    """

    def __init__(self, folder: StateFiles) -> None:
        self._path = folder.history
        self._offset = 0
        self.runs: list[Run] = []
        self.models: dict[str, None] = {}

    def refresh(self) -> list[Run]:
        """Read what was appended since the last time, and return all runs, the oldest first.

        Lines that are cut or damaged are left out; without a file there are no runs.
        """
        with suppress(OSError, StoreError):
            for entry, _ in journal_lines(self._new_lines()):
                self._take(entry)
        return self.runs

    def _new_lines(self) -> Iterator[bytes]:
        file = look_at_kept(self._path)
        with BytesIO() if file is None else BufferedReader(file) as lines:
            if lines.seek(0, os.SEEK_END) < self._offset:
                self._offset, self.runs, self.models = 0, [], {}
            lines.seek(self._offset)
            for line in iter(partial(lines.readline, LONGEST_LINE), b""):
                if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                    break
                self._offset += len(line)
                yield line

    def _take(self, entry: dict[str, Any]) -> None:
        try:
            when = datetime.fromisoformat(entry.pop("time")).astimezone(UTC).timestamp()
            event = entry.pop("event")
            if event == "started":
                self.runs.append(Run(when, entry))
            elif event == _TRAINED:
                trained: _Trained = checked(_Trained, entry)
                # The one that was trained last is last.
                self.models.pop(trained.model, None)
                self.models[trained.model] = None
            elif self.runs:
                _apply(self.runs[-1], event, when, entry)
        except (ValueError, TypeError, KeyError, OverflowError):
            return


def read(folder: StateFiles) -> list[Run]:
    """All runs that are recorded in a folder, the oldest first; see :meth:`History.refresh`.

    Parameters
    ----------
    folder : StateFiles
        Data folder.

    Returns
    -------
    list of Run
        The runs, the oldest first.
    """
    return History(folder).refresh()


def models(folder: StateFiles) -> list[Path]:
    """Model folders that were trained on a folder and recorded there, the latest training last.

    Parameters
    ----------
    folder : StateFiles
        Data folder.

    Returns
    -------
    list of Path
        Model folders, the latest training last.
    """
    history = History(folder)
    history.refresh()
    return [folder.root / path for path in history.models]


def record_model(folder: StateFiles, model: Path) -> None:
    """Record that a model was trained on a folder.

    Parameters
    ----------
    folder : StateFiles
        The folder; one that cannot be written loses the line, never the model.
    model : Path
        Folder of the model. Recorded relative to `folder` where it is within it, so that both can be moved.
    """
    path, root = model.resolve(), folder.root.resolve()
    name = path.relative_to(root) if path.is_relative_to(root) else path
    journal = Journal(folder.history)
    try:
        journal.append([{"event": _TRAINED, "time": _now(), "model": str(name)}])
    except StoreError as error:
        logger.info("%s; a report will not find the model %s", error, model)
    journal.close()


def this_software() -> dict[str, str]:
    """Versions of Python, nucpro and the packages that results depend on."""
    # The commands import this module for their help, which needs no versions.
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    found = {"nucpro": nucpro.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


_Seconds = Annotated[float, Within(0, 1e12)]


@dataclass(frozen=True)
class _File:
    """Line of a finished file; earlier versions wrote the time since the previous file as the file's own."""

    file: Name
    seconds: _Seconds
    records: Count
    letters: Count
    tokens: Count
    elapsed: _Seconds | None = None


@dataclass(frozen=True)
class _Stage:
    name: Name
    seconds: _Seconds


@dataclass(frozen=True)
class _Trained:
    model: Name


@dataclass(frozen=True)
class _Ended:
    how: Name
    message: str


def _apply(run: Run, event: str, when: float, entry: dict[str, Any]) -> None:
    if event == "file":
        one: _File = checked(_File, entry)
        elapsed = one.seconds if one.elapsed is None else one.elapsed
        run.files.append(FileDone(when, one.file, one.seconds, one.records, one.letters, one.tokens, elapsed))
    elif event == "stage":
        stage: _Stage = checked(_Stage, entry)
        run.stages.append((stage.name, stage.seconds))
    elif event in ("planned", "validated"):
        setattr(run, event, checked(dict[str, Count], entry))
    elif event == "ended":
        end: _Ended = checked(_Ended, entry)
        run.ended, run.how, run.message = when, end.how, end.message


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
