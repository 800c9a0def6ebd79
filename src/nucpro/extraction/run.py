"""Runs that make vectors: the steps of `nucpro extract` and `nucpro embed-dna`.

:func:`extract` and :func:`embed_dna` are the entry points. A :class:`Run` combines the survey of the folder
(:mod:`nucpro.extraction.survey`), the plan (:mod:`nucpro.extraction.plan`), the pre-flight checks
(:mod:`nucpro.extraction.preflight`), the runner (:mod:`nucpro.execution.runner`) and the validation
(:mod:`nucpro.extraction.validation`).
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from nucpro.embedding.identification import Identified, identify
from nucpro.errors import DataError, ModelError, PreflightError, StoreError, ValidationError, counted
from nucpro.execution.engine import engine_of, load_one
from nucpro.execution.runner import Statistics, Task, VectorRunner, statistics_lines, statistics_warnings
from nucpro.extraction.merging import DnaFile, DnaVerdict, examine_dna, merge
from nucpro.extraction.plan import (
    Plan,
    PlanItem,
    State,
    Unproven,
    discovery_lines,
    discovery_warnings,
    merged_fact,
    plan_lines,
    verified_fact,
)
from nucpro.extraction.preflight import check_all
from nucpro.extraction.survey import Survey, bad_dna, outside_lines, read_only_survey
from nucpro.extraction.validation import (
    FileVerdict,
    ValidationTask,
    dna_verdict_line,
    expected_width,
    known_verdict,
    problems_between,
    remember_verdict,
    validate_and_stamp,
    validate_file,
    validate_vectors,
    verdict_lines,
)
from nucpro.folder.kinds import require_folder
from nucpro.folder.paths import CLASS_NAMES, VIRAL, DataFolder, FilePair, Source
from nucpro.folder.selection import save
from nucpro.folder.splitting import remove_unfinished, split_source
from nucpro.formats import make_folder, read_meta, remove_temporaries
from nucpro.formats.sequences import PROTEIN_WIDTH, SequenceType
from nucpro.options import AUTO_DEVICE, Options
from nucpro.progress import Show, silent, tracked
from nucpro.state.checkpoint import Fingerprint
from nucpro.state.history import this_software
from nucpro.state.lock import hold
from nucpro.state.recipe import Recipe

if TYPE_CHECKING:
    from nucpro.embedding.encoder import FastaEncoder

__all__ = ["Run", "dry_run", "embed_dna", "extract", "make_dna_first", "validate_folder", "whole_command"]

logger = logging.getLogger(__name__)

_VALIDATING = "Validating"

AtEnd = Callable[[Survey, Sequence[str]], object]
"""Called with the survey and its problems after validation has read everything, before errors are raised."""


def extract(options: Options, show: Show = silent, at_end: AtEnd | None = None) -> Statistics:
    """Run the whole pipeline: discover, check, extract, merge, validate.

    Parameters
    ----------
    options : Options
        Options of the run. With ``with_dna``, missing DNABERT-S files are made first.
    show : callable
        Called with the progress of long steps.
    at_end : callable
        Called when everything was read back, before errors are raised: writes the report.

    Returns
    -------
    Statistics
        Counts, times and rates of the extraction.

    Raises
    ------
    NucproError
        See the steps of :class:`Run`.
    """
    with whole_command(options) as is_held:
        if options.with_dna:
            make_dna_first(options, show, is_held=is_held)
        if options.dry_run:
            dry_run(options, show=show)
            return Statistics()
        with Run(options, SequenceType.PROTEIN, show, is_held=is_held) as run:
            _make_missing(run)
            run.audit()
            run.validate(at_end)
            return run.statistics


@contextmanager
def whole_command(options: Options) -> Iterator[bool]:
    """Lock the folder from the first to the last run of a command that makes DNA and protein vectors.

    Yields
    ------
    bool
        Whether the folder is locked, to be passed to each run of the command.

    Raises
    ------
    UsageError
        A DNA model is given, and no DNA vectors are asked for.
    PreflightError
        There is no such folder, it cannot be written, or another run holds it.
    """
    if not options.with_dna:
        options.require_no_model(SequenceType.DNA, "only with --with-dna, or in nucpro embed-dna DATA")
    if not options.with_dna or options.dry_run:
        yield False
        return
    folder = DataFolder(options.data_dir)
    require_folder(folder.root)
    with hold(folder.lock):
        yield True


def embed_dna(options: Options, show: Show = silent, *, is_held: bool = False) -> Statistics:
    """Make the DNABERT-S files of a data folder that are missing or stale.

    Parameters
    ----------
    options : Options
        Options of the run.
    show : callable
        Called with the progress of long steps.
    is_held : bool
        Whether the command already holds the lock.

    Returns
    -------
    Statistics
        Counts, times and rates of the extraction.

    Raises
    ------
    NucproError
        See the steps of :class:`Run`.
    """
    if options.dry_run:
        dry_run(options, SequenceType.DNA, show)
        return Statistics()
    with Run(options, SequenceType.DNA, show, is_held=is_held) as run:
        _make_missing(run)
        run.validate_vectors()
        return run.statistics


def _make_missing(run: Run) -> None:
    run.discover()
    run.check()
    run.show()
    run.prepare()
    run.load()
    run.make()
    run.finish()


def make_dna_first(options: Options, show: Show = silent, *, is_held: bool = False) -> None:
    """Make missing DNABERT-S files, after checking everything else that a run needs.

    Raises
    ------
    NucproError
        See the steps of :class:`Run`.
    """
    with read_only_survey(replace(_settled(options), dry_run=True), planning=True, show=show) as survey:
        survey.discover()
        _check_only(survey)
    embed_dna(options, show, is_held=is_held)


def dry_run(
    options: Options, sequence_type: SequenceType = SequenceType.PROTEIN, show: Show = silent
) -> None:
    """Check everything and log what a run would do; writes nothing, takes no lock, loads no model.

    Parameters
    ----------
    options : Options
        Options of the run.
    sequence_type : SequenceType
        Sequence type whose vectors would be made.
    show : callable, optional
        Called with the progress of reading.

    Raises
    ------
    PreflightError
        All problems at once.
    """
    with read_only_survey(_settled(options), sequence_type, planning=True, show=show) as survey:
        survey.discover()
        _check_only(survey)
        _show(survey)


def validate_folder(options: Options, show: Show = silent) -> list[FileVerdict]:
    """Validate all files in a data folder, of any origin; changes nothing and loads no model.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences per file and the selection; with ``engine`` ``ray``, files are read on all
        nodes of the cluster.
    show : callable, optional
        Called with the progress.

    Returns
    -------
    list of FileVerdict
        One verdict per pair of files.

    Raises
    ------
    PreflightError
        There is nothing to validate.
    ValidationError
        All faults.
    """
    with ExitStack() as stack:
        workers = None
        if options.uses_cluster:
            options = options.anywhere()
            workers = stack.enter_context(engine_of(options)).workers
        survey = stack.enter_context(read_only_survey(options, workers=workers, show=show))
        pairs = survey.discover().pairs
        if survey.inventory.problems:
            raise ValidationError("\n".join(survey.inventory.problems))
        width = expected_width(pairs)
        found = survey.workers.map(validate_file, [ValidationTask(pair, width) for pair in pairs])
        verdicts = list(tracked(found, len(pairs), _VALIDATING, show))
        _refuse(problems_between(verdicts) + survey.outside_problems(width))
        logger.info("%s", "\n".join(verdict_lines(verdicts)))
        return verdicts


class Run(AbstractContextManager["Run"]):
    """One run on one data folder, for one sequence type; a context manager that holds the folder.

    Its methods are the steps, to be called in this order.

    Parameters
    ----------
    options : Options
        Options of the run.
    sequence_type : SequenceType
        Sequence type whose vectors are made. Protein vectors are merged with existing DNA vectors.
    show : callable
        Called with the progress of long steps.
    is_held : bool
        Whether the command holds the folder already; see :func:`whole_command`.

    Raises
    ------
    PreflightError
        On entering: there is no such folder, it cannot be written, or another run holds it.
    """

    def __init__(
        self,
        options: Options,
        sequence_type: SequenceType = SequenceType.PROTEIN,
        show: Show = silent,
        *,
        is_held: bool = False,
    ) -> None:
        options = _settled(options)
        self._asked = options.anywhere() if options.uses_cluster else options
        self.sequence_type = sequence_type
        self.folder = DataFolder(self._asked.data_dir)
        self.merges = sequence_type is SequenceType.PROTEIN
        self._show = show
        facts = _started_with(self._asked, sequence_type)
        self.runner = VectorRunner(self.folder, self._asked, facts, show, is_held=is_held)
        self.survey: Survey
        self._model: Identified
        self._identifying: Future[Identified] | None = None
        self._unread_dna: dict[FilePair, DnaFile] = {}
        self._ready_to_merge: set[FilePair] = set()
        self._threads: ThreadPoolExecutor
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        require_folder(self.folder.root)
        with ExitStack() as stack:
            stack.enter_context(self.runner)
            self.survey = Survey(
                self._asked, self.sequence_type, self.runner.records, self.runner.workers, show=self._show
            )
            # Finding and hashing a model takes seconds; files are read at the same time.
            self._threads = ThreadPoolExecutor(2, "nucpro-ahead")
            stack.callback(self._threads.shutdown, wait=False)
            self._identifying = self._threads.submit(
                identify, self.options, self.sequence_type, records=self.runner.records, offline=True
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def options(self) -> Options:
        """Options of the run, completed from the state of the folder."""
        return self.survey.options

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.survey.plan

    @property
    def statistics(self) -> Statistics:
        """Counts so far."""
        return self.runner.statistics

    def discover(self, sources: Iterable[Source] | None = None) -> None:
        """Find all files and select those of this run; see :meth:`Survey.discover`."""
        with self.runner.stage("discover"):
            found = list(self.folder.walk_sources() if sources is None else sources)
            self._import_ahead(
                source.pair(1) for source in found if source.pair(2).fasta(self.sequence_type).exists()
            )
            self.survey.discover(found)

    def check(self) -> Plan:
        """Check everything, and compare the files on disk with the result of this run.

        Raises
        ------
        PreflightError
            All problems at once.
        """
        with self.runner.stage("check before the start"):
            self._model = check_all(self.survey, self._identified, self.runner.engine.problems)
            # So that the next run does not read gigabytes again.
            self.runner.records.remember_digests(self._model.files.digests)
            return self.plan

    def use(self, recipe: Recipe, load: Callable[[], FastaEncoder]) -> None:
        """Use a model that a script has loaded, instead of :meth:`check` and :meth:`load`.

        Parameters
        ----------
        recipe : Recipe
            How its vectors are made.
        load : callable
            Returns the loaded model; called if anything must be extracted.

        Raises
        ------
        PreflightError
            Unusable inputs.
        """
        self._identifying = None
        self.survey.needs_dna = False
        problems = self.survey.inputs()
        if problems:
            raise PreflightError(problems)
        plan = self.survey.compare(recipe)
        for reason in (reason for item in plan.to_extract for reason in item.reasons):
            logger.info("%s", reason)
        if plan.to_extract:
            self.runner.engine.load(lambda _: load())

    def take(self, pairs: Sequence[FilePair]) -> None:
        """Use these files instead of those that :meth:`discover` selects; see :meth:`Survey.take`."""
        if tuple(pairs) != self.survey.pairs:
            self.survey.take(pairs)

    def show(self) -> None:
        """Log what was found."""
        _show(self.survey)

    def prepare(self) -> None:
        """Record the selection, remove unfinished files of killed runs, and split unsplit sources.

        Before that, records of files of unknown origin are recomputed, if ``--verify-existing`` is given. The
        first step that changes the data folder.

        Raises
        ------
        DataError, FastaError
            The two FASTA files of a source do not match; it stays unsplit.
        """
        to_verify = [item for item in self.plan.items if item.to_verify]
        if to_verify:
            with self.runner.stage("verify existing files"):
                self._verify_existing(to_verify)
        with self.runner.stage("prepare"):
            survey, plan = self.survey, self.plan
            done = sum(item.is_done for item in plan.items)
            stale = sum(State.STALE in (item.vectors, item.merged) for item in plan.items)
            self.runner.history.used(options=_used(survey))
            self.runner.plan(total=len(plan.items), done=done, tasks=plan.tasks, stale=stale)
            save(self.folder, survey.selection, survey.size)
            self.runner.records.remember_size(survey.size)
            self.runner.records.remember_recipe(plan.recipe)
            written = survey.folders_written()
            # Parents too: pre-flight probes them while the folders themselves do not exist yet.
            for folder in sorted({self.folder.root, *written, *(folder.parent for folder in written)}):
                remove_temporaries(folder)
            remove_unfinished(state.source for state in survey.inventory.sources)
            self._split()
            # Made here and not by the workers, which could see each other's folders before these are synced.
            for folder in written:
                make_folder(folder)

    def load(self) -> FastaEncoder | None:
        """Load the model once; None if nothing must be extracted, or if workers load it.

        Raises
        ------
        ModelError
            The checkpoint is damaged or holds something unexpected.
        """
        with self.runner.stage("load the model"):
            if not self.plan.to_extract:
                return None
            width = self.plan.recipe.width
            if self.merges and width != PROTEIN_WIDTH:
                logger.info("This model gives %d columns, FastESM2_650 gives %d", width, PROTEIN_WIDTH)
            loaded = self.runner.engine.load(partial(load_one, self._model, self.options))
            return cast("FastaEncoder | None", loaded)

    def make(self, pairs: Sequence[FilePair] | None = None, *, merging: bool | None = None) -> None:
        """Make all missing and stale vectors; see :meth:`making`."""
        for _ in self.making(pairs, merging=merging):
            pass

    def making(
        self, pairs: Sequence[FilePair] | None = None, *, merging: bool | None = None
    ) -> Iterator[Task]:
        """Make the missing and stale vectors, and yield each file that is recorded.

        Each is merged in a worker as soon as it is written.

        Parameters
        ----------
        pairs : sequence of FilePair, optional
            Some of the planned files; by default all.
        merging : bool, optional
            Whether to merge; by default a run of protein vectors does.

        Raises
        ------
        NucproError
            The first error of the encoder, of a merge or of a DNABERT-S file; finished files are kept.
        """
        plan = self.plan if pairs is None else self.plan.part(pairs)
        merging = self.merges if merging is None else merging
        if self.merges:
            self._list_completed(plan)
        if merging:
            self._read_dna([item.pair for item in (*plan.to_merge_only, *plan.to_extract)])
            for item in plan.to_merge_only:
                self._merge_when_read(item.pair, first=False)
        pair_of = {item.pair.vectors(self.sequence_type): item.pair for item in plan.to_extract}

        def then(task: Task) -> None:
            if self.merges:
                self.runner.records.complete(task.output)
            if merging:
                self._merge_when_read(pair_of[task.output])

        return self.runner.run(plan.tasks, then)

    def finish(self) -> None:
        """Wait for the follow-up work, and log a summary of the run.

        Raises
        ------
        NucproError
            The first error of that work.
        """
        with self.runner.stage("finish merging"):
            self.runner.finish()
            if self.runner.engine.lost:
                # A killed encoder may have left an unfinished file; nothing is writing any more.
                for folder in self.survey.folders_written():
                    remove_temporaries(folder)
            if self.statistics.files or self.statistics.merged:
                logger.info("%s", "\n".join(statistics_lines(self.statistics, self.sequence_type)))
                for warning in statistics_warnings(self.statistics):
                    logger.warning("%s", warning)

    def audit(self) -> None:
        """Recompute random sequences in float32 and compare, if ``--audit`` is given.

        Raises
        ------
        ValidationError
            A vector on disk differs from the model's.
        """
        with self.runner.stage("audit"):
            if not self.options.audit:
                return
            from nucpro.extraction.audit import audit  # noqa: PLC0415 - imports torch

            for line in self.runner.engine.call(audit, self.plan, self._model, self.options):
                logger.info("%s", line)

    def validate(self, at_end: AtEnd | None = None) -> list[FileVerdict]:
        """Read back and validate all files.

        Unchanged files that were validated before are not read again.

        Raises
        ------
        ValidationError
            All problems, file by file.
        """
        width, records = self.plan.recipe.width, self.runner.records
        with self.runner.stage("validate"):
            outside = self.survey.outside_problems(width)
            # The last check of the inputs: later changes are changes of a validated folder.
            known = {item.pair: known_verdict(records, item.pair) for item in self.plan.items}
            tasks = [ValidationTask(pair, width) for pair, verdict in known.items() if verdict is None]
            read = self.runner.workers.map(validate_and_stamp, tasks)
            found = tracked(read, len(tasks), _VALIDATING, self._show)
            verdicts = [*filter(None, known.values()), *(remember_verdict(records, one) for one in found)]
            problems = problems_between(verdicts) + outside
        changed = bool(self.statistics.files or self.statistics.merged)
        if at_end and (changed or problems or not self.folder.report.is_dir()):
            with self.runner.stage("report"):
                at_end(self.survey, problems)
        _refuse(problems)
        viral = sum(verdict.records for verdict in verdicts if verdict.pair.label)
        host = sum(verdict.records for verdict in verdicts) - viral
        self.runner.history.validated(files=len(verdicts), viral=viral, host=host)
        logger.info("%s", "\n".join(verdict_lines(verdicts)))
        return verdicts

    def validate_vectors(self) -> list[FileVerdict]:
        """Read back the DNABERT-S files; unchanged files that were validated before are not read again.

        Raises
        ------
        ValidationError
            All problems, file by file.
        """
        width, records, facts = self.plan.recipe.width, self.runner.records, self.survey.facts
        with self.runner.stage("validate"):
            unread = [pair for pair in self.survey.pairs if not self._is_known(pair)]
            stamps = {pair: Fingerprint.of(pair.dna_vectors) for pair in unread}
            tasks = [ValidationTask(pair, width) for pair in unread]
            found = self.runner.workers.map(validate_vectors, tasks)
            verdicts = list(tracked(found, len(tasks), _VALIDATING, self._show))
            _refuse(problems_between(verdicts))
            for verdict in verdicts:
                fact = {"input": facts[verdict.pair].digest}
                records.add("dna", verdict.pair.dna_vectors, fact, stamps[verdict.pair])
            logger.info("%s", dna_verdict_line(self.plan))
            return verdicts

    def _verify_existing(self, items: Sequence[PlanItem]) -> None:
        """Keep the files whose recomputed records agree; recompute the rest."""
        from nucpro.extraction.audit import recompute  # noqa: PLC0415 - imports torch

        recipe = self.plan.recipe
        found = self.runner.engine.call(recompute, items, self._model, self.options)
        for item, one in zip(items, found, strict=True):
            path = item.pair.protein_vectors
            if one.problem is None:
                fact = verified_fact(recipe, item.facts, one.records)
                self.runner.records.add("vectors", path, fact, one.stamp)
            logger.info("%s", one.line(path, str(recipe.made_by["id"])))
        self.survey.compare(recipe, Unproven.REDO)

    def _split(self) -> None:
        unsplit = self.survey.unsplit()
        for source in unsplit:
            made = split_source(source, self.survey.size)
            logger.info("Split %s", ", ".join(map(str, made)))
        if not unsplit:
            return
        # The new files did not exist at pre-flight: the same checks again, on the real files.
        try:
            self.survey.discover([state.source for state in self.survey.inventory.sources])
            self._model = check_all(self.survey, self._identified, self.runner.engine.problems)
        except PreflightError as error:
            # No longer a pre-flight error: split folders were made.
            raise DataError("\n".join(error.problems)) from error

    def _import_ahead(self, firsts: Iterable[FilePair]) -> None:
        """Import the encoder while files are read, if the first files of sources are still to be made.

        torch takes seconds to import. All full viral files are used, so they show early that an encoder is
        needed; if they are done, it is imported after planning, if needed.
        """
        viral = [pair for pair in firsts if pair.category == VIRAL]
        if not self.options.uses_cluster and any(map(self._is_to_make, viral)):
            self._threads.submit(importlib.import_module, "nucpro.embedding.encoder")

    def _is_to_make(self, pair: FilePair) -> bool:
        path = pair.vectors(self.sequence_type)
        try:
            return not path.exists() or (
                self.survey.unproven is Unproven.REDO and read_meta(path).meta is None
            )
        except StoreError:
            return False

    def _identified(self, online: bool) -> Identified:
        # Kept for the second check after splitting: hashing the weights again would take seconds.
        try:
            if self._identifying is not None:
                return self._identifying.result()
        except ModelError:
            if not online:
                raise
        return identify(self.options, self.sequence_type, records=self.runner.records, offline=not online)

    def _is_known(self, pair: FilePair) -> bool:
        records = self.runner.records
        unchanged = records.knows("fasta", pair.nucleotide_fasta)
        return unchanged and records.knows("dna", pair.dna_vectors, input=self.survey.facts[pair].digest)

    def _list_completed(self, plan: Plan) -> None:
        """Update the checkpoint's list: files of this run are in it if they are done, other files stay in it."""
        mine = {item.pair.protein_vectors: item.vectors is State.DONE for item in plan.items}
        listed = [self.folder.root / key for key in self.runner.records.completed]
        kept = [path for path in listed if (mine[path] if path in mine else path.exists())]
        self.runner.records.restart([*kept, *(path for path, is_done in mine.items() if is_done)])

    def _read_dna(self, pairs: Sequence[FilePair]) -> None:
        """Read unverified DNABERT-S files in workers, ahead of the encoder."""
        files, problems = self.survey.dna_to_read(pairs)
        if problems:
            raise DataError("\n".join(problems))
        self._unread_dna = {file.pair: file for file in files}
        for file in files:
            self.runner.beside(examine_dna, (file,), self._dna_was_read)

    def _dna_was_read(self, verdict: DnaVerdict) -> None:
        """Record the result of reading a DNABERT-S file.

        Raises
        ------
        DataError
            It is invalid; then all others are read too, and all invalid files are listed.
        """
        file = self._unread_dna.pop(verdict.file.pair)
        if verdict.problem is not None:
            others = self.runner.workers.map(examine_dna, self._unread_dna.values())
            problems = bad_dna([verdict, *others], self._asked)
            raise DataError("\n  - ".join(["DNABERT-S files that cannot be used:", *problems]))
        fact = {"input": file.fasta.digest}
        self.runner.records.add("dna", file.pair.dna_vectors, fact, verdict.stamp)
        if file.pair in self._ready_to_merge:
            self._merge(file.pair)

    def _merge_when_read(self, pair: FilePair, *, first: bool = True) -> None:
        """Merge a pair whose protein vectors exist, once its DNABERT-S file is verified."""
        if pair in self._unread_dna:
            self._ready_to_merge.add(pair)
        else:
            self._merge(pair, first=first)

    def _merge(self, pair: FilePair, *, first: bool = True) -> None:
        # Taken before the sources are read: if one changes during the merge, the merged file does not count as
        # current.
        fact = merged_fact(pair)
        files = (pair.dna_vectors, pair.protein_vectors, pair.merged, CLASS_NAMES[pair.label])
        self.runner.beside(merge, files, lambda _: self._merged(pair, fact), first=first)

    def _merged(self, pair: FilePair, fact: dict[str, object]) -> None:
        records = self.runner.records
        records.add("merged", pair.merged, fact)
        self.statistics.merged += 1
        # Read back while the encoder is running; problems are raised at the end, with all others.
        task = ValidationTask(pair, self.plan.recipe.width)
        self.runner.beside(validate_and_stamp, (task,), lambda found: remember_verdict(records, found))


def _check_only(survey: Survey) -> None:
    """Check for a read-only command: no file is created, no cluster started."""

    def device_problems() -> list[str]:
        if survey.options.uses_cluster:
            return []  # the resources of a cluster are known once it is started
        from nucpro.embedding.device import device_problems  # noqa: PLC0415 - imports torch

        return device_problems(survey.options.device)

    find = partial(identify, survey.options, survey.sequence_type, records=survey.records)
    check_all(survey, lambda online: find(offline=not online), device_problems, probe=False)


def _show(survey: Survey) -> None:
    lines = discovery_lines(survey.selection, survey.plan)
    if survey.options.dry_run:
        lines += plan_lines(survey.plan)
    if survey.sequence_type is SequenceType.PROTEIN:
        lines += [*outside_lines(survey.outside()), *survey.outside_problems(survey.plan.recipe.width)]
    logger.info("%s", "\n".join(lines))
    for warning in discovery_warnings(survey.selection, survey.plan):
        logger.warning("%s", warning)
    if logger.isEnabledFor(logging.DEBUG) and not survey.options.dry_run:
        for line in (*plan_lines(survey.plan), *(why for item in survey.plan.items for why in item.reasons)):
            logger.debug("%s", line)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ValidationError(
            "\n  - ".join([f"Validation failed, {counted(len(problems), 'problem')}:", *problems])
        )


def _started_with(options: Options, sequence_type: SequenceType) -> dict[str, Any]:
    """Facts for the history before the checks of a run."""
    follows = sequence_type is SequenceType.DNA and options.with_dna
    return {
        "side": str(sequence_type),
        "engine": options.engine,
        "software": this_software(),
        "protein_follows": follows,
    }


_NOT_USED = {
    SequenceType.DNA: ("protein_", "revision", "token_dropout", "trust_", "verify_", "audit", "report"),
    SequenceType.PROTEIN: ("dna_", "all_files"),
}
"""Prefix of the options that have no effect in a run of a sequence type."""
_OF_CLUSTERS = ("address", "workers", "gpus_", "cpus_")


def _used(survey: Survey) -> dict[str, Any]:
    """Facts for the history about the options of a run: plain values, without the folder, which may be moved."""
    options, recipe = survey.options, survey.plan.recipe
    others = (
        "data_dir",
        "dry_run",
        *_NOT_USED[survey.sequence_type],
        *(() if options.uses_cluster else _OF_CLUSTERS),
    )
    used = {name: value for name, value in asdict(options).items() if not name.startswith(others)}
    model, revision = recipe.model or (recipe.made_by.get("id"), recipe.made_by.get("revision"))
    used |= {"sequences_per_file": survey.size, "precision": recipe.made_by.get("precision")}
    if survey.sequence_type is SequenceType.DNA:
        return used | {"dna_model": model, "dna_revision": revision}
    dropout = recipe.made_by.get("token_dropout")
    return used | {"protein_model": model, "protein_revision": revision, "token_dropout": dropout}


def _settled(options: Options) -> Options:
    if options.device != AUTO_DEVICE:
        return options
    from nucpro.embedding.device import settled  # noqa: PLC0415 - imports torch

    return settled(options)
