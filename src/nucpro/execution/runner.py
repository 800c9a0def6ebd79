"""The one runner of every command that makes files: it holds their folder, and commits each piece of work.

A piece that is done goes through :meth:`Runner.each`: file on disk, record of it, line of the log, progress, in this
order, and nothing else hears of it before. :class:`VectorRunner` has an engine do the tasks of a plan in a data folder,
and holds what such a run holds besides: what is known of its files, the history, the engine. What follows a task
(merging, reading back) is queued beside the encoder, for worker processes.
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
from nucpro.progress import Meter, Show, silent
from nucpro.state.checkpoint import Checkpoint, Fingerprint
from nucpro.state.history import DONE, FAILED, INTERRUPTED, Counting, Recorder
from nucpro.state.lock import hold

__all__ = ["Committed", "Runner", "Statistics", "Task", "VectorRunner", "statistics_lines"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """One file of vectors to be made of one FASTA file.

    Parameters
    ----------
    input, output : Path
        The FASTA file, and the file of vectors.
    key : str
        Its name in the history.
    records, size : int
        Records, and the residues or bases of them that the model reads.
    fact : mapping
        What to remember of the output once it is on disk.
    truncated : int
        Records that are cut at the longest input of the model.
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
    """What a run did, counted as it goes.

    Parameters
    ----------
    files, sequences, size : int
        Of the files that were made; ``size`` is the residues or bases that were read by the model.
    merged : int
        Merged files that were written.
    splits : int
        Batches that were split after running out of memory.
    tokens, unknown_tokens : int
        Tokens that were computed, special ones included, and those of them that the model does not know, as runs of N
        give on the DNA side.
    truncated : int
        Sequences that were cut at the longest input of the model.
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
    seconds: float = 0.0


class _Extracts(Counting, Protocol):
    def extract(self, fasta: Path, output: Path, /) -> object: ...

    def took(self, output: Path, /) -> float: ...


class _Made(NamedTuple):
    """Seconds from a file's first batch on the device to its vectors on disk, and the stamp of the vectors."""

    seconds: float
    stamp: Fingerprint | None


def make_vectors(encoder: _Extracts, task: Task) -> _Made:
    """Do a task with a loaded encoder."""
    encoder.extract(task.input, task.output)
    # Right here: whoever replaces the file later is noticed.
    return _Made(encoder.took(task.output), Fingerprint.of(task.output))


class Committed(NamedTuple):
    """What is told of a piece of work that is on disk and recorded.

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
    """Holds a folder while a command makes files in it, so that one does at a time.

    Parameters
    ----------
    lock : Path or None
        What is locked; the folder must be there. None where the command holds the folder already.

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
        """Commit pieces of work as they are done, and yield each.

        Parameters
        ----------
        results : iterable
            Gives what was done.
        commit : callable
            Records it once its files are on disk; only then it is logged and shown.
        meter : Meter
            Shows the progress.
        done, total : int
            Pieces that were done before, and all.
        """
        for number, result in enumerate(results, start=done + 1):
            told = commit(result)
            logger.info("[%d/%d] %s", number, total, told.line)
            meter.advance(told.units, told.work)
            yield result


class VectorRunner(Runner):
    """What a run holds while it makes vectors in a data folder.

    Parameters
    ----------
    folder : DataFolder
        The data folder.
    options : Options
        Where the work is done.
    facts : mapping
        What the history says that the run was started with.
    show : callable, optional
        Takes the progress.
    is_held : bool
        Whether the command holds the folder already.

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
        """Where calls are made that need no model."""
        return self.engine.workers

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note the time of a step in the history, under a name that people know."""
        with self.history.stage(name):
            yield

    def plan(self, *, total: int, done: int, tasks: Sequence[Task], stale: int) -> None:
        """Begin to write the history: all files, those that need no work, what an encoder has to do, stale files."""
        size = sum(task.size for task in tasks)
        self._planned = (total, total - len(tasks), size)
        self._meter = None
        self.history.open(total, done, size, stale)

    def run(self, tasks: Sequence[Task], then: Callable[[Task], object] = lambda _: None) -> Iterator[Task]:
        """Do tasks with what the engine has loaded, commit each when it is done, and yield it.

        Parameters
        ----------
        tasks : sequence of Task
            In the order of work.
        then : callable, optional
            Is told about each task that was committed.

        Raises
        ------
        NucproError
            The first fault of the encoder, or of the work beside it; what was finished stays.
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
        """Wait for the work beside the encoder.

        Raises
        ------
        NucproError
            The first fault of that work.
        """
        self._beside.drain()
        totals = self.engine.totals
        self.statistics.splits, self.statistics.tokens, self.statistics.unknown_tokens = totals

    def _commit(self, done: Done[Task, _Made], seconds: float) -> Committed:
        """Record a task whose file is on disk; ``seconds`` is the time since the first was begun."""
        task, made = done.item, done.result
        if self.records.fact("fasta", task.input) is None:
            # Its vectors may be those of the file that was checked, or of the one that is there now.
            raise DataError(
                f"{task.input}: changed while the run was at work; run again when it is complete: "
                "what was finished is kept, and what no longer fits is recomputed"
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
        line = f"Extracted {task.input} ({task.records} sequences, {made.seconds:.1f}s)"
        return Committed(line, work=task.size)


def _ending(error: BaseException | None) -> str:
    if error is None:
        return DONE
    return FAILED if isinstance(error, Exception) else INTERRUPTED


def statistics_lines(statistics: Statistics, side: SequenceType) -> list[str]:
    """Counts, times and rates of a run."""
    count, seconds = statistics, statistics.seconds
    letters = "residues" if side is SequenceType.PROTEIN else "bases"
    made = f"{counted(count.files, 'file')}, {counted(count.sequences, 'sequence')}"
    lines = [f"Extracted {made} in {human_time(seconds)}"]
    if count.files and seconds > 0:
        lines.append(
            f"Time: {seconds / count.files:.2f} s per file, {1000 * seconds / count.sequences:.3f} ms per sequence; "
            f"rate: {count.sequences / seconds:,.0f} sequences/s, {count.size / seconds:,.0f} {letters}/s, "
            f"{count.tokens / seconds:,.0f} tokens/s"
        )
    if side is SequenceType.PROTEIN:
        lines.append(f"Merged {counted(count.merged, 'file')}")
    if count.truncated:
        lines.append(f"Warning: {counted(count.truncated, 'sequence')} cut at the longest input of the model")
    if count.splits:
        lines.append(
            f"Warning: {counted(count.splits, 'batch')} split because memory ran out; use --tokens-per-batch"
        )
    if count.unknown_tokens:
        share = count.unknown_tokens / count.tokens
        lines.append(
            f"Warning: {counted(count.unknown_tokens, 'token')} ({share:.2%}) unknown to the model (runs of N?)"
        )
    return lines
