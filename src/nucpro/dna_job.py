"""DNABERT-S vectors of a data folder: the same run as for proteins, on the other side, without merging."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from nucpro.errors import ValidationError
from nucpro.fasta import FastaFacts
from nucpro.job import Job
from nucpro.layout import FilePair, Side, natural_key
from nucpro.plan import PlanItem
from nucpro.summary import dna_verdict_line
from nucpro.validation import FileVerdict, ValidationTask, mixed_models, validate_vectors

__all__ = ["DnaJob"]

logger = logging.getLogger(__name__)


class DnaJob(Job):
    """DNABERT-S files of the selected files of one data folder, or of all full files."""

    side = Side.DNA

    @property
    def pairs(self) -> tuple[FilePair, ...]:
        """The selected files; with ``--all`` every full file, the selected ones first."""
        if not self.options.all_files:
            return self.selection.pairs
        full = self.census.full(self.options.sequences_per_file)
        others = sorted(set(full) - set(self.selection.pairs), key=lambda pair: natural_key(pair.key))
        return (*self.selection.pairs, *others)

    def validate(self) -> list[FileVerdict]:
        """Read back what lies on disk; files that were read before and have not changed are not read again.

        Raises
        ------
        ValidationError
            All faults, file by file.
        """
        width = self.plan.recipe.width
        unread = [pair for pair in self.pairs if self.checkpoint.fact("dna", pair.dna_vectors) is None]
        verdicts = list(self.workers.map(validate_vectors, [ValidationTask(pair, width) for pair in unread]))
        problems = sorted(problem for verdict in verdicts for problem in verdict.problems)
        problems += mixed_models(verdicts, self.side)
        if problems:
            raise ValidationError("\n  - ".join([f"Validation failed, {len(problems)} problems:", *problems]))
        for verdict in verdicts:
            self.checkpoint.add("dna", verdict.pair.dna_vectors, {})
        logger.info("%s", dna_verdict_line(self.plan))
        return verdicts

    @property
    def _trusts_existing(self) -> bool:
        # Files of the original program do not say how they were made; they are good by ids, width, finiteness.
        return not self.options.replace_existing

    def _input_problems(self, split: Sequence[FilePair], facts: dict[Path, FastaFacts]) -> list[str]:
        return [problem for fact in facts.values() for problem in fact.problems]

    def _finished(self, item: PlanItem) -> None:
        """Nothing is made from DNA vectors in this run."""

    def _folders_written(self) -> list[Path]:
        return sorted({pair.dna_vectors.parent for pair in self.pairs})
