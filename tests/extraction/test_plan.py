"""The plan: what is done, what is missing, and whose work a stale file is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nucpro.execution.workers import Workers
from nucpro.extraction.merging import merge
from nucpro.extraction.plan import PlanItem, State, Unproven, make_plan, merged_fact, vectors_fact
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats import write_vectors
from nucpro.formats.fasta import FastaFacts, inspect
from nucpro.formats.sequences import RESIDUES, SequenceType
from nucpro.state.checkpoint import Checkpoint
from nucpro.state.recipe import Recipe
from pairs import NAMES, WIDTH, make_pair, numbered

RECIPE = Recipe(SequenceType.PROTEIN, {"id": "tiny", "weights_sha256": "a" * 64}, WIDTH)
OTHER = Recipe(SequenceType.PROTEIN, {"id": "other", "weights_sha256": "b" * 64}, WIDTH)


@pytest.fixture
def pair(tmp_path: Path) -> FilePair:
    """A pair whose vectors have no provenance."""
    pair = make_pair(tmp_path / "data")
    written(pair, None)
    return pair


@pytest.fixture
def records(pair: FilePair) -> Iterator[Checkpoint]:
    with Checkpoint(DataFolder(pair.source.data_dir)) as checkpoint:
        yield checkpoint


def written(pair: FilePair, meta: Mapping[str, Any] | None) -> None:
    write_vectors(pair.protein_vectors, list(NAMES), numbered(3, WIDTH, -3.0), meta, SequenceType.PROTEIN)
    merge(pair.dna_vectors, pair.protein_vectors, pair.merged, "viral")


def facts_of(pair: FilePair) -> FastaFacts:
    return inspect(pair.protein_fasta, RESIDUES)


def planned(pair: FilePair, records: Checkpoint, unproven: Unproven = Unproven.REDO) -> PlanItem:
    with Workers(1) as workers:
        return make_plan([(pair, facts_of(pair))], RECIPE, records, workers, unproven=unproven).items[0]


@pytest.mark.parametrize(
    ("recipe", "is_same_input", "made_by"),
    [
        (OTHER, True, {}),
        # Neither a file of another input nor one that this recipe made is work of another model.
        (OTHER, False, None),
        (RECIPE, True, None),
        (RECIPE, False, None),
    ],
)
def test_recorded_vectors_of_another_model_are_those_of_this_input_and_another_recipe(
    pair: FilePair,
    records: Checkpoint,
    recipe: Recipe,
    is_same_input: bool,
    made_by: Mapping[str, Any] | None,
) -> None:
    fact = vectors_fact(recipe, facts_of(pair), trusted=True)
    records.add("vectors", pair.protein_vectors, fact if is_same_input else {**fact, "input": "0" * 64})
    item = planned(pair, records)
    assert (item.vectors, item.made_by) == (State.STALE, made_by)


def test_vectors_that_state_another_model_are_its_work(pair: FilePair, records: Checkpoint) -> None:
    written(pair, OTHER.meta(facts_of(pair).digest, 3))
    item = planned(pair, records)
    assert (item.vectors, item.made_by) == (State.STALE, OTHER.made_by)


@pytest.mark.parametrize("sequence_type", list(SequenceType))
def test_a_merged_file_is_read_again_where_one_of_its_sources_was_replaced(
    pair: FilePair, records: Checkpoint, sequence_type: SequenceType
) -> None:
    written(pair, RECIPE.meta(facts_of(pair).digest, 3))
    assert planned(pair, records).is_done
    before = merged_fact(pair)
    assert [len(stamp) for stamp in before["sources"]] == [3, 3]
    assert records.knows("merged", pair.merged, **before)
    # What is recorded is used: a merged file that was exchanged with its fingerprint kept is not read.
    os.utime(pair.vectors(sequence_type), ns=(1, 1))
    assert merged_fact(pair) != before
    pair.vectors(sequence_type).unlink()
    assert None in merged_fact(pair)["sources"]
    if sequence_type is SequenceType.DNA:
        assert planned(pair, records).merged is State.STALE


def test_what_is_missing_is_missing_on_both_levels(pair: FilePair, records: Checkpoint) -> None:
    pair.protein_vectors.unlink()
    item = planned(pair, records)
    assert (item.vectors, item.merged) == (State.MISSING, State.STALE)
    pair.merged.unlink()
    item = planned(pair, records)
    assert (item.vectors, item.merged, item.reasons) == (State.MISSING, State.MISSING, ())
