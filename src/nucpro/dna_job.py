"""DNABERT-S vectors of a data folder: the same run as for proteins, on the other side, without merging."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from nucpro.checkpoint import Stamp
from nucpro.errors import ValidationError
from nucpro.fasta import FastaFacts
from nucpro.job import Job, stage
from nucpro.layout import FilePair, Side, natural_key
from nucpro.plan import PlanItem, Unproven
from nucpro.preflight import side_problems
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

    @stage("validate")
    def validate(self) -> list[FileVerdict]:
        """Read back what lies on disk; files that were read before and have not changed are not read again.

        Raises
        ------
        ValidationError
            All faults, file by file.
        """
        width = self.plan.recipe.width
        unread = [pair for pair in self.pairs if not self._is_known(pair)]
        stamps = {pair: Stamp.of(pair.dna_vectors) for pair in unread}
        verdicts = list(self.workers.map(validate_vectors, [ValidationTask(pair, width) for pair in unread]))
        problems = sorted(problem for verdict in verdicts for problem in verdict.problems)
        problems += mixed_models(verdicts, self.side)
        if problems:
            raise ValidationError("\n  - ".join([f"Validation failed, {len(problems)} problems:", *problems]))
        for verdict in verdicts:
            fact = {"input": self._facts[verdict.pair].digest}
            self.checkpoint.add("dna", verdict.pair.dna_vectors, fact, stamps[verdict.pair])
        logger.info("%s", dna_verdict_line(self.plan))
        return verdicts

    def _is_known(self, pair: FilePair) -> bool:
        fact = self.checkpoint.fact("dna", pair.dna_vectors)
        unchanged = self.checkpoint.fact("fasta", pair.nucleotide_fasta) is not None
        return unchanged and fact is not None and fact.get("input") == self._facts[pair].digest

    @property
    def _unproven(self) -> Unproven:
        # Files of the original program do not say how they were made; they are good by ids, width, finiteness.
        return Unproven.REDO if self.options.replace_existing else Unproven.TRUST

    def _input_problems(self, split: Sequence[FilePair], facts: dict[Path, FastaFacts]) -> list[str]:
        both = [pair for pair in split if pair.protein_fasta.parent.is_dir()]
        present = [pair for pair in both if os.path.lexists(pair.protein_fasta)]
        protein, unreadable = self._inspect(present, Side.PROTEIN)
        have_both = set(both)
        only_dna = [pair for pair in split if pair not in have_both]
        problems = [problem for pair in only_dna for problem in facts[pair.nucleotide_fasta].problems]
        return [*unreadable, *problems, *side_problems(both, facts, protein)]

    def _finished(self, item: PlanItem) -> None:
        """Nothing is made from DNA vectors in this run."""

    def _folders_written(self) -> list[Path]:
        return sorted({pair.dna_vectors.parent for pair in self.pairs})
