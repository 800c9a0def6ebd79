"""The main job: protein vectors, merged with the DNA vectors that are there, and validated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from nucpro.errors import DataError, NucproError, ValidationError
from nucpro.extraction.job import Job, stage
from nucpro.extraction.merging import DnaFile, DnaVerdict, examine_dna, merge
from nucpro.extraction.plan import PlanItem, State, Unproven, merged_fact, verified_fact
from nucpro.extraction.preflight import dna_problems, side_problems
from nucpro.extraction.repeats import repeated_ids
from nucpro.extraction.summary import outside_lines, verdict_lines
from nucpro.extraction.validation import (
    FileVerdict,
    ValidationTask,
    mixed_models,
    outside_outputs,
    validate_file,
    width_outside,
    without_class,
)
from nucpro.folder.paths import CLASS_NAMES, FilePair
from nucpro.formats import remove_temporaries
from nucpro.formats.fasta import FastaFacts
from nucpro.formats.sequences import DNA_WIDTH, Side
from nucpro.options import Options
from nucpro.report import POINTS, FileState, Output, Subject, missing_packages, write_report
from nucpro.state import history
from nucpro.state.records import Stamp

__all__ = ["DNA_COMMAND", "ProteinJob"]

logger = logging.getLogger(__name__)

DNA_COMMAND = "nucpro embed-dna"
"""What makes missing DNABERT-S files, for messages."""

_STEPS = 10
"""Lines that tell how far the reading of many files is."""

Join = Callable[[Path, Path, Path, str], object]


class ProteinJob(Job):
    """Protein vectors and merged files of one data folder."""

    side = Side.PROTEIN

    needs_dna = True
    """Whether missing DNABERT-S files are problems; they are not for somebody who only extracts."""

    def __init__(self, options: Options, *, needs_model: bool = True) -> None:
        super().__init__(options, needs_model=needs_model)
        self._join: Join | None = None
        self._unread_dna: dict[FilePair, DnaFile] = {}
        self._ready_to_merge: set[FilePair] = set()

    def show(self) -> None:
        """Log what was found, the files outside the selection, and for a dry run also the plan."""
        super().show()
        for line in [*outside_lines(self.outside()), *self._outside_problems(self.plan.recipe.width)]:
            logger.info("%s", line)

    def prepare(self) -> None:
        """Recompute records of files of unknown origin, where ``--verify-existing`` asks for it, then as every job.

        Raises
        ------
        ModelError
            The model that recomputes them cannot be loaded.
        NucproError
            See :meth:`nucpro.extraction.job.Job.prepare`.
        """
        to_verify = [item for item in self.plan.items if item.to_verify]
        if to_verify:
            with self.history.stage("verify existing files"):
                self._verify_existing(to_verify)
        super().prepare()

    def _verify_existing(self, items: Sequence[PlanItem]) -> None:
        """Keep those of these files whose recomputed records agree; the others are made again."""
        from nucpro.extraction.existing import recompute  # noqa: PLC0415 - imports torch

        recipe = self.plan.recipe
        for item, found in zip(
            items, self.engine.call(recompute, items, self._model, self.options), strict=True
        ):
            path = item.pair.protein_vectors
            if found.problem is None:
                self.checkpoint.add(
                    "vectors", path, verified_fact(recipe, item.facts, found.records), found.stamp
                )
            logger.info("%s", found.line(path, str(recipe.made_by["id"])))
        self.compare(recipe, Unproven.REDO)

    def extract(
        self, unit: Callable[[PlanItem], float] | None = None, join: Join | None = merge
    ) -> Iterator[PlanItem]:
        """Make the missing and stale protein files, and merge each beside the encoder as soon as it is there.

        Parameters
        ----------
        unit : callable, optional
            Writes the protein file of one item, in threads of this process, and gives the seconds from the first
            batch on the device to the disk; by default the engine does that.
        join : callable
            Merges one pair in a worker process: DNA file, protein file, merged file, ``viral`` or ``host``;
            None to merge nothing.

        Raises
        ------
        NucproError
            The first fault of the encoder, of a merge or of a DNABERT-S file; what was finished stays.
        """
        self._join = join
        self._list_completed()
        if join is not None:
            self._submit_dna_checks([item.pair for item in (*self.plan.to_merge_only, *self.plan.to_extract)])
            for item in self.plan.to_merge_only:
                self._merge_when_read(item.pair, first=False)
        yield from super().extract(unit)

    def validate(self) -> list[FileVerdict]:
        """Read back what lies on disk, write the report unless it is turned off, and judge.

        Files that were read before and have not changed are not read again.

        Raises
        ------
        ValidationError
            All faults, file by file.
        """
        width = self.plan.recipe.width
        with self.history.stage("validate"):
            outside = self._outside_problems(width)
            # The last look at the inputs of the run: whoever changes them later changes a validated folder.
            known = {item.pair: self._known_verdict(item.pair) for item in self.plan.items}
            tasks = [ValidationTask(pair, width) for pair, verdict in known.items() if verdict is None]
            fresh = [self._remember_verdict(found) for found in self.workers.map(_validated, tasks)]
            verdicts = [*filter(None, known.values()), *fresh]
            problems = self._problems_of(verdicts) + outside
        if self.options.report and (self._changed_something or problems or not self.folder.report.is_dir()):
            self._report_at_end(problems)
        self._conclude(verdicts, problems)
        return verdicts

    def judge(self, verdicts: Sequence[FileVerdict], width: int) -> None:
        """Show what validation found in all files together.

        Raises
        ------
        ValidationError
            All faults: of single files, between files, and of files outside the selection.
        """
        self._conclude(verdicts, self._problems_of(verdicts) + self._outside_problems(width))

    def _problems_of(self, verdicts: Sequence[FileVerdict]) -> list[str]:
        problems = sorted(problem for verdict in verdicts for problem in verdict.problems)
        return problems + mixed_models(verdicts, Side.PROTEIN) + mixed_models(verdicts, Side.DNA)

    def _conclude(self, verdicts: Sequence[FileVerdict], problems: Sequence[str]) -> None:
        if problems:
            raise ValidationError("\n  - ".join([f"Validation failed, {len(problems)} problems:", *problems]))
        viral = sum(verdict.records for verdict in verdicts if verdict.pair.label)
        host = sum(verdict.records for verdict in verdicts) - viral
        self.history.validated(files=len(verdicts), viral=viral, host=host)
        logger.info("%s", "\n".join(verdict_lines(verdicts)))

    @stage("audit")
    def audit(self) -> None:
        """Recompute random sequences in float32 and compare, where ``--audit`` asks for it.

        Raises
        ------
        ValidationError
            A vector on disk that is not what the model gives.
        """
        from nucpro.extraction.audit import audit  # noqa: PLC0415 - imports torch

        if self.options.audit:
            for line in self.engine.call(audit, self.plan, self._model, self.options):
                logger.info("%s", line)

    def report(self, problems: Sequence[str] = (), notes: Sequence[str] = (), points: int = POINTS) -> Path:
        """Write the report of what lies on disk; needs :meth:`discover` or :meth:`take` first.

        Parameters
        ----------
        problems : sequence of str
            What stands in the way of a run, or what validation found.
        notes : sequence of str
            What else a reader should know, beside the warnings of the selection.
        points : int
            Sequences on the map.

        Returns
        -------
        Path
            The page.

        Raises
        ------
        UsageError
            The extra ``report`` is not installed.
        StoreError
            The page cannot be written.
        """
        subject = self._subject(problems, notes, history.read(self.folder))
        return write_report(subject, self.workers, points)

    def outside(self) -> list[Path]:
        """Protein and merged files that belong to no selected pair."""
        selected = {pair.protein_vectors for pair in self.pairs} | {pair.merged for pair in self.pairs}
        return outside_outputs(self.folder, [state.source for state in self.census.sources], selected)

    @property
    def _changed_something(self) -> bool:
        return bool(self.statistics.files or self.statistics.merged)

    def _report_at_end(self, problems: Sequence[str]) -> None:
        """Write the report of this run; the data are what they are without it, so nothing here fails the run."""
        missing = missing_packages()
        if missing:
            logger.info("No report: %s not installed (pip install 'nucpro[report]')", " and ".join(missing))
            return
        try:
            with self.history.stage("report"):
                runs = history.read(self.folder)
                if runs and runs[-1].how is None:
                    # This run, which says how it ended only after its last line.
                    runs[-1].how = history.FAILED if problems else history.DONE
                remove_temporaries(self.folder.report)  # of a report that was killed; this run holds the lock
                write_report(self._subject(problems, (), runs), self.workers)
        except (NucproError, OSError, MemoryError) as error:
            logger.warning("No report: %s", error)

    def _subject(self, problems: Sequence[str], notes: Sequence[str], runs: Sequence[history.Run]) -> Subject:
        return Subject(
            folder=self.folder,
            files=[FileState(pair, self.census.records[pair], self._output_of(pair)) for pair in self.pairs],
            reason=self.selection.reason,
            notes=(*self.selection.warnings, *notes),
            problems=problems,
            outside=len(self.outside()),
            runs=runs,
        )

    def _output_of(self, pair: FilePair) -> Output:
        if self._known_verdict(pair) is not None:
            return Output.VALIDATED
        return Output.MADE if pair.merged.exists() else Output.MISSING

    @property
    def _unproven(self) -> Unproven:
        if not self._needs_model:
            # Whoever only looks sees what the last run said.
            return Unproven.REMEMBER
        if self.options.verify_existing:
            return Unproven.VERIFY
        return Unproven.TRUST if self.options.trust_existing else Unproven.REDO

    def _input_problems(self, split: Sequence[FilePair], facts: dict[Path, FastaFacts]) -> list[str]:
        both = [pair for pair in split if pair.nucleotide_fasta.is_file()]
        nucleotide, _ = self._inspect(both, Side.DNA)
        problems = side_problems(both, nucleotide, facts)
        if self.needs_dna:
            may_be_missing = self.options.with_dna and self.options.dry_run
            problems = dna_problems(self.pairs, DNA_COMMAND, may_be_missing=may_be_missing) + problems
        return problems

    def _folders_written(self) -> list[Path]:
        return sorted({path.parent for pair in self.pairs for path in (pair.protein_vectors, pair.merged)})

    def _list_completed(self) -> None:
        """Put the checkpoint's list right: files of this run are in it if they are done, others stay in it."""
        mine = {item.pair.protein_vectors: item.vectors is State.DONE for item in self.plan.items}
        listed = [self.folder.root / key for key in self.checkpoint.completed]
        kept = [path for path in listed if (mine[path] if path in mine else path.exists())]
        self.checkpoint.restart([*kept, *(path for path, is_done in mine.items() if is_done)])

    def _finished(self, item: PlanItem) -> None:
        self.checkpoint.complete(item.pair.protein_vectors)
        if self._join is not None:
            self._merge_when_read(item.pair)

    def _content_problems(self) -> list[str]:
        """Bad contents of DNABERT-S files, which a dry run reads at once and a run beside the encoder."""
        if not self.options.dry_run or self.options.with_dna or not self.needs_dna:
            return []
        done = {item.pair for item in self.plan.items if item.is_done} if self._is_compared else set()
        # Those that are missing or no archives are problems already.
        usable = [pair for pair in self.pairs if pair not in done and not dna_problems([pair], DNA_COMMAND)]
        files = self._dna_to_read(usable)[0]
        verdicts = []
        for number, verdict in enumerate(self.workers.map(examine_dna, files), 1):
            verdicts.append(verdict)
            if number * _STEPS // len(files) > (number - 1) * _STEPS // len(files):
                logger.info("Read the contents of %d of %d DNABERT-S files", number, len(files))
        return _bad_dna(verdicts)

    def _dna_to_read(self, pairs: Sequence[FilePair]) -> tuple[list[DnaFile], list[str]]:
        """DNABERT-S files whose contents are not known, and what is wrong with the FASTA files of others."""
        facts, problems = self._inspect(pairs, Side.DNA)
        files = [
            DnaFile(pair, facts[pair.nucleotide_fasta]) for pair in pairs if pair.nucleotide_fasta in facts
        ]
        return [file for file in files if not self._is_known_dna(file)], problems

    def _is_known_dna(self, file: DnaFile) -> bool:
        fact = self.checkpoint.fact("dna", file.pair.dna_vectors)
        return fact is not None and fact.get("input") == file.fasta.digest

    def _submit_dna_checks(self, pairs: Sequence[FilePair]) -> None:
        files, problems = self._dna_to_read(pairs)
        if problems:
            raise DataError("\n".join(problems))
        self._unread_dna = {file.pair: file for file in files}
        for file in files:
            self._background.add(examine_dna, (file,), self._dna_was_read)

    def _dna_was_read(self, verdict: DnaVerdict) -> None:
        """Take note of a DNABERT-S file that was read.

        Raises
        ------
        DataError
            It is bad: all others are read then, and all bad ones are listed, so that one run tells everything.
        """
        file = self._unread_dna.pop(verdict.file.pair)
        if verdict.problem is not None:
            others = self.workers.map(examine_dna, self._unread_dna.values())
            raise DataError(
                "\n  - ".join(["DNABERT-S files that cannot be used:", *_bad_dna([verdict, *others])])
            )
        self.checkpoint.add("dna", file.pair.dna_vectors, {"input": file.fasta.digest}, verdict.stamp)
        if file.pair in self._ready_to_merge:
            self._submit_merge(file.pair)

    def _merge_when_read(self, pair: FilePair, *, first: bool = True) -> None:
        """Merge a pair whose protein vectors are there, but not before its DNABERT-S file is known to be good."""
        if pair in self._unread_dna:
            self._ready_to_merge.add(pair)
        else:
            self._submit_merge(pair, first=first)

    def _submit_merge(self, pair: FilePair, *, first: bool = True) -> None:
        assert self._join is not None
        # Taken before the sources are read: if one changes meanwhile, the merged file is not taken for current.
        fact = merged_fact(pair)
        files = (pair.dna_vectors, pair.protein_vectors, pair.merged, CLASS_NAMES[pair.label])
        self._background.add(self._join, files, lambda _: self._merged(pair, fact), first=first)

    def _merged(self, pair: FilePair, fact: dict[str, object]) -> None:
        self.checkpoint.add("merged", pair.merged, fact)
        self.statistics.merged += 1
        # Read back from disk while the encoder is at work; what is wrong is judged at the end, with all others.
        task = ValidationTask(pair, self.plan.recipe.width)
        self._background.add(_validated, (task,), self._remember_verdict)

    def _remember_verdict(
        self, found: tuple[FileVerdict, Stamp | None, list[list[int] | None]]
    ) -> FileVerdict:
        verdict, stamp, sources = found
        if not verdict.problems:
            fact = {"of": sources, "records": verdict.records, "models": dict(verdict.models)}
            self.checkpoint.add("valid", verdict.pair.merged, fact, stamp)
        return verdict

    def _known_verdict(self, pair: FilePair) -> FileVerdict | None:
        fact = self.checkpoint.fact("valid", pair.merged)
        if fact is None or fact.get("of") != _stamps(pair) or "models" not in fact:
            return None
        models = {Side(side): digest for side, digest in fact["models"].items()}
        return FileVerdict(pair, fact["records"], models, ())

    def _outside_problems(self, width: int) -> list[str]:
        """What is wrong with files outside the selection: a training script reads all merged files that it finds."""
        problems, merged = [], []
        for path, found in sorted(self.workers.map(width_outside, self.outside())):
            is_merged = self.folder.merge_root in path.parents
            expected = width + DNA_WIDTH * is_merged
            if found != expected:
                what = f"is {found} wide, not {expected}" if found else "cannot be read"
                problems.append(
                    f"{path}: outside the selection and {what}; a training script would read it: remove it"
                )
            elif is_merged:
                merged.append(path)
        problems += repeated_ids(merged, [pair.merged for pair in self.pairs], self.workers)
        return problems + sorted(filter(None, self.workers.map(without_class, merged)))


def _bad_dna(verdicts: Iterable[DnaVerdict]) -> list[str]:
    problems = sorted(verdict.problem for verdict in verdicts if verdict.problem is not None)
    return [f"{problem}; make this file again with: {DNA_COMMAND}" for problem in problems]


def _validated(task: ValidationTask) -> tuple[FileVerdict, Stamp | None, list[list[int] | None]]:
    """Verdict of a pair, with the stamps of its files from before they were read."""
    stamp, sources = Stamp.of(task.pair.merged), _stamps(task.pair)
    return validate_file(task), stamp, sources


def _stamps(pair: FilePair) -> list[list[int] | None]:
    sources = (pair.nucleotide_fasta, pair.protein_fasta, pair.dna_vectors, pair.protein_vectors)
    stamps = map(Stamp.of, sources)
    return [stamp.as_list() if stamp else None for stamp in stamps]
