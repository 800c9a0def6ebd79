"""What is done and what must be made: every selected file pair against what lies on disk.

A file is done when it is complete and its ``meta`` says that this input, model and options made it. The
checkpoint answers for files that have not changed since they were verified; all others are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from nucpro.checkpoint import Checkpoint, Stamp
from nucpro.errors import NucproError
from nucpro.fasta import FastaFacts, ids_digest
from nucpro.layout import DNA_WIDTH, FilePair
from nucpro.recipe import Recipe, merged_difference, merged_meta
from nucpro.store import read_merged, read_meta, read_protein
from nucpro.workers import Workers

__all__ = ["Plan", "PlanItem", "State", "make_plan", "merged_fact", "protein_fact"]


class State(StrEnum):
    """What an output is, compared with what this run would make."""

    DONE = "done"
    MISSING = "missing"
    STALE = "stale"


@dataclass(frozen=True)
class PlanItem:
    """One file pair and the state of its outputs.

    Parameters
    ----------
    pair : FilePair
        The pair.
    facts : FastaFacts
        Of its protein FASTA.
    protein, merged : State
        Of the ``_ESM.pt`` and the ``_merged.pt`` file.
    reasons : tuple of str
        Why what is stale is stale: one line each, naming the file.
    """

    pair: FilePair
    facts: FastaFacts
    protein: State
    merged: State
    reasons: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether neither output has to be made."""
        return self.protein is State.DONE and self.merged is State.DONE


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Parameters
    ----------
    items : tuple of PlanItem
        In the order of work.
    recipe : Recipe
        How protein vectors are made.
    """

    items: tuple[PlanItem, ...]
    recipe: Recipe

    @property
    def to_extract(self) -> list[PlanItem]:
        """Items whose protein vectors must be made."""
        return [item for item in self.items if item.protein is not State.DONE]

    @property
    def to_merge_only(self) -> list[PlanItem]:
        """Items whose protein vectors are done, and only the merged file must be made."""
        return [item for item in self.items if item.protein is State.DONE and item.merged is not State.DONE]

    @property
    def bytes_to_write(self) -> int:
        """Bytes that the run will write."""
        return sum(self._size(item) for item in self.items)

    @property
    def bytes_replaced(self) -> int:
        """Bytes of the files that will be replaced."""
        paths = [item.pair.protein_vectors for item in self.to_extract]
        paths += [item.pair.merged for item in self.items if item.merged is not State.DONE]
        return sum(stamp.size for stamp in map(Stamp.of, paths) if stamp is not None)

    def _size(self, item: PlanItem) -> int:
        protein = self.recipe.width * 4 * (item.protein is not State.DONE)
        merged = (self.recipe.width + DNA_WIDTH) * 4 * (item.merged is not State.DONE)
        # Ids and structure take about 200 bytes a record beside the vectors.
        return item.facts.records * (protein + merged + 200) if protein or merged else 0


@dataclass(frozen=True)
class _Question:
    """What a worker is asked about one pair: everything it needs to read the outputs."""

    pair: FilePair
    facts: FastaFacts
    recipe: Recipe
    trust_existing: bool
    protein_is_done: bool


@dataclass(frozen=True)
class _Answer:
    """Verified facts of the outputs; None where an output is missing or stale, with the reasons."""

    question: _Question
    protein: dict[str, Any] | None
    merged: dict[str, Any] | None
    stamps: tuple[Stamp | None, Stamp | None]
    reasons: tuple[str, ...]


def make_plan(
    pairs: Sequence[tuple[FilePair, FastaFacts]],
    recipe: Recipe,
    checkpoint: Checkpoint,
    workers: Workers,
    *,
    trust_existing: bool = False,
) -> Plan:
    """Compare the outputs of all pairs with what this run would make.

    Parameters
    ----------
    pairs : sequence of (FilePair, FastaFacts)
        Selected pairs and the facts of their protein FASTA, in the order of work.
    recipe : Recipe
        How protein vectors are made in this run.
    checkpoint : Checkpoint
        Answers for unchanged files; gets what is verified here.
    workers : Workers
        Where files are read.
    trust_existing : bool
        Take files of the right width, ids and finiteness without ``meta`` for done.
    """
    items: dict[FilePair, PlanItem] = {}
    questions = []
    for pair, facts in pairs:
        protein = _known_protein(pair, facts, recipe, checkpoint, trust_existing)
        merged = protein and _known_merged(pair, checkpoint)
        if merged or not (pair.protein_vectors.exists() or pair.merged.exists()):
            state = State.DONE if merged else State.MISSING
            items[pair] = PlanItem(pair, facts, state, state)
        else:
            questions.append(_Question(pair, facts, recipe, trust_existing, protein))
    for answer in workers.map(_examine, questions):
        _remember(answer, checkpoint)
        items[answer.question.pair] = _item(answer)
    return Plan(tuple(items[pair] for pair, _ in pairs), recipe)


def _known_protein(
    pair: FilePair, facts: FastaFacts, recipe: Recipe, checkpoint: Checkpoint, trust_existing: bool
) -> bool:
    fact = checkpoint.fact("protein", pair.protein_vectors)
    if fact is None or (fact.get("trusted") and not trust_existing):
        return False
    return fact.get("recipe") == recipe.key and fact.get("input") == facts.digest


def _known_merged(pair: FilePair, checkpoint: Checkpoint) -> bool:
    """Whether the merged file and both its sources are as they were when it was written or verified."""
    fact = checkpoint.fact("merged", pair.merged)
    if fact is None:
        return False
    sources = (Stamp.of(pair.dna_vectors), Stamp.of(pair.protein_vectors))
    return fact.get("sources") == [stamp.as_list() if stamp else None for stamp in sources]


def merged_fact(pair: FilePair) -> dict[str, Any]:
    """Fact to remember of a merged file that is known to be right."""
    sources = (Stamp.of(pair.dna_vectors), Stamp.of(pair.protein_vectors))
    return {"sources": [stamp.as_list() if stamp else None for stamp in sources]}


def protein_fact(recipe: Recipe, facts: FastaFacts, *, trusted: bool = False) -> dict[str, Any]:
    """Fact to remember of a protein file that is known to be right."""
    return {"recipe": recipe.key, "input": facts.digest, "trusted": trusted}


def _remember(answer: _Answer, checkpoint: Checkpoint) -> None:
    pair = answer.question.pair
    if answer.protein is not None:
        checkpoint.add("protein", pair.protein_vectors, answer.protein, answer.stamps[0])
    if answer.merged is not None:
        checkpoint.add("merged", pair.merged, answer.merged, answer.stamps[1])


def _item(answer: _Answer) -> PlanItem:
    pair = answer.question.pair
    protein_done = answer.question.protein_is_done or answer.protein is not None
    return PlanItem(
        pair,
        answer.question.facts,
        _state(protein_done, pair.protein_vectors),
        _state(answer.merged is not None, pair.merged),
        answer.reasons,
    )


def _state(done: bool, path: Path) -> State:
    if done:
        return State.DONE
    return State.STALE if path.exists() else State.MISSING


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _examine(question: _Question) -> _Answer:
    pair = question.pair
    stamps = (Stamp.of(pair.protein_vectors), Stamp.of(pair.merged))
    reasons: list[str] = []
    protein = None
    if not question.protein_is_done and stamps[0] is not None:
        protein = _examine_protein(question, reasons)
    merged = None
    if stamps[1] is not None:
        protein_done = question.protein_is_done or protein is not None
        merged = _examine_merged(question, protein_done, reasons)
    return _Answer(question, protein, merged, stamps, tuple(reasons))


def _examine_protein(question: _Question, reasons: list[str]) -> dict[str, Any] | None:
    path, facts, recipe = question.pair.protein_vectors, question.facts, question.recipe
    try:
        # The cheap look decides for files of another model, which are the normal start of a migration.
        look = read_meta(path)
        difference = _width_difference(look.width, recipe) or recipe.difference(look.meta, facts.digest)
        trusted = question.trust_existing and look.meta is None and look.width == recipe.width
        if difference and not trusted:
            reasons.append(f"{path.name} {difference}: made anew ({path})")
            return None
        vectors = read_protein(path)
    except NucproError as error:
        reasons.append(f"{path.name} cannot be used: made anew ({error})")
        return None
    if ids_digest(vectors.ids) != facts.ids_digest:
        reasons.append(f"{path.name} holds other ids than its FASTA: made anew ({path})")
        return None
    return protein_fact(recipe, facts, trusted=trusted)


def _width_difference(width: int, recipe: Recipe) -> str | None:
    return None if width == recipe.width else f"is {width} wide, not {recipe.width}"


def _examine_merged(question: _Question, protein_done: bool, reasons: list[str]) -> dict[str, Any] | None:
    pair = question.pair
    if not protein_done:
        reasons.append(f"{pair.merged.name} belongs to protein vectors that are made anew ({pair.merged})")
        return None
    try:
        fact = merged_fact(pair)
        width = DNA_WIDTH + question.recipe.width
        sources = _digest(pair.dna_vectors), _digest(pair.protein_vectors)
        expected = merged_meta(*sources, pair.label, width)
        difference = merged_difference(read_meta(pair.merged).meta, expected)
        if difference is None and read_merged(pair.merged).label == pair.label:
            return fact
    except (NucproError, OSError) as error:
        difference = f"cannot be used ({error})"
    reasons.append(f"{pair.merged.name} {difference or 'has the wrong label'}: merged anew ({pair.merged})")
    return None
