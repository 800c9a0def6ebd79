"""One run on one data folder: the steps that the protein and the DNA side have in common.

Each step is one method, called in the order in which they stand here; :mod:`nucpro.pipeline` does that.
A job holds what the steps share: the lock, the record of what is done, the worker processes, the model.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from nucpro import lock
from nucpro.background import Background
from nucpro.checkpoint import Checkpoint
from nucpro.discovery import Census, census, inspect_all
from nucpro.engine import Engine, Finished, LocalEngine, in_order
from nucpro.errors import DataError, ModelError, NucproError, PreflightError
from nucpro.fasta import FastaFacts
from nucpro.history import DONE, FAILED, INTERRUPTED, Recorder, this_software
from nucpro.layout import DataFolder, FilePair, Side, Source
from nucpro.options import Options
from nucpro.plan import Plan, PlanItem, State, Unproven, make_plan, vectors_fact
from nucpro.preflight import space_problems, unsplit_problems, writing_problems
from nucpro.recipe import Recipe
from nucpro.selection import Selection, load, save, select
from nucpro.splitting import remove_unfinished, split_source
from nucpro.store import make_folder, remove_temporaries
from nucpro.summary import Statistics, discovery_lines, plan_lines, statistics_lines
from nucpro.workers import Workers, starting_problems

# The room below imports torch, which takes seconds and hundreds of megabytes. Worker processes import this
# module with the main program, and never need it: so it is imported where it is used.
if TYPE_CHECKING:
    from nucpro.encoders import FastaEncoder, Identified

__all__ = ["Job", "Progress", "engine_of", "stage"]

logger = logging.getLogger(__name__)

Step = TypeVar("Step", bound=Callable[..., Any])


def stage(name: str) -> Callable[[Step], Step]:
    """Make a step of a job note its time in the history of runs, under a name that people know."""

    def of(step: Step) -> Step:
        @wraps(step)
        def timed(job: Job, *arguments: Any, **named: Any) -> Any:
            with job.history.stage(name):
                return step(job, *arguments, **named)

        return cast(Step, timed)

    return of


@dataclass(frozen=True)
class Progress:
    """How far the extraction is.

    Parameters
    ----------
    files, total : int
        Files that are done, those from earlier runs included, and all files of the run.
    seconds_left : float or None
        Estimate from the letters left and the rate so far; None before the first file.
    """

    files: int
    total: int
    seconds_left: float | None


class Job(ABC):
    """One run on one data folder; a context manager that holds the lock and ends the workers.

    Parameters
    ----------
    options : Options
        What was asked for.
    needs_model : bool
        False for somebody who only looks at what is there.

    Raises
    ------
    PreflightError
        On entering: there is no such folder, it cannot be written, or another run holds it.
    """

    side: ClassVar[Side]

    def __init__(self, options: Options, *, needs_model: bool = True) -> None:
        self.options = options.anywhere() if options.uses_cluster else options
        self._needs_model = needs_model
        self.folder = DataFolder(self.options.data_dir)
        self.statistics = Statistics()
        self.history = Recorder(self.folder, self._started_with())
        self.checkpoint: Checkpoint
        self.engine: Engine
        self.workers: Workers
        self.census: Census
        self.selection: Selection
        self.plan: Plan
        self._is_compared = False
        self._facts: dict[FilePair, FastaFacts] = {}
        self._refusals: list[str] = []
        self._tokens_noted = 0
        self._model: Identified
        self._identifying: Future[Identified] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if not self.folder.root.is_dir():
            raise PreflightError(
                [f"{self.folder.root}: no such folder; name the data folder with --data-dir"]
            )
        with ExitStack() as stack:
            if not self.options.dry_run:
                stack.enter_context(lock.hold(self.folder.lock))
            self.checkpoint = stack.enter_context(Checkpoint(self.folder, read_only=self.options.dry_run))
            self.engine = stack.enter_context(engine_of(self.options))
            self.workers = self.engine.workers
            self._background = Background(self.workers)
            if self._needs_model:
                self._identifying = self._identify_ahead(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.history.close(_ending(error), str(error or ""))
        finally:
            self._stack.__exit__(kind, error, trace)

    @stage("discover")
    def discover(self, sources: Iterable[Source] | None = None) -> Selection:
        """Find all files and choose those of this run.

        Parameters
        ----------
        sources : iterable of Source, optional
            The sources to look at; by default the data folder is walked.

        Raises
        ------
        PreflightError
            No full viral file, or a recorded host file that is gone.
        """
        found = self.folder.walk_sources() if sources is None else list(sources)
        size = self.options.sequences_per_file
        self.census = census(found, self.checkpoint, self.workers, size)
        left_out = self.census.left_out(size)
        try:
            full = self.census.full(size)
            selection = select(full, _has_output, load(self.folder), self.options.host_selection)
        except PreflightError as error:
            hints = [*left_out, *self.census.sizes_hint(size)]
            raise PreflightError([*self.census.problems, *error.problems, *hints]) from error
        if self.options.strict_sampling:
            self._refusals = [f"refused by --strict-sampling: {text}" for text in selection.warnings]
        self.selection = replace(selection, warnings=(*selection.warnings, *left_out))
        return self.selection

    def take(self, pairs: Sequence[FilePair]) -> Selection:
        """Use these files, in place of what :meth:`discover` would choose."""
        sources = list(dict.fromkeys(pair.source for pair in pairs))
        self.census = census(sources, self.checkpoint, self.workers, self.options.sequences_per_file)
        viral, hosts = ([pair for pair in pairs if pair.label == label] for label in (1, 0))
        self.selection = Selection(tuple(viral), tuple(hosts), "given")
        return self.selection

    @property
    def pairs(self) -> tuple[FilePair, ...]:
        """The files of this run, in the order of work."""
        return self.selection.pairs

    def inputs(self) -> list[str]:
        """Read the inputs of all files; returns everything that is wrong with them."""
        problems = list(self.census.problems)
        split = [pair for pair in self.pairs if pair.fasta(self.side).parent.is_dir()]
        facts, unreadable = self._inspect(
            [pair for pair in split if os.path.lexists(pair.fasta(self.side))], self.side
        )
        problems += unreadable
        problems += self._input_problems(split, facts)
        problems += unsplit_problems(self._unsplit())
        problems += self._refusals
        # Files that are still to be split have no facts yet, but their number of records is known.
        self._facts = {
            pair: facts.get(pair.fasta(self.side)) or FastaFacts.unknown(self.census.records[pair])
            for pair in self.pairs
        }
        return problems

    def compare(self, recipe: Recipe, unproven: Unproven | None = None) -> Plan:
        """Compare what lies on disk with what a recipe would make; needs :meth:`inputs` first.

        What becomes of files that do not say how they were made is what the options say, where it is not given.
        """
        pairs = [(pair, self._facts[pair]) for pair in self.pairs]
        unproven = unproven or self._unproven
        self.plan = make_plan(pairs, recipe, self.checkpoint, self.workers, unproven=unproven)
        self._is_compared = True
        return self.plan

    @stage("check before the start")
    def check(self) -> Plan:
        """Check everything, and compare what lies on disk with what this run would make.

        Raises
        ------
        PreflightError
            All problems at once.
        """
        problems = self.inputs() + writing_problems(self._folders_written()) + starting_problems()
        needs_device = True
        try:
            self._model = self._identified(online=not problems)
        except NucproError as error:
            problems.append(str(error))
        else:
            self.compare(self._model.recipe)
            problems += space_problems(self.plan.space)
            needs_device = bool(self.plan.to_extract or self.options.audit)
        problems += self._content_problems()
        if needs_device:
            problems += self.engine.problems()
        if problems:
            raise PreflightError(problems)
        return self.plan

    def show(self) -> None:
        """Log what was found, and for a dry run also the plan."""
        lines = discovery_lines(self.selection, self.plan)
        if self.options.dry_run:
            lines += plan_lines(self.plan)
        logger.info("%s", "\n".join(lines))

    @stage("prepare")
    def prepare(self) -> None:
        """Record the selection, remove what dead runs left unfinished, and split what is not split.

        The first step that changes the data folder.

        Raises
        ------
        DataError, FastaError
            The two sides of a source do not fit; it stays unsplit.
        """
        done = sum(item.is_done for item in self.plan.items)
        stale = sum(State.STALE in (item.vectors, item.merged) for item in self.plan.items)
        self.history.open(len(self.plan.items), done, self.plan.letters_to_extract, stale)
        save(self.folder, self.selection, self.options.sequences_per_file)
        self.checkpoint.remember_recipe(self.plan.recipe)
        written = self._folders_written()
        # Parents too: pre-flight probes them while the folders themselves do not exist yet.
        for folder in sorted({self.folder.root, *written, *(folder.parent for folder in written)}):
            remove_temporaries(folder)
        for state in self.census.sources:
            remove_unfinished(state.source)
        unsplit = self._unsplit()
        for source in unsplit:
            made = split_source(source, self.options.sequences_per_file)
            logger.info("Split %s", ", ".join(map(str, made)))
        if unsplit:
            # Facts of the new files were not known at pre-flight: the same checks again, on real files.
            self.discover([state.source for state in self.census.sources])
            self._check_again()
        # Made here and not by the workers, which could see each other's folders before these are safe on disk.
        for folder in written:
            make_folder(folder)

    @stage("load the model")
    def load_model(self) -> FastaEncoder | None:
        """Load the model once; None where nothing has to be extracted, or where others load it.

        Raises
        ------
        ModelError
            The checkpoint is damaged or holds something unexpected.
        """
        return self.engine.load(self._model) if self.plan.to_extract else None

    def extract(self, unit: Callable[[PlanItem], float] | None = None) -> Iterator[PlanItem]:
        """Make the missing and stale vectors, a few files at a time.

        Parameters
        ----------
        unit : callable, optional
            Writes the vectors of one item, in threads of this process, and gives the seconds from the first batch on
            the device to the disk; by default the engine does that.

        Raises
        ------
        NucproError
            The first fault; what was finished stays.
        """
        start = time.perf_counter()
        with self.history.stage("extract"):
            for finished in self._vectors_made(unit):
                self._note(finished, time.perf_counter() - start)
                self._background.poll()
                yield finished.item

    @stage("finish merging")
    def finish(self) -> None:
        """Wait for the work beside the encoder, and log what the run did.

        Raises
        ------
        NucproError
            The first fault of that work.
        """
        self._background.drain()
        if self.engine.lost:
            # An encoder that was killed left what it was writing; nobody writes any more.
            for folder in self._folders_written():
                remove_temporaries(folder)
        totals = self.engine.totals
        self.statistics.splits = totals.splits
        self.statistics.tokens = totals.tokens
        self.statistics.unknown_tokens = totals.unknown
        if self.statistics.files or self.statistics.merged:
            logger.info("%s", "\n".join(statistics_lines(self.statistics, self.side)))

    @property
    def progress(self) -> Progress:
        """How far the extraction is."""
        total, remaining = len(self.plan.items), len(self.plan.to_extract) - self.statistics.files
        left = self.plan.letters_to_extract - self.statistics.letters
        rate = self.statistics.letters / self.statistics.seconds if self.statistics.seconds else 0.0
        return Progress(total - remaining, total, left / rate if rate else None)

    def _note(self, finished: Finished, seconds: float) -> None:
        """Record and show a finished file; ``seconds`` is the time since the extraction began."""
        item = finished.item
        self._require_unchanged(item.pair.fasta(self.side))
        fact = vectors_fact(self.plan.recipe, item.facts)
        self.checkpoint.add("vectors", item.pair.vectors(self.side), fact, finished.stamp)
        self.statistics.add(item.facts, seconds)
        tokens = self.engine.totals.tokens
        counts = (item.facts.records, item.facts.letters_read, tokens - self._tokens_noted)
        self._tokens_noted = tokens
        self.history.file(item.pair.key, finished.seconds, *counts, finished.elapsed)
        self._finished(item)
        progress = self.progress
        logger.info(
            "[%d/%d] Extracted %s (%d sequences, %.1fs)",
            progress.files,
            progress.total,
            item.pair.fasta(self.side),
            item.facts.records,
            finished.seconds,
        )

    def _require_unchanged(self, fasta: Path) -> None:
        """Stop where an input is not the one that was checked: its vectors may be those of either."""
        if self.checkpoint.fact("fasta", fasta) is None:
            raise DataError(
                f"{fasta}: changed while the run was at work; run again when it is complete: "
                "what was finished is kept, and what no longer fits is made anew"
            )

    def _vectors_made(self, unit: Callable[[PlanItem], float] | None) -> Iterator[Finished]:
        items = self.plan.to_extract
        if unit is None:
            return self.engine.extract(items, self.side, self._background.poll)
        made = in_order(items, unit, self._background.poll)
        return (Finished(item, elapsed, seconds) for item, elapsed, seconds in made)

    def _unsplit(self) -> list[Source]:
        chosen = {pair.source for pair in self.pairs}
        return [s.source for s in self.census.sources if not s.is_split and s.source in chosen]

    def _check_again(self) -> None:
        try:
            self.check()
        except PreflightError as error:
            # Not one of pre-flight any more: split folders were made.
            raise DataError("\n".join(error.problems)) from error

    def _identify_ahead(self, stack: ExitStack) -> Future[Identified]:
        """Begin to identify the model from what is on this machine.

        That takes seconds, in which files are read.
        """
        thread = ThreadPoolExecutor(1, "nucpro-identify")
        stack.callback(thread.shutdown, wait=False)
        return thread.submit(_identify, self.options, self.side, offline=True)

    def _identified(self, *, online: bool) -> Identified:
        # Kept for the second check of a run that splits files: hashing the weights again would take seconds.
        try:
            if self._identifying is not None:
                return self._identifying.result()
        except ModelError:
            if not online:
                raise
        return _identify(self.options, self.side, offline=not online)

    def _started_with(self) -> dict[str, Any]:
        """What the history says of this run: plain values, without the folder, which may be moved."""
        options = {name: value for name, value in asdict(self.options).items() if name != "data_dir"}
        return {
            "side": str(self.side),
            "engine": self.options.engine,
            "software": this_software(),
            "options": options,
        }

    # What differs between the sides.

    @property
    @abstractmethod
    def _unproven(self) -> Unproven:
        """What becomes of files of the right width that do not say how they were made."""

    @abstractmethod
    def _input_problems(self, split: Sequence[FilePair], facts: dict[Path, FastaFacts]) -> list[str]:
        """What is wrong with pairs that are split, given the facts of the encoded side."""

    def _content_problems(self) -> list[str]:
        """What else is wrong, and is found only by reading files that are needed later; none by default."""
        return []

    @abstractmethod
    def _folders_written(self) -> list[Path]:
        """All folders that the run writes to."""

    @abstractmethod
    def _finished(self, item: PlanItem) -> None:
        """Take note that the vectors of an item are on disk."""

    def _inspect(self, pairs: Sequence[FilePair], side: Side) -> tuple[dict[Path, FastaFacts], list[str]]:
        return inspect_all([pair.fasta(side) for pair in pairs], side, self.checkpoint, self.workers)


def engine_of(options: Options) -> Engine:
    """Make the engine that options name.

    Raises
    ------
    UsageError
        It needs an extra that is not installed.
    """
    if not options.uses_cluster:
        return LocalEngine(options)
    from nucpro.cluster import ClusterEngine  # noqa: PLC0415 - imports Ray, which is an extra

    return ClusterEngine(options)


def _identify(options: Options, side: Side, *, offline: bool) -> Identified:
    from nucpro.models.weights import locate  # noqa: PLC0415

    model, revision = options.model_of(side)
    files = locate(model, revision=revision, offline=offline)
    # Importing torch and hashing gigabytes of weights take seconds each: both at once.
    with ThreadPoolExecutor(1, "nucpro-hash") as hashing:
        hashing.submit(files.digest)
        from nucpro import encoders  # noqa: PLC0415

    return encoders.identify(options, side, files)


def _ending(error: BaseException | None) -> str:
    if error is None:
        return DONE
    return FAILED if isinstance(error, Exception) else INTERRUPTED


def _has_output(pair: FilePair) -> bool:
    return pair.dna_vectors.exists() or pair.protein_vectors.exists() or pair.merged.exists()
