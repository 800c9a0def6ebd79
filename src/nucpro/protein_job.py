"""The main job: protein vectors, merged with the DNA vectors that are there, and validated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nucpro import history
from nucpro.checkpoint import Stamp
from nucpro.errors import DataError, NucproError, ValidationError
from nucpro.fasta import FastaFacts
from nucpro.job import Job, stage
from nucpro.layout import CLASS_NAMES, DNA_WIDTH, FilePair, Side
from nucpro.merge import merge, verify_dna
from nucpro.plan import PlanItem, State, merged_fact
from nucpro.preflight import dna_problems, side_problems
from nucpro.report import POINTS, FileState, Output, Subject, missing_packages, write_report
from nucpro.store import remove_temporaries
from nucpro.summary import outside_lines, verdict_lines
from nucpro.validation import (
    FileVerdict,
    ValidationTask,
    mixed_models,
    outside_outputs,
    validate_file,
    width_outside,
    without_class,
)

__all__ = ["DNA_COMMAND", "ProteinJob"]

logger = logging.getLogger(__name__)

DNA_COMMAND = "nucpro embed-dna"
"""What makes missing DNABERT-S files, for messages."""

Join = Callable[[Path, Path, Path, str], object]


class ProteinJob(Job):
    """Protein vectors and merged files of one data folder."""

    side = Side.PROTEIN

    needs_dna = True
    """Whether missing DNABERT-S files are problems; they are not for somebody who only extracts."""

    def show(self) -> None:
        """Log what was found, the files outside the selection, and for a dry run also the plan."""
        super().show()
        for line in [*outside_lines(self.outside()), *self._outside_problems(self.plan.recipe.width)]:
            logger.info("%s", line)

    def extract(
        self, unit: Callable[[PlanItem], object] | None = None, join: Join | None = merge
    ) -> Iterator[PlanItem]:
        """Make the missing and stale protein files, and merge each beside the encoder as soon as it is there.

        Parameters
        ----------
        unit : callable, optional
            Writes the protein file of one item, in threads of this process; by default the engine does that.
        join : callable
            Merges one pair in a worker process: DNA file, protein file, merged file, ``viral`` or ``host``;
            None to merge nothing.

        Raises
        ------
        NucproError
            The first fault of the encoder, of a merge or of a DNABERT-S file; what was finished stays.
        """
        self._join = join
        # Where nothing is merged, the vectors are all there is to be done.
        done = (item for item in self.plan.items if item.is_done or (not join and item.vectors is State.DONE))
        given = None if join else [pair.protein_fasta for pair in self.pairs]
        self.checkpoint.restart((item.pair.protein_fasta for item in done), given)
        if join is not None:
            for item in (*self.plan.to_merge_only, *self.plan.to_extract):
                self._submit_dna_check(item.pair)
            for item in self.plan.to_merge_only:
                self._submit_merge(item.pair, join)
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
        from nucpro.audit import audit  # noqa: PLC0415 - imports torch

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
    def _trusts_existing(self) -> bool:
        return self.options.trust_existing

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

    def _finished(self, item: PlanItem) -> None:
        if self._join is None:
            self.checkpoint.complete(item.pair.protein_fasta)
        else:
            self._submit_merge(item.pair, self._join, first=True)

    def _submit_dna_check(self, pair: FilePair) -> None:
        facts, problems = self._inspect([pair], Side.DNA)
        if problems:
            raise DataError("\n".join(problems))
        fasta = facts[pair.nucleotide_fasta]
        fact = self.checkpoint.fact("dna", pair.dna_vectors)
        if fact is None or fact.get("input") != fasta.digest:
            arguments = (pair.dna_vectors, pair.nucleotide_fasta, fasta.ids_digest, fasta.digest)
            self._background.add(verify_dna, arguments, lambda stamp: self._dna_is_good(pair, fasta, stamp))

    def _dna_is_good(self, pair: FilePair, fasta: FastaFacts, stamp: Stamp | None) -> None:
        self.checkpoint.add("dna", pair.dna_vectors, {"input": fasta.digest}, stamp)

    def _submit_merge(self, pair: FilePair, join: Join, *, first: bool = False) -> None:
        # Taken before the sources are read: if one changes meanwhile, the merged file is not taken for current.
        fact = merged_fact(pair)
        files = (pair.dna_vectors, pair.protein_vectors, pair.merged, CLASS_NAMES[pair.label])
        self._background.add(join, files, lambda _: self._merged(pair, fact), first=first)

    def _merged(self, pair: FilePair, fact: dict[str, object]) -> None:
        self.checkpoint.add("merged", pair.merged, fact)
        self.checkpoint.complete(pair.protein_fasta)
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
        problems = []
        for path, found in sorted(self.workers.map(width_outside, self.outside())):
            expected = width + DNA_WIDTH * (self.folder.merge_root in path.parents)
            if found != expected:
                what = f"is {found} wide, not {expected}" if found else "cannot be read"
                problems.append(
                    f"{path}: outside the selection and {what}; a training script would read it: remove it"
                )
        merged = [path for path in self.outside() if self.folder.merge_root in path.parents]
        return problems + sorted(filter(None, self.workers.map(without_class, merged)))


def _validated(task: ValidationTask) -> tuple[FileVerdict, Stamp | None, list[list[int] | None]]:
    """Verdict of a pair, with the stamps of its files from before they were read."""
    stamp, sources = Stamp.of(task.pair.merged), _stamps(task.pair)
    return validate_file(task), stamp, sources


def _stamps(pair: FilePair) -> list[list[int] | None]:
    sources = (pair.nucleotide_fasta, pair.protein_fasta, pair.dna_vectors, pair.protein_vectors)
    stamps = map(Stamp.of, sources)
    return [stamp.as_list() if stamp else None for stamp in stamps]
