"""Survey of a data folder and of the work to do in it: read-only, for one sequence type.

The steps in their order: :meth:`Survey.discover` (or :meth:`Survey.take`), :meth:`Survey.inputs`,
:meth:`Survey.compare`. A run continues from there; read-only commands stop.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from nucpro.errors import PreflightError, counted, limited
from nucpro.execution.workers import Workers
from nucpro.extraction.merging import DnaFile, DnaVerdict, examine_dna
from nucpro.extraction.plan import Plan, Unproven, make_plan
from nucpro.extraction.preflight import dna_problems, pairing_problems
from nucpro.extraction.validation import outside_outputs, repeated_ids, width_outside, without_class
from nucpro.folder.inventory import Inventory, inspect_all, take_inventory
from nucpro.folder.kinds import require_folder
from nucpro.folder.paths import NO_SOURCES, DataFolder, FilePair, Source
from nucpro.folder.selection import Selection, load, select
from nucpro.folder.splitting import file_size, unsplit_problems
from nucpro.formats.fasta import FastaFacts
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.options import AUTO, SEQUENCES_PER_FILE, TOKEN_DROPOUT, Options
from nucpro.progress import Show, Shown, silent
from nucpro.state.checkpoint import Checkpoint
from nucpro.state.recipe import Recipe, described

__all__ = ["Survey", "bad_dna", "dna_command", "outside_lines", "read_only_survey", "with_recorded_models"]


def outside_lines(paths: Sequence[Path]) -> list[str]:
    """Files in the output folders that do not belong to a selected pair."""
    return limited([f"Outside the selection: {path}" for path in paths])


logger = logging.getLogger(__name__)


class Survey:
    """Files of a data folder, as they are.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences per file and the selection.
    sequence_type : SequenceType
        Sequence type of the vectors.
    records : Checkpoint
        Facts about unchanged files.
    workers : Workers
        Workers that read files.
    makes : bool
        Survey the folder for a run with these options; else as the last run left it.
    show : callable, optional
        Called with the progress of reading.

    Attributes
    ----------
    is_compared : bool
        Whether there is a plan.
    needs_dna : bool
        Whether missing DNABERT-S files are problems; they are not if nothing is merged.
    options : Options
        Options, with the models recorded in the folder if none was named.
    size : int
        Records of a full split file.
    """

    def __init__(
        self,
        options: Options,
        sequence_type: SequenceType,
        records: Checkpoint,
        workers: Workers,
        *,
        makes: bool = True,
        show: Show = silent,
    ) -> None:
        self.options = with_recorded_models(options, records)
        self.asked = options
        self.sequence_type = sequence_type
        self.folder = DataFolder(options.data_dir)
        self.records = records
        self.size = options.sequences_per_file or SEQUENCES_PER_FILE
        self.workers = workers
        self._readers = Shown(workers, "Reading FASTA files", show)
        self._dna_readers = Shown(workers, "Reading DNABERT-S files", show)
        self.needs_dna = sequence_type is SequenceType.PROTEIN
        self.makes = makes
        is_known = sequence_type is SequenceType.PROTEIN and not makes
        self.unproven = Unproven.REMEMBER if is_known else _unproven_of(options, sequence_type)
        self.inventory: Inventory
        self.selection = Selection((), (), "given")
        self.plan: Plan
        self.facts: dict[FilePair, FastaFacts] = {}
        self.is_compared = False
        self._refusals: list[str] = []

    def discover(self, sources: Iterable[Source] | None = None) -> Selection:
        """Find all files and select those that are used.

        Parameters
        ----------
        sources : iterable of Source, optional
            The sources; by default the data folder is searched.

        Raises
        ------
        PreflightError
            No sources, no full viral file, or a recorded host file that is gone.
        """
        found = self.folder.walk_sources() if sources is None else list(sources)
        size = file_size(self.asked.sequences_per_file, self.folder, found, self.records, self.workers)
        self.size = size
        self._show_recorded()
        self.inventory = take_inventory(found, self.records, self._readers, size)
        if not self.inventory.records:
            raise PreflightError(self.inventory.problems or [NO_SOURCES])
        left_out = self.inventory.left_out(size)
        try:
            full = self.inventory.full(size)
            selection = select(full, _has_output, load(self.folder), self.options.host_selection)
        except PreflightError as error:
            hints = [*left_out, *self.inventory.sizes_hint(size)]
            raise PreflightError([*self.inventory.problems, *error.problems, *hints]) from error
        if self.options.strict_sampling:
            self._refusals = [f"refused by --strict-sampling: {text}" for text in selection.warnings]
        self.selection = selection
        not_used = self.inventory.not_used(size, set(self.pairs))
        self.selection = replace(selection, warnings=(*selection.warnings, *left_out, *not_used))
        return self.selection

    def take(self, pairs: Sequence[FilePair]) -> Selection:
        """Use these files instead of those that :meth:`discover` would select.

        Raises
        ------
        PreflightError
            A file does not exist.
        """
        absent = [path for pair in pairs if not (path := pair.fasta(self.sequence_type)).is_file()]
        if absent:
            raise PreflightError(
                [f"{path}: no such file; give paths of split FASTA files" for path in absent]
            )
        sources = list(dict.fromkeys(pair.source for pair in pairs))
        asked = self.asked.sequences_per_file
        self.size = file_size(asked, self.folder, sources, self.records, self.workers)
        self.inventory = take_inventory(sources, self.records, self._readers, self.size)
        viral, hosts = (tuple(pair for pair in pairs if pair.label == label) for label in (1, 0))
        self.selection = Selection(viral, hosts, "given")
        return self.selection

    def outside_problems(self, width: int) -> list[str]:
        """Problems of files outside the selection: a training script reads all merged files that it finds.

        Parameters
        ----------
        width : int
            Columns of protein vectors.
        """
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
        problems += repeated_ids(merged, (pair.merged for pair in self.pairs), self.workers)
        return problems + sorted(filter(None, self.workers.map(without_class, merged)))

    @property
    def pairs(self) -> tuple[FilePair, ...]:
        """The files that are used, in the order of work; with ``--all`` every full file, the selected ones first."""
        if not self.options.all_files:
            return self.selection.pairs
        full = self.inventory.full(self.size)
        others = sorted(set(full) - set(self.selection.pairs), key=lambda pair: pair.order)
        return (*self.selection.pairs, *others)

    def inputs(self) -> list[str]:
        """Read the inputs of all files; returns their problems."""
        problems = list(self.inventory.problems)
        split = [pair for pair in self.pairs if pair.fasta(self.sequence_type).parent.is_dir()]
        facts, unreadable = self.inspect(
            [p for p in split if os.path.lexists(p.fasta(self.sequence_type))], self.sequence_type
        )
        problems += unreadable
        problems += (
            self._protein_inputs(split, facts)
            if self.sequence_type is SequenceType.PROTEIN
            else self._dna_inputs(split, facts)
        )
        problems += unsplit_problems(self.unsplit())
        problems += self._refusals
        # Files that are still to be split have no facts yet, but their number of records is known.
        self.facts = {
            pair: facts.get(pair) or FastaFacts.unknown(self.inventory.records[pair]) for pair in self.pairs
        }
        return problems

    def compare(self, recipe: Recipe, unproven: Unproven | None = None) -> Plan:
        """Compare the files on disk with the result of a recipe; needs :meth:`inputs` first.

        Parameters
        ----------
        recipe : Recipe
            Recipe of the vectors.
        unproven : Unproven, optional
            Treatment of files without provenance, if it differs from the options.
        """
        pairs = [(pair, self.facts[pair]) for pair in self.pairs]
        how = unproven or self.unproven
        self.plan = make_plan(pairs, recipe, self.records, self.workers, unproven=how)
        self.is_compared = True
        return self.plan

    def _show_recorded(self) -> None:
        """Log in one line the options that were taken from the state of the folder."""
        parts = []
        if self.asked.sequences_per_file is None and self.size != SEQUENCES_PER_FILE:
            parts.append(f"--sequences-per-file {self.size}")
        recipe = self.records.recipe_of(self.sequence_type)
        if self.makes and recipe is not None:
            if not self.asked.asks_for_model(self.sequence_type) and recipe.model is not None:
                parts.append(f"--{self.sequence_type}-model {recipe.model[0]}")
            if self.options.token_dropout != self.asked.token_dropout:
                parts.append(f"--token-dropout {self.options.token_dropout}")
            if self.asked.precision == AUTO:
                parts.append(f"--precision {recipe.made_by.get('precision')}")
        if parts:
            logger.info("As in %s: %s", self.folder.root, " ".join(parts))

    def replacing_problems(self) -> list[str]:
        """Why files of another model or options are not recomputed by default; needs :meth:`compare`."""
        others = [item.made_by for item in self.plan.items if item.made_by is not None]
        recorded, recipe = self.records.recipe_of(self.sequence_type), self.plan.recipe
        is_going_on = recorded is not None and recorded.key == recipe.key
        if not others or self.options.replace or is_going_on:
            return []
        made_by = next(filter(None, others), recorded.made_by if recorded else {})
        return [
            f"{self.folder.root}: {len(others)} of "
            f"{counted(len(self.plan.items), f'{self.sequence_type.word} file')} were made by "
            f"{described(made_by)}; this run would recompute them by {described(recipe.made_by)}: give the model and "
            "precision that they were made with, or --replace to recompute them"
        ]

    def dna_to_read(self, pairs: Sequence[FilePair]) -> tuple[list[DnaFile], list[str]]:
        """Unverified DNABERT-S files, and problems of the FASTA files of the remaining pairs."""
        facts, problems = self.inspect(pairs, SequenceType.DNA)
        files = [DnaFile(pair, facts[pair]) for pair in pairs if pair in facts]
        return [
            file
            for file in files
            if not self.records.knows("dna", file.pair.dna_vectors, input=file.fasta.digest)
        ], problems

    def dna_contents(self) -> list[str]:
        """Read the unverified DNABERT-S files; returns their problems.

        A run reads them in parallel with the encoder; read-only commands read them at once.
        """
        if self.options.with_dna or not self.needs_dna:
            return []
        done = {item.pair for item in self.plan.items if item.is_done} if self.is_compared else set()
        # Files that are missing or not archives are already listed as problems.
        command = dna_command(self.asked)
        usable = [pair for pair in self.pairs if pair not in done and not dna_problems([pair], command)]
        files = self.dna_to_read(usable)[0]
        return bad_dna(self._dna_readers.map(examine_dna, files), self.asked)

    def inspect(
        self, pairs: Sequence[FilePair], sequence_type: SequenceType
    ) -> tuple[dict[FilePair, FastaFacts], list[str]]:
        """Facts of the FASTA files of pairs, and problems of those that cannot be read."""
        return inspect_all(pairs, sequence_type, self.records, self._readers)

    def unsplit(self) -> list[Source]:
        """Sources of the files that are used which have no split folders yet."""
        chosen = {pair.source for pair in self.pairs}
        return [s.source for s in self.inventory.sources if not s.is_split and s.source in chosen]

    def folders_written(self) -> list[Path]:
        """All folders that a run writes to."""
        if self.sequence_type is SequenceType.DNA:
            return sorted({pair.dna_vectors.parent for pair in self.pairs})
        return sorted({path.parent for pair in self.pairs for path in (pair.protein_vectors, pair.merged)})

    def outside(self) -> list[Path]:
        """Protein and merged files that belong to no file that is used."""
        return outside_outputs(self.folder, [state.source for state in self.inventory.sources], self.pairs)

    def _protein_inputs(self, split: Sequence[FilePair], facts: dict[FilePair, FastaFacts]) -> list[str]:
        both = [pair for pair in split if pair.nucleotide_fasta.is_file()]
        nucleotide, _ = self.inspect(both, SequenceType.DNA)
        problems = pairing_problems(both, nucleotide, facts)
        if self.needs_dna:
            may_be_missing = self.options.with_dna and self.options.dry_run
            problems = (
                dna_problems(self.pairs, dna_command(self.asked), may_be_missing=may_be_missing) + problems
            )
        return problems

    def _dna_inputs(self, split: Sequence[FilePair], facts: dict[FilePair, FastaFacts]) -> list[str]:
        both = [pair for pair in split if pair.protein_fasta.parent.is_dir()]
        protein, unreadable = self.inspect(
            [pair for pair in both if os.path.lexists(pair.protein_fasta)], SequenceType.PROTEIN
        )
        have_both = set(both)
        only_dna = [pair for pair in split if pair not in have_both]
        problems = [problem for pair in only_dna for problem in facts[pair].problems]
        return [*unreadable, *problems, *pairing_problems(both, facts, protein)]


def with_recorded_models(options: Options, records: Checkpoint) -> Options:
    """Fill in the models of earlier runs on the folder, if none are given."""
    for sequence_type in SequenceType:
        recorded = records.recipe_of(sequence_type)
        if recorded is None or recorded.model is None or options.asks_for_model(sequence_type):
            continue
        options = options.with_model(sequence_type, *recorded.model)
        dropout = recorded.source.get("token_dropout")
        if (
            sequence_type is SequenceType.PROTEIN
            and options.token_dropout == AUTO
            and dropout in TOKEN_DROPOUT
        ):
            options = replace(options, token_dropout=dropout)
    return options


def dna_command(options: Options) -> str:
    """Command that makes the DNABERT-S files which a run with these options needs."""
    words = ["nucpro", "embed-dna", str(options.data_dir)]
    for name in ("device", "sequences_per_file", "host_selection"):
        if (value := getattr(options, name)) != getattr(Options(), name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def bad_dna(verdicts: Iterable[DnaVerdict], options: Options) -> list[str]:
    """Message about unusable DNABERT-S files."""
    problems = sorted(verdict.problem for verdict in verdicts if verdict.problem is not None)
    return [f"{problem}; recompute this file with: {dna_command(options)}" for problem in problems]


@contextmanager
def read_only_survey(
    options: Options,
    sequence_type: SequenceType = SequenceType.PROTEIN,
    *,
    planning: bool = False,
    workers: Workers | None = None,
    show: Show = silent,
) -> Iterator[Survey]:
    """Survey of a data folder for a read-only command: no lock, no engine, nothing is written.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences per file and the selection.
    sequence_type : SequenceType
        Sequence type of the vectors.
    planning : bool
        Treat files without provenance as a run with these options would; else as the last run did.
    workers : Workers, optional
        Where files are read, such as the nodes of a cluster; by default in processes of this machine.
    show : callable, optional
        Called with the progress of reading.

    Raises
    ------
    PreflightError
        There is no such folder.
    """
    folder = DataFolder(options.data_dir)
    require_folder(folder.root)
    with nullcontext(workers) if workers is not None else Workers() as readers:
        yield Survey(
            options, sequence_type, Checkpoint(folder, read_only=True), readers, makes=planning, show=show
        )


def _unproven_of(options: Options, sequence_type: SequenceType) -> Unproven:
    """Treatment of files of the right width without provenance in a run with these options."""
    if sequence_type is SequenceType.DNA:
        # DNA files of the original program have no provenance; ids, width and finite values are checked, and
        # a run that only adds missing files (--with-dna) accepts them.
        return Unproven.REDO if options.replace and not options.with_dna else Unproven.TRUST
    if options.verify_existing:
        return Unproven.VERIFY
    return Unproven.TRUST if options.trust_existing else Unproven.REDO


def _has_output(pair: FilePair) -> bool:
    return pair.dna_vectors.exists() or pair.protein_vectors.exists() or pair.merged.exists()
