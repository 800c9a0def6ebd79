"""The run: the only room that knows the order of the work.

:class:`Job` holds what the steps share; each step is one method. :func:`run` calls them in order, and
so does ``scripts/extract_training_data.py``, which is written to be read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nucpro import lock
from nucpro.background import Background
from nucpro.checkpoint import Checkpoint, Stamp
from nucpro.discovery import Census, census, inspect_all
from nucpro.engine import in_order
from nucpro.errors import NucproError, PreflightError, ValidationError
from nucpro.fasta import NUCLEOTIDES, RESIDUES, FastaFacts
from nucpro.layout import CLASS_NAMES, DNA_WIDTH, DataFolder, FilePair, Source
from nucpro.merge import merge, verify_dna
from nucpro.options import Options
from nucpro.plan import Plan, PlanItem, make_plan, merged_fact, protein_fact
from nucpro.preflight import dna_problems, side_problems, space_problems, unsplit_problems, writing_problems
from nucpro.recipe import Recipe
from nucpro.selection import Selection, load, save, select
from nucpro.splitting import split_source
from nucpro.store import remove_temporaries
from nucpro.summary import (
    Statistics,
    discovery_lines,
    outside_lines,
    plan_lines,
    state_lines,
    statistics_lines,
    verdict_lines,
)
from nucpro.validation import (
    FileVerdict,
    ValidationTask,
    expected_width,
    mixed_models,
    outside_outputs,
    validate_file,
    width_outside,
)
from nucpro.workers import Workers

# The rooms below import torch, which takes seconds and hundreds of megabytes. Worker processes import this
# module with the main program, and never need them: so these are imported where they are used.
if TYPE_CHECKING:
    from nucpro.encoders import Identified, ProteinEncoder

Join = Callable[[Path, Path, Path, str], object]

__all__ = ["DNA_COMMAND", "Job", "Progress", "run", "status", "validate_folder"]

logger = logging.getLogger(__name__)

DNA_COMMAND = "the DNABERT-S step of VirNucPro"
"""What makes missing DNABERT-S files, for messages."""


@dataclass(frozen=True)
class Progress:
    """How far the extraction is.

    Parameters
    ----------
    files, total : int
        Protein files that are done, those from earlier runs included, and all selected ones.
    seconds_left : float or None
        Estimate from the residues left and the rate so far; None before the first file.
    """

    files: int
    total: int
    seconds_left: float | None


class Job:
    """One run on one data folder; a context manager that holds the lock and ends the workers.

    Parameters
    ----------
    options : Options
        What was asked for.

    Raises
    ------
    PreflightError
        On entering: there is no such folder, it cannot be written, or another run holds it.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = DataFolder(options.data_dir)
        self.statistics = Statistics()
        self.checkpoint: Checkpoint
        self.census: Census
        self.selection: Selection
        self.plan: Plan
        self._facts: dict[FilePair, FastaFacts] = {}
        self._model: Identified
        self._encoder: ProteinEncoder | None = None
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
            self.workers = stack.enter_context(Workers())
            self._background = Background(self.workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    # Steps, in the order of a run.

    def discover(self, sources: Iterable[Source] | None = None) -> Selection:
        """Find all files and choose those of this run.

        Parameters
        ----------
        sources : iterable of Source, optional
            The sources to look at; by default the data folder is walked.

        Raises
        ------
        PreflightError
            No full viral file, a recorded host file that is gone, or a choice refused by ``--strict-sampling``.
        """
        found = self.folder.walk_sources() if sources is None else list(sources)
        self.census = census(found, self.checkpoint, self.workers, self.options.sequences_per_file)
        recorded = load(self.folder)
        try:
            full = self.census.full(self.options.sequences_per_file)
            self.selection = select(full, _has_output, recorded, self.options.host_selection)
        except PreflightError as error:
            hint = self.census.sizes_hint(self.options.sequences_per_file)
            raise PreflightError([*self.census.problems, *error.problems, *hint]) from error
        if self.options.strict_sampling and self.selection.warnings:
            raise PreflightError(
                [f"refused by --strict-sampling: {text}" for text in self.selection.warnings]
            )
        return self.selection

    def take(self, pairs: Sequence[FilePair]) -> Selection:
        """Use these files, in place of what :meth:`discover` would choose."""
        sources = list(dict.fromkeys(pair.source for pair in pairs))
        self.census = census(sources, self.checkpoint, self.workers, self.options.sequences_per_file)
        viral, hosts = ([pair for pair in pairs if pair.label == label] for label in (1, 0))
        self.selection = Selection(tuple(viral), tuple(hosts), "given")
        return self.selection

    def inputs(self, *, with_dna: bool = True) -> list[str]:
        """Read the inputs of the selected files; returns everything that is wrong with them."""
        problems = list(self.census.problems)
        if with_dna:
            problems += dna_problems(self.selection.pairs, DNA_COMMAND)
        self._facts = self._protein_facts(problems)
        return problems

    def compare(self, recipe: Recipe) -> Plan:
        """Compare what lies on disk with what a recipe would make; needs :meth:`inputs` first."""
        self.plan = make_plan(
            [(pair, self._facts[pair]) for pair in self.selection.pairs],
            recipe,
            self.checkpoint,
            self.workers,
            trust_existing=self.options.trust_existing,
        )
        return self.plan

    def check(self) -> Plan:
        """Check everything, and compare what lies on disk with what this run would make.

        Raises
        ------
        PreflightError
            All problems at once.
        """
        from nucpro import encoders  # noqa: PLC0415

        problems = self.inputs() + writing_problems(self._folders_written())
        try:
            self._model = encoders.identify(self.options, offline=bool(problems))
        except NucproError as error:
            problems.append(str(error))
        if problems:
            raise PreflightError(problems)
        self.compare(self._model.recipe)
        problems = space_problems({self.folder.root: (self.plan.bytes_to_write, self.plan.bytes_replaced)})
        if self.plan.to_extract:
            problems += encoders.device_problems(self.options.device)
        if problems:
            raise PreflightError(problems)
        return self.plan

    def show(self) -> None:
        """Log what was found, and for a dry run also the plan."""
        lines = discovery_lines(self.selection, self.plan)
        if self.options.dry_run:
            lines += plan_lines(self.plan)
        logger.info("%s", "\n".join(lines))

    def prepare(self) -> None:
        """Record the selection, remove what dead runs left unfinished, and split what is not split.

        The first step that changes the data folder.

        Raises
        ------
        DataError, FastaError
            The two sides of a source do not fit; it stays unsplit.
        """
        save(self.folder, self.selection, self.options.sequences_per_file)
        self.checkpoint.remember_recipe(self.plan.recipe)
        for folder in sorted({self.folder.root, *self._folders_written()}):
            remove_temporaries(folder)
        chosen = {pair.source for pair in self.selection.pairs}
        unsplit = [s.source for s in self.census.sources if not s.is_split and s.source in chosen]
        for source in unsplit:
            made = split_source(source, self.options.sequences_per_file)
            logger.info("Split %s", ", ".join(map(str, made)))
        if unsplit:
            # Facts of the new files were not known at pre-flight: the same checks again, on real files.
            self.discover([state.source for state in self.census.sources])
            self.check()
        self.checkpoint.restart([item.pair.protein_fasta for item in self.plan.items if item.is_done])

    def load_model(self) -> ProteinEncoder | None:
        """Load the model once; None where nothing has to be extracted.

        Raises
        ------
        ModelError
            The checkpoint is damaged or holds something unexpected.
        """
        from nucpro import encoders  # noqa: PLC0415

        if not self.plan.to_extract:
            return None
        self._encoder = encoders.load(self._model, self.options)
        return self._encoder

    def extract_file(self, item: PlanItem) -> None:
        """Make the protein file of one item: the unit of work of :meth:`extract`."""
        assert self._encoder is not None, "the model is loaded when something is to be extracted"
        self._encoder.extract(item.pair.protein_fasta, item.pair.protein_vectors)

    def extract(self, unit: Callable[[PlanItem], object], join: Join | None = merge) -> Iterator[PlanItem]:
        """Make the missing and stale protein files, and merge each beside the encoder as soon as it is there.

        Parameters
        ----------
        unit : callable
            Writes the protein file of one item; called in threads.
        join : callable
            Merges one pair in a worker process: DNA file, protein file, merged file, ``viral`` or ``host``;
            None to merge nothing.

        Raises
        ------
        NucproError
            The first fault of the encoder, of a merge or of a DNABERT-S file; what was finished stays.
        """
        if join is not None:
            for item in self.plan.to_merge_only:
                self._submit_merge(item, join)
            for item in self.plan.to_extract:
                self._submit_dna_check(item)
        start = time.perf_counter()
        for item, seconds in in_order(self.plan.to_extract, unit):
            fact = protein_fact(self.plan.recipe, item.facts)
            self.checkpoint.add("protein", item.pair.protein_vectors, fact)
            if join is not None:
                self._submit_merge(item, join, first=True)
            self.statistics.add(item.facts, time.perf_counter() - start)
            logger.info(
                "[%d/%d] Extracted %s (%d sequences, %.1fs)",
                self.progress.files,
                self.progress.total,
                item.pair.protein_fasta,
                item.facts.records,
                seconds,
            )
            self._background.poll()
            yield item

    def merge(self) -> int:
        """Wait until every merged file is written; returns how many this run wrote.

        Raises
        ------
        MergeError, DimensionError, StoreError
            The first fault.
        """
        self._background.drain()
        if self._encoder is not None:
            self.statistics.splits = self._encoder.embedder.splits
        if self.statistics.merged:
            logger.info("%s", "\n".join(statistics_lines(self.statistics)))
        return self.statistics.merged

    def validate(self, *, everything: bool = False) -> list[FileVerdict]:
        """Read back what lies on disk.

        Parameters
        ----------
        everything : bool
            Also read files that were validated before and have not changed since.

        Raises
        ------
        ValidationError
            All faults, file by file.
        """
        width = self.plan.recipe.width
        known = {} if everything else {item.pair: self._known_verdict(item) for item in self.plan.items}
        tasks = [ValidationTask(item.pair, width) for item in self.plan.items if known.get(item.pair) is None]
        fresh = list(self.workers.map(validate_file, tasks))
        verdicts = [*filter(None, known.values()), *fresh]
        self.judge(verdicts, width)
        for verdict in fresh:
            fact = {"of": _stamps(verdict.pair), "records": verdict.records, "model": verdict.model}
            self.checkpoint.add("valid", verdict.pair.merged, fact)
        return verdicts

    def judge(self, verdicts: Sequence[FileVerdict], width: int) -> None:
        """Show what validation found in all files together.

        Raises
        ------
        ValidationError
            All faults: of single files, between files, and of files outside the selection.
        """
        problems = sorted(problem for verdict in verdicts for problem in verdict.problems)
        problems += mixed_models(verdicts) + self._outside_problems(width)
        if problems:
            raise ValidationError("\n  - ".join([f"Validation failed, {len(problems)} problems:", *problems]))
        logger.info("%s", "\n".join(verdict_lines(verdicts)))

    def audit(self) -> None:
        """Recompute random sequences in float32 and compare, where ``--audit`` asks for it.

        Raises
        ------
        ValidationError
            A vector on disk that is not what the model gives.
        """
        from nucpro.audit import audit  # noqa: PLC0415

        if self.options.audit:
            for line in audit(self.plan, self._model, self.options):
                logger.info("%s", line)

    # What the steps share.

    @property
    def progress(self) -> Progress:
        """How far the extraction is."""
        total, remaining = len(self.plan.items), len(self.plan.to_extract) - self.statistics.files
        left = sum(item.facts.letters_read for item in self.plan.to_extract) - self.statistics.residues
        rate = self.statistics.residues / self.statistics.seconds if self.statistics.seconds else 0.0
        return Progress(total - remaining, total, left / rate if rate else None)

    def outside(self) -> list[Path]:
        """Protein and merged files that belong to no selected pair."""
        selected = {pair.protein_vectors for pair in self.selection.pairs}
        selected |= {pair.merged for pair in self.selection.pairs}
        return outside_outputs(self.folder, [state.source for state in self.census.sources], selected)

    def _protein_facts(self, problems: list[str]) -> dict[FilePair, FastaFacts]:
        pairs = self.selection.pairs
        split = [
            pair for pair in pairs if pair.protein_fasta.parent.is_dir() and pair.nucleotide_fasta.is_file()
        ]
        present = [pair for pair in split if pair.protein_fasta.is_file()]
        left, _ = inspect_all([p.nucleotide_fasta for p in split], NUCLEOTIDES, self.checkpoint, self.workers)
        right, unreadable = inspect_all(
            [p.protein_fasta for p in present], RESIDUES, self.checkpoint, self.workers
        )
        problems += unreadable
        problems += side_problems(split, left, right)
        unsplit = {pair.source for pair in pairs} - {pair.source for pair in split}
        problems += unsplit_problems(sorted(unsplit, key=lambda source: source.relative))
        # Files that are still to be split have no facts yet, but their number of records is known.
        return {
            pair: right.get(pair.protein_fasta) or FastaFacts.unknown(self.census.records[pair])
            for pair in pairs
        }

    def _known_verdict(self, item: PlanItem) -> FileVerdict | None:
        fact = self.checkpoint.fact("valid", item.pair.merged)
        if fact is None or fact.get("of") != _stamps(item.pair):
            return None
        return FileVerdict(item.pair, fact["records"], fact["model"], ())

    def _folders_written(self) -> list[Path]:
        pairs = self.selection.pairs
        folders = {pair.protein_vectors.parent for pair in pairs} | {pair.merged.parent for pair in pairs}
        return sorted(folders)

    def _submit_dna_check(self, item: PlanItem) -> None:
        pair = item.pair
        if self.checkpoint.fact("dna", pair.dna_vectors) is None:
            facts, _ = inspect_all([pair.nucleotide_fasta], NUCLEOTIDES, self.checkpoint, self.workers)
            known = facts[pair.nucleotide_fasta]
            arguments = (pair.dna_vectors, pair.nucleotide_fasta, known.ids_digest, known.digest)
            self._background.add(verify_dna, arguments, lambda stamp: self._dna_is_good(pair, stamp))

    def _dna_is_good(self, pair: FilePair, stamp: Stamp | None) -> None:
        self.checkpoint.add("dna", pair.dna_vectors, {}, stamp)

    def _submit_merge(self, item: PlanItem, join: Join, *, first: bool = False) -> None:
        pair = item.pair
        files = (pair.dna_vectors, pair.protein_vectors, pair.merged, CLASS_NAMES[pair.label])
        self._background.add(join, files, lambda _: self._merged(pair), first=first)

    def _merged(self, pair: FilePair) -> None:
        self.checkpoint.add("merged", pair.merged, merged_fact(pair))
        self.checkpoint.complete(pair.protein_fasta)
        self.statistics.merged += 1

    def _outside_problems(self, width: int) -> list[str]:
        outside = self.outside()
        for line in outside_lines(outside):
            logger.info("%s", line)
        problems = []
        for path, found_width in sorted(self.workers.map(width_outside, outside)):
            expected = width + DNA_WIDTH * (self.folder.merge_root in path.parents)
            if found_width != expected:
                found = f"is {found_width} wide, not {expected}" if found_width else "cannot be read"
                problems.append(
                    f"{path}: outside the selection and {found}; a training script would read it: remove it"
                )
        return problems


def _has_output(pair: FilePair) -> bool:
    return pair.dna_vectors.exists() or pair.protein_vectors.exists() or pair.merged.exists()


def _stamps(pair: FilePair) -> list[list[int] | None]:
    stamps = map(Stamp.of, (pair.protein_fasta, pair.dna_vectors, pair.protein_vectors))
    return [stamp.as_list() if stamp else None for stamp in stamps]


def run(options: Options, progress: Callable[[Progress], Any] = lambda _: None) -> Statistics:
    """Do the whole job: discover, check, extract, merge, validate.

    Parameters
    ----------
    options : Options
        What was asked for.
    progress : callable
        Called before the first and after every protein file.

    Raises
    ------
    NucproError
        See the steps of :class:`Job`.
    """
    with Job(options) as job:
        job.discover()
        job.check()
        job.show()
        if options.dry_run:
            return job.statistics
        job.prepare()
        progress(job.progress)
        job.load_model()
        for _ in job.extract(job.extract_file):
            progress(job.progress)
        job.merge()
        job.audit()
        job.validate()
        return job.statistics


def validate_folder(options: Options) -> list[FileVerdict]:
    """Validate everything in a data folder, whoever made it; changes nothing and loads no model.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences a file and the selection.

    Raises
    ------
    PreflightError
        There is nothing to validate.
    ValidationError
        All faults.
    """
    with Job(replace(options, dry_run=True)) as job:
        pairs = job.discover().pairs
        width = expected_width(pairs)
        verdicts = list(job.workers.map(validate_file, [ValidationTask(pair, width) for pair in pairs]))
        job.judge(verdicts, width)
        return verdicts


def status(options: Options) -> list[str]:
    """Where a data folder stands: done, stale, missing, outside the selection, problems.

    Changes nothing, and works while a run is at work.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences a file and the selection.

    Returns
    -------
    list of str
        Lines to show.

    Raises
    ------
    PreflightError
        There is no such folder, or it holds no full viral file.
    """
    with Job(replace(options, dry_run=True)) as job:
        selection = job.discover()
        problems = job.inputs()
        recipe = job.checkpoint.recipe
        lines = [f"Run: {lock.state(job.folder.lock)}"]
        if recipe is None:
            lines.append("No run is recorded here yet; nucpro extract --dry-run shows what a run would do")
        else:
            lines += [*discovery_lines(selection, job.compare(recipe)), *state_lines(job.plan)]
        lines += outside_lines(job.outside())
        return lines + [f"Problem: {problem}" for problem in problems]
