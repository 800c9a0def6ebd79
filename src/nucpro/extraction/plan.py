"""The plan: compares every selected file pair with the files on disk.

A file is done if it is complete and its ``meta`` matches input, model and options. For files that have not
changed since they were verified, the checkpoint is used; all others are read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from nucpro.errors import DataError, NucproError, counted, human_size, limited
from nucpro.execution.runner import Task
from nucpro.execution.workers import Workers
from nucpro.folder.paths import HOST_CATEGORIES, FilePair
from nucpro.folder.selection import Selection
from nucpro.formats import MergedFile, VectorFile, read_merged, read_meta, read_vectors, rows_unlike
from nucpro.formats.archive import REMEDY
from nucpro.formats.fasta import FastaFacts, ids_digest
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.state.checkpoint import Checkpoint, Fingerprint, stamps_of
from nucpro.state.recipe import Recipe, merged_difference, merged_meta

__all__ = [
    "Plan",
    "PlanItem",
    "State",
    "Unproven",
    "current_vectors",
    "discovery_lines",
    "discovery_warnings",
    "make_plan",
    "merged_fact",
    "plan_lines",
    "state_lines",
    "vectors_fact",
    "verified_fact",
]

logger = logging.getLogger(__name__)

_BYTES_OF_A_NAME = 100
"""Bytes per record beside its vector: its id and the structure around it."""


class State(StrEnum):
    """State of an output, compared with the result of this run."""

    DONE = "done"
    MISSING = "missing"
    STALE = "stale"


class Unproven(StrEnum):
    """Treatment of complete files of the right width without provenance."""

    REDO = "recomputed"
    REMEMBER = "kept if an earlier run trusted them"
    TRUST = "trusted"
    VERIFY = "verified first"


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One file pair and the state of its outputs.

    Parameters
    ----------
    pair : FilePair
        The pair.
    facts : FastaFacts
        Facts of the FASTA that is encoded.
    vectors : State
        State of the vectors of that sequence type.
    merged : State or None
        State of the ``_merged.pt`` file; None if the run does not merge.
    reasons : tuple of str
        Why outputs are stale: one line each, naming the file.
    to_verify : bool
        Whether recomputing records can verify the vectors, which count as stale until then.
    kept_as : str
        ``trusted`` or ``verified`` for vectors that are done although they have no provenance.
    made_by : mapping or None
        Provenance of vectors that are stale only because of another model or other options; empty if the file
        does not state it.
    """

    pair: FilePair
    facts: FastaFacts
    vectors: State
    merged: State | None
    reasons: tuple[str, ...] = ()
    to_verify: bool = False
    kept_as: str = ""
    made_by: Mapping[str, Any] | None = None

    @property
    def is_done(self) -> bool:
        """Whether both outputs are current."""
        return self.vectors is State.DONE and self.merged in (State.DONE, None)


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Parameters
    ----------
    items : tuple of PlanItem
        In the order of work.
    recipe : Recipe
        How vectors are computed.
    """

    items: tuple[PlanItem, ...]
    recipe: Recipe

    @property
    def sequence_type(self) -> SequenceType:
        """Sequence type that is encoded."""
        return SequenceType(self.recipe.kind)

    def part(self, pairs: Sequence[FilePair]) -> Plan:
        """Plan for some of the files, in their order.

        Raises
        ------
        DataError
            A file is not in the plan.
        """
        by_pair = {item.pair: item for item in self.items}
        unknown = [pair.fasta(self.sequence_type) for pair in pairs if pair not in by_pair]
        if unknown:
            raise DataError(
                f"{unknown[0]}: was not checked before the start; check the files that are to be made"
            )
        return Plan(tuple(by_pair[pair] for pair in pairs), self.recipe)

    @cached_property
    def to_extract(self) -> list[PlanItem]:
        """Items whose vectors must be made."""
        return [item for item in self.items if item.vectors is not State.DONE]

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of the encoder."""
        return [
            Task(
                input=item.pair.fasta(self.sequence_type),
                output=item.pair.vectors(self.sequence_type),
                key=item.pair.key,
                records=item.facts.records,
                size=item.facts.letters_read,
                truncated=item.facts.over_limit,
                fact=vectors_fact(self.recipe, item.facts),
            )
            for item in self.to_extract
        ]

    @cached_property
    def to_merge_only(self) -> list[PlanItem]:
        """Items whose vectors are done and whose merged file must be made."""
        return [item for item in self.items if item.vectors is State.DONE and not item.is_done]

    @cached_property
    def space(self) -> dict[Path, tuple[int, int]]:
        """Bytes to write and bytes of replaced files, for each output folder."""
        needed: dict[Path, tuple[int, int]] = {}
        for item in self.items:
            outputs = (
                (item.vectors, item.pair.vectors(self.sequence_type), self.recipe.width),
                (item.merged, item.pair.merged, self.recipe.width + DNA_WIDTH),
            )
            for state, path, width in outputs:
                if state in (State.MISSING, State.STALE):
                    write, replaced = needed.get(path.parent, (0, 0))
                    stamp = Fingerprint.of(path)
                    size = item.facts.records * (4 * width + _BYTES_OF_A_NAME)
                    needed[path.parent] = (write + size, replaced + (stamp.size if stamp else 0))
        return needed


@dataclass(frozen=True, slots=True)
class _Question:
    """Request to a worker about one pair: everything it needs to read the outputs.

    ``known`` is the recorded fact about the vectors, if they are done.
    """

    pair: FilePair
    facts: FastaFacts
    recipe: Recipe
    unproven: Unproven
    merging: bool
    known: dict[str, Any] | None

    @property
    def vectors(self) -> Path:
        """File of the vectors."""
        return self.pair.vectors(SequenceType(self.recipe.kind))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Verified facts of the outputs; None if an output is missing or stale, with the reasons."""

    question: _Question
    vectors: dict[str, Any] | None
    merged: dict[str, Any] | None
    stamps: tuple[Fingerprint | None, Fingerprint | None]
    reasons: tuple[str, ...]
    to_verify: bool = False
    made_by: Mapping[str, Any] | None = None


def make_plan(
    pairs: Sequence[tuple[FilePair, FastaFacts]],
    recipe: Recipe,
    checkpoint: Checkpoint,
    workers: Workers,
    *,
    unproven: Unproven = Unproven.REDO,
) -> Plan:
    """Compare the outputs of all pairs with the result of this run.

    Parameters
    ----------
    pairs : sequence of (FilePair, FastaFacts)
        Pairs and the facts of the FASTA that is encoded, in the order of work.
    recipe : Recipe
        Recipe of the vectors in this run. A run that makes protein vectors also merges.
    checkpoint : Checkpoint
        Has the facts of unchanged files; receives those verified here.
    workers : Workers
        Workers that read files.
    unproven : Unproven
        Treatment of files of the right width and ids, with finite values but without ``meta``.

    Returns
    -------
    Plan
        One item per pair, with the state of its outputs.
    """
    merging = recipe.kind == SequenceType.PROTEIN
    items: dict[FilePair, PlanItem] = {}
    questions = []
    for pair, facts in pairs:
        known = _known_vectors(pair, facts, recipe, checkpoint, unproven)
        question = _Question(pair, facts, recipe, unproven, merging, known)
        if known is not None and (not merging or _known_merged(pair, checkpoint)):
            merged = State.DONE if merging else None
            items[pair] = PlanItem(pair, facts, State.DONE, merged, kept_as=_kept_as(known))
        elif not question.vectors.exists() and not (merging and pair.merged.exists()):
            items[pair] = PlanItem(pair, facts, State.MISSING, State.MISSING if merging else None)
        else:
            questions.append(question)
    if pairs and logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "%d of %d files are as recorded and unchanged since, %d are missing, %d must be read",
            sum(item.vectors is State.DONE for item in items.values()),
            len(pairs),
            sum(item.vectors is State.MISSING for item in items.values()),
            len(questions),
        )
    for answer in workers.map(_examine, questions):
        _remember(answer, checkpoint)
        items[answer.question.pair] = _item(answer, checkpoint)
    return Plan(tuple(items[pair] for pair, _ in pairs), recipe)


def _known_vectors(
    pair: FilePair, facts: FastaFacts, recipe: Recipe, checkpoint: Checkpoint, unproven: Unproven
) -> dict[str, Any] | None:
    fact = checkpoint.fact("vectors", pair.vectors(SequenceType(recipe.kind)))
    if fact is None or (fact.get("trusted") and unproven not in (Unproven.TRUST, Unproven.REMEMBER)):
        return None
    is_current = fact.get("recipe") == recipe.key and fact.get("input") == facts.digest
    return fact if is_current else None


def _known_merged(pair: FilePair, checkpoint: Checkpoint) -> bool:
    """Whether the merged file and both its sources are unchanged since it was written or verified."""
    fact = checkpoint.fact("merged", pair.merged)
    return fact is not None and fact.get("sources") == merged_fact(pair)["sources"]


def merged_fact(pair: FilePair) -> dict[str, Any]:
    """Fact to record about a merged file: fingerprints of its sources, taken before they are read."""
    return {"sources": stamps_of((pair.dna_vectors, pair.protein_vectors))}


def vectors_fact(recipe: Recipe, facts: FastaFacts, *, trusted: bool = False) -> dict[str, Any]:
    """Fact to record about verified vectors."""
    return {"recipe": recipe.key, "input": facts.digest, "trusted": trusted}


def verified_fact(recipe: Recipe, facts: FastaFacts, records: int) -> dict[str, Any]:
    """Fact to record about vectors of unknown origin if recomputed records agree."""
    model = {name: recipe.made_by.get(name) for name in ("id", "revision", "weights_sha256")}
    return {**vectors_fact(recipe, facts), "verified": {"records": records, "model": model}}


def _kept_as(fact: Mapping[str, Any]) -> str:
    if fact.get("trusted"):
        return "trusted"
    return "verified" if fact.get("verified") else ""


def _remember(answer: _Answer, checkpoint: Checkpoint) -> None:
    if answer.vectors is not None:
        checkpoint.add("vectors", answer.question.vectors, answer.vectors, answer.stamps[0])
    if answer.merged is not None:
        checkpoint.add("merged", answer.question.pair.merged, answer.merged, answer.stamps[1])


def _item(answer: _Answer, checkpoint: Checkpoint) -> PlanItem:
    question = answer.question
    fact = question.known or answer.vectors
    vectors = _state(fact is not None, question.vectors)
    merged = _state(answer.merged is not None, question.pair.merged) if question.merging else None
    return PlanItem(
        question.pair,
        question.facts,
        vectors,
        merged,
        answer.reasons,
        answer.to_verify,
        _kept_as(fact or {}),
        None if vectors is State.DONE else _made_otherwise(answer, checkpoint),
    )


def _made_otherwise(answer: _Answer, checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """Provenance of valid vectors of another model or other options, from the file or the checkpoint."""
    question = answer.question
    fact = checkpoint.fact("vectors", question.vectors)
    if answer.made_by is not None or fact is None:
        return answer.made_by
    is_other = fact.get("recipe") != question.recipe.key and fact.get("input") == question.facts.digest
    return {} if is_other else None


def _state(done: bool, path: Path) -> State:
    if done:
        return State.DONE
    return State.STALE if path.exists() else State.MISSING


def _examine(question: _Question) -> _Answer:
    stamps = (Fingerprint.of(question.vectors), Fingerprint.of(question.pair.merged))
    # Taken before the sources are read, like the others.
    sources = merged_fact(question.pair)
    reasons: list[str] = []
    vectors = made_by = protein = None
    is_merged = False
    to_verify = False
    if question.known is None and stamps[0] is not None:
        vectors, to_verify, protein = _examine_vectors(question, reasons)
        made_by = None if vectors else _other_recipe(question)
    # Files merged from vectors that are still to be verified are checked with them.
    if question.merging and stamps[1] is not None and not to_verify:
        is_done = (question.known or vectors) is not None
        is_merged = _is_merged(question, reasons, protein, is_done=is_done)
    merged = sources if is_merged else None
    return _Answer(question, vectors, merged, stamps, tuple(reasons), to_verify, made_by)


def _other_recipe(question: _Question) -> Mapping[str, Any] | None:
    try:
        return question.recipe.made_otherwise(read_meta(question.vectors).meta, question.facts.digest)
    except NucproError:
        return None


def _examine_vectors(
    question: _Question, reasons: list[str]
) -> tuple[dict[str, Any] | None, bool, VectorFile | None]:
    """Fact of vectors that are done, whether recomputing records could verify the rest, and what was read."""
    path, facts, recipe = question.vectors, question.facts, question.recipe
    found = current_vectors(path, recipe, facts, unproven=question.unproven)
    if isinstance(found, str):
        reasons.append(found)
        return None, False, None
    is_unproven = found.meta is None
    if is_unproven and question.unproven is Unproven.VERIFY:
        difference = recipe.difference(found.meta, facts.digest)
        reasons.append(f"{path.name} {difference}: kept only if recomputed records agree ({path})")
        return None, True, found
    return vectors_fact(recipe, facts, trusted=is_unproven), False, found


def current_vectors(
    path: Path, recipe: Recipe, facts: FastaFacts, *, unproven: Unproven = Unproven.REDO
) -> VectorFile | str:
    """Read a file of vectors if it is current for a recipe and a FASTA.

    Parameters
    ----------
    path : Path
        The vectors.
    recipe : Recipe
        The recipe of this run.
    facts : FastaFacts
        Facts of the FASTA.
    unproven : Unproven
        Treatment of a file of the right width and ids without ``meta``.

    Returns
    -------
    VectorFile or str
        The vectors, or why they must be computed.
    """
    try:
        # Reading only the metadata is enough for files of another model, the usual case in a migration.
        look = read_meta(path)
        difference = _width_difference(look.width, recipe) or recipe.difference(look.meta, facts.digest)
        is_unproven = look.meta is None and look.width == recipe.width
        if difference and not (is_unproven and unproven in (Unproven.TRUST, Unproven.VERIFY)):
            return f"{path.name} {difference}: recomputed{_way_out(is_unproven, recipe)} ({path})"
        found = read_vectors(path, SequenceType(recipe.kind))
    except NucproError as error:
        return f"{path.name} cannot be used: recomputed ({_what(error)})"
    if ids_digest(found.ids) != facts.ids_digest:
        return f"{path.name} holds other ids than its FASTA: recomputed ({path})"
    return found


def _what(error: Exception) -> str:
    """What is wrong with a file, without the remedy for its owner: the run itself replaces it."""
    return str(error).removesuffix(f"; {REMEDY}")


def _way_out(is_unproven: bool, recipe: Recipe) -> str:
    """How to keep a file that its owner trusts; DNA files are kept by default."""
    if not is_unproven or recipe.kind != SequenceType.PROTEIN:
        return ""
    return " unless --trust-existing keeps it or --verify-existing N proves it"


def _width_difference(width: int, recipe: Recipe) -> str | None:
    return None if width == recipe.width else f"is {width} wide, not {recipe.width}"


def _is_merged(question: _Question, reasons: list[str], protein: VectorFile | None, *, is_done: bool) -> bool:
    """Whether the merged file has the rows of its sources; ``protein`` is its source if it was read already."""
    pair = question.pair
    if not is_done:
        reasons.append(f"{pair.merged.name} belongs to protein vectors that are recomputed ({pair.merged})")
        return False
    try:
        dna = read_vectors(pair.dna_vectors, SequenceType.DNA)
        protein = protein or read_vectors(pair.protein_vectors, SequenceType.PROTEIN)
        merged = read_merged(pair.merged)
        expected = merged_meta(dna.digest, protein.digest, pair.label, DNA_WIDTH + question.recipe.width)
        difference = _label_difference(merged, pair.label) or merged_difference(merged.meta, expected)
        difference = difference or _content_difference(merged, dna, protein)
        if difference is None:
            return True
    except (NucproError, OSError) as error:
        difference = f"cannot be used ({_what(error)})"
    reasons.append(f"{pair.merged.name} {difference}: merged again ({pair.merged})")
    return False


def _label_difference(merged: MergedFile, label: int) -> str | None:
    if merged.label is None:
        return "has no label"
    return None if merged.label == label else "has the wrong label"


def _content_difference(merged: MergedFile, dna: VectorFile, protein: VectorFile) -> str | None:
    """How a merged file differs from the sources that it names."""
    for sequence_type, source in ((SequenceType.DNA, dna), (SequenceType.PROTEIN, protein)):
        if len(merged.ids) != len(source.ids) or any(rows_unlike(merged, source, sequence_type)):
            return "has other rows than its sources"
    return None


def discovery_lines(selection: Selection, plan: Plan) -> list[str]:
    """Summary of a plan: files by category, totals, finished files, stale files and reasons."""
    by_category = Counter(pair.category for pair in selection.hosts)
    sequences = sum(item.facts.records for item in plan.items)
    hosts = (
        ", ".join(f"{name} {by_category[name]}" for name in HOST_CATEGORIES if by_category[name]) or "none"
    )
    done = sum(item.is_done for item in plan.items)
    lines = [
        f"Viral files: {len(selection.viral)}",
        f"Host files:  {len(selection.hosts)} ({hosts}), selection: {selection.reason}",
        f"Sequences:   {sequences}",
        f"Done:        {done} of {counted(len(plan.items), 'file')}",
    ]
    kept = Counter(item.kept_as for item in plan.items if item.kept_as)
    if kept:
        how = ", ".join(f"{count} {kept_as}" for kept_as, count in sorted(kept.items()))
        lines.append(f"Kept:        {counted(kept.total(), 'file')} without provenance metadata ({how})")
    lines += limited([f"Stale: {reason}" for item in plan.items for reason in item.reasons])
    return lines


def discovery_warnings(selection: Selection, plan: Plan) -> list[str]:
    """Warnings of a selection, and the number of sequences that are truncated."""
    too_long = sum(item.facts.over_limit for item in plan.items)
    if not too_long:
        return list(selection.warnings)
    truncated = (
        f"{counted(too_long, 'sequence')} longer than the maximum length of the model, truncated there"
    )
    return [*selection.warnings, truncated]


def plan_lines(plan: Plan) -> list[str]:
    """Files that a run would make, replace and keep, and the disk space it needs."""
    lines = []
    for item in plan.items:
        for state, path in (
            (item.vectors, item.pair.vectors(plan.sequence_type)),
            (item.merged, item.pair.merged),
        ):
            if state is None:
                continue
            verb = {State.DONE: "keep", State.MISSING: "make", State.STALE: "replace"}[state]
            is_to_verify = item.to_verify and path == item.pair.vectors(plan.sequence_type)
            lines.append(f"{'verify' if is_to_verify else verb:8}{path}")
    write, replaced = (sum(sizes) for sizes in zip((0, 0), *plan.space.values(), strict=True))
    lines.append(f"Disk: {human_size(write)} to write, {human_size(replaced)} of existing files are replaced")
    return lines


def state_lines(plan: Plan) -> list[str]:
    """How many outputs are done, missing and stale."""
    lines = []
    for what, states in (
        ("Protein", Counter(item.vectors for item in plan.items)),
        ("Merged", Counter(item.merged for item in plan.items)),
    ):
        counts = ", ".join(f"{states[state]} {state}" for state in State)
        lines.append(f"{what + ' files:':15}{counts}")
    return lines
