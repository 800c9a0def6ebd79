"""The one runner of every command that makes files: it locks the folder, and commits each task.

A finished task goes through :meth:`Runner.each`: file on disk, record, log line, progress, in this order.
:class:`VectorRunner` runs the tasks of a plan in a data folder on an engine, and owns checkpoint, history and
engine. Follow-up work (merging, reading back) is queued for worker processes, in parallel with the encoder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from nucpro.errors import DataError, counted, human_time
from nucpro.execution.engine import Done, Engine, engine_of
from nucpro.execution.workers import Background, Workers
from nucpro.folder.paths import DataFolder
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options
from nucpro.progress import Meter, Show, silent, timed
from nucpro.state.checkpoint import Checkpoint, Fingerprint
from nucpro.state.history import DONE, FAILED, INTERRUPTED, Loaded, Recorder
from nucpro.state.lock import hold

__all__ = [
    "Committed",
    "Runner",
    "Statistics",
    "Task",
    "VectorRunner",
    "statistics_lines",
    "statistics_warnings",
]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """One file of vectors to compute from one FASTA file.

    Parameters
    ----------
    input, output : Path
        The FASTA file, and the file of vectors.
    key : str
        Name of the file pair in the history.
    records, size : int
        Number of records, and the residues or bases that the model reads.
    fact : mapping
        Fact to record about the output once it is on disk.
    truncated : int
        Records that are truncated to the longest input of the model.
    """

    input: Path
    output: Path
    key: str
    records: int
    size: int
    fact: Mapping[str, Any]
    truncated: int = 0

    def __str__(self) -> str:
        return str(self.input)


@dataclass
class Statistics:
    """Counts of a run in progress.

    Parameters
    ----------
    files, sequences, size : int
        Of the files that were made; ``size`` is the residues or bases that were read by the model.
    merged : int
        Merged files that were written.
    splits : int
        Batches that were split after running out of memory.
    tokens, unknown_tokens : int
        Tokens computed, special ones included, and those unknown to the model, such as runs of N in DNA.
    repeated : int
        Sequences that got the vector of an equal one of their file.
    truncated : int
        Sequences that were truncated to the longest input of the model.
    seconds : float
        Time of the extraction.
    """

    files: int = 0
    sequences: int = 0
    size: int = 0
    truncated: int = 0
    merged: int = 0
    splits: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    repeated: int = 0
    seconds: float = 0.0


class _Extracts(Loaded, Protocol):
    def extract(self, fasta: Path, output: Path, /) -> object: ...

    def took(self, output: Path, /) -> float: ...


class _Made(NamedTuple):
    """Seconds from a file's first batch on the device to its vectors on disk, and the fingerprint of the vectors."""

    seconds: float
    stamp: Fingerprint | None


def make_vectors(encoder: _Extracts, task: Task) -> _Made:
    """Do a task with a loaded encoder."""
    encoder.extract(task.input, task.output)
    # Taken at once, so that a later replacement of the file is noticed.
    return _Made(encoder.took(task.output), Fingerprint.of(task.output))


class Committed(NamedTuple):
    """Log line and progress of a task that is on disk and recorded.

    Parameters
    ----------
    line : str
        Line of the log.
    units, work : int
        Units of progress, and their size where they differ; see :meth:`nucpro.progress.Meter.advance`.
    """

    line: str
    units: int = 1
    work: int | None = None


class Runner(AbstractContextManager["Runner"]):
    """Locks a folder while a command makes files in it: one command at a time.

    Parameters
    ----------
    lock : Path or None
        The lock file, in an existing folder. None if the command already holds the lock.

    Raises
    ------
    PreflightError
        On entering: the folder cannot be written, or another run holds it.
    """

    def __init__(self, lock: Path | None) -> None:
        self._lock = lock
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._lock is not None:
            self._stack.enter_context(hold(self._lock))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def each(
        self,
        results: Iterable[Result],
        commit: Callable[[Result], Committed],
        meter: Meter,
        *,
        done: int,
        total: int,
    ) -> Iterator[Result]:
        """Commit tasks as they are done, and yield each.

        Parameters
        ----------
        results : iterable
            Results of the tasks.
        commit : callable
            Records a task once its files are on disk; only then it is logged and shown.
        meter : Meter
            Shows the progress.
        done, total : int
            Tasks done before, and in total.
        """
        for number, result in enumerate(results, start=done + 1):
            told = commit(result)
            logger.info("[%d/%d] %s", number, total, told.line)
            meter.advance(told.units, told.work)
            yield result


class VectorRunner(Runner):
    """Runner that makes vectors in a data folder.

    Parameters
    ----------
    folder : DataFolder
        The data folder.
    options : Options
        Options of the engine.
    facts : mapping
        Facts about the start of the run, for the history.
    show : callable, optional
        Called with the progress.
    is_held : bool
        Whether the command already holds the lock.

    Raises
    ------
    PreflightError
        On entering: the folder cannot be written, or another run holds it.
    """

    def __init__(
        self,
        folder: DataFolder,
        options: Options,
        facts: Mapping[str, Any],
        show: Show = silent,
        *,
        is_held: bool = False,
    ) -> None:
        super().__init__(None if is_held else folder.lock)
        self._folder = folder
        self._options = options
        self._show = show
        self._tokens_noted = 0
        self._planned = (0, 0, 0)
        self._meter: Meter | None = None
        self.history = Recorder(folder, facts)
        self.statistics = Statistics()
        self.records: Checkpoint
        self.engine: Engine

    def __enter__(self) -> Self:
        with self._stack:
            super().__enter__()
            self.records = self._stack.enter_context(Checkpoint(self._folder))
            self.engine = self._stack.enter_context(engine_of(self._options))
            self._beside = Background(self.engine.workers)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.history.close(_ending(error), str(error or ""))
        finally:
            super().__exit__(kind, error, trace)

    @property
    def workers(self) -> Workers:
        """Workers for calls that need no model."""
        return self.engine.workers

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the time of a step in the history, under a name for users."""
        with self.history.stage(name), timed(f"Step '{name}'"):
            yield

    def plan(self, *, total: int, done: int, tasks: Sequence[Task], stale: int) -> None:
        """Start the history: all files, those that need no work, the work of the encoder, stale files."""
        size = sum(task.size for task in tasks)
        self._planned = (total, total - len(tasks), size)
        self._meter = None
        self.history.open(total, done, size, stale)

    def run(self, tasks: Sequence[Task], then: Callable[[Task], object] = lambda _: None) -> Iterator[Task]:
        """Run tasks with the models that the engine has loaded; commit and yield each when it is done.

        Parameters
        ----------
        tasks : sequence of Task
            In the order of work.
        then : callable, optional
            Called with each committed task.

        Raises
        ------
        NucproError
            The first error of the encoder or of the follow-up work; finished work is kept.
        """
        start = time.perf_counter()
        total, already, size = self._planned
        if self._meter is None:
            self._meter = Meter(self._show, "Embedding", total, done=already, work=size)

        def commit(done: Done[Task, _Made]) -> Committed:
            committed = self._commit(done, time.perf_counter() - start)
            then(done.item)
            return committed

        with self.stage("extract"):
            # With nothing to do, nothing was loaded.
            made = self.engine.run(make_vectors, tasks, len(tasks), self._beside.poll) if tasks else ()
            before = already + self.statistics.files
            for done in self.each(made, commit, self._meter, done=before, total=total):
                self._beside.poll()
                yield done.item

    def beside(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        then: Callable[[Any], object],
        *,
        first: bool = False,
    ) -> None:
        """Queue a call for a worker process; see :meth:`nucpro.execution.workers.Background.add`."""
        self._beside.add(function, arguments, then, first=first)

    def finish(self) -> None:
        """Wait for the follow-up work.

        Raises
        ------
        NucproError
            The first error of that work.
        """
        self._beside.drain()
        count, totals = self.statistics, self.engine.totals
        count.splits, count.tokens, count.unknown_tokens, count.repeated = totals

    def _commit(self, done: Done[Task, _Made], seconds: float) -> Committed:
        """Record a task whose file is on disk; ``seconds`` is the time since the first task started."""
        task, made = done.item, done.result
        if self.records.fact("fasta", task.input) is None:
            # Its vectors may be those of the file that was checked, or of its present content.
            raise DataError(
                f"{task.input}: changed during the run; run again when it is complete: "
                "finished work is kept, and stale files are recomputed"
            )
        self.records.add("vectors", task.output, task.fact, made.stamp)
        count = self.statistics
        count.files, count.sequences = count.files + 1, count.sequences + task.records
        count.size, count.seconds = count.size + task.size, seconds
        count.truncated += task.truncated
        tokens = self.engine.totals.tokens
        counts = (task.records, task.size, tokens - self._tokens_noted)
        self.history.file(task.key, made.seconds, *counts, done.elapsed)
        self._tokens_noted = tokens
        line = f"Extracted {task.input} ({counted(task.records, 'sequence')}, {made.seconds:.1f}s)"
        return Committed(line, work=task.size)


def _ending(error: BaseException | None) -> str:
    if error is None:
        return DONE
    return FAILED if isinstance(error, Exception) else INTERRUPTED


def statistics_lines(statistics: Statistics, sequence_type: SequenceType) -> list[str]:
    """Counts, times and rates of a run."""
    count, seconds = statistics, statistics.seconds
    made = f"{counted(count.files, 'file')}, {counted(count.sequences, 'sequence')}"
    lines = [f"Extracted {made} in {human_time(seconds)}"]
    if count.files and seconds > 0:
        lines.append(
            f"Time: {seconds / count.files:.2f} s per file, {1000 * seconds / count.sequences:.3f} ms per sequence; "
            f"rate: {count.sequences / seconds:,.0f} sequences/s, {count.size / seconds:,.0f} {sequence_type.unit}/s, "
            f"{count.tokens / seconds:,.0f} tokens/s"
        )
    if count.repeated:
        share = count.repeated / count.sequences
        lines.append(
            f"Equal sequences of a file were computed once: {count.repeated:,} ({share:.1%}) were repeats"
        )
    if sequence_type is SequenceType.PROTEIN:
        lines.append(f"Merged {counted(count.merged, 'file')}")
    return lines


def statistics_warnings(count: Statistics) -> Iterator[str]:
    """Counts that an ordinary run does not have."""
    if count.truncated:
        yield f"{counted(count.truncated, 'sequence')} truncated at the maximum length of the model"
    if count.splits:
        yield f"{counted(count.splits, 'batch')} split because memory ran out; lower --tokens-per-batch"
    if count.unknown_tokens:
        share = count.unknown_tokens / count.tokens
        yield f"{counted(count.unknown_tokens, 'token')} ({share:.2%}) unknown to the model (runs of N?)"
