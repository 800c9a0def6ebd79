"""Batch plans: a function of the sequences and the budget, and of nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucpro.embedding.batches import plan_batches, prepare
from nucpro.errors import FastaError, UsageError
from nucpro.models.tokens import ResidueTokenizer

LENGTHS = st.lists(st.integers(1, 40), max_size=60)
BUDGETS = st.integers(1, 200)


def sums(lengths, bounds):
    return [sum(lengths[start:stop]) for start, stop in pairwise(bounds)]


def greedy_count(lengths, budget):
    """Fewest batches of neighbours that keep the budget, counted the plain way."""
    batches, filled = 0, budget + 1
    for length in lengths:
        if filled + length > budget:
            batches, filled = batches + 1, 0
        filled += length
    return batches


def prepared(lengths, budget, limit=1024, letter=b"L"):
    names = [f"record {row}" for row in range(len(lengths))]
    return prepare(
        names,
        [letter * length for length in lengths],
        ResidueTokenizer(),
        max_residues=limit,
        tokens_per_batch=budget,
    )


@given(LENGTHS, BUDGETS)
def test_batches_are_full_few_and_within_the_budget(lengths, budget):
    bounds = plan_batches(np.array(lengths, np.int64), budget)
    assert bounds[0] == 0
    assert bounds[-1] == len(lengths)
    assert list(bounds) == sorted(set(bounds))
    assert len(bounds) - 1 == greedy_count(lengths, budget)
    for total, (start, stop) in zip(sums(lengths, bounds), pairwise(bounds), strict=True):
        assert total <= budget or stop - start == 1


@given(st.integers(1, 3000), st.integers(3, 50), st.integers(50, 4000))
def test_batches_of_equal_sequences_differ_by_one_sequence_at_most(count, length, budget):
    totals = sums([length] * count, plan_batches(np.full(count, length), budget))
    assert max(totals) - min(totals) <= length


def test_a_file_just_over_the_budget_leaves_no_small_batch():
    lengths = np.full(641, 102)
    assert sums(lengths, plan_batches(lengths, 640 * 102)) == [320 * 102, 321 * 102]


def test_tails_do_not_upset_the_balance():
    lengths = np.sort(np.r_[np.full(9000, 102), np.arange(1000) % 70 + 32])[::-1]
    totals = sums(lengths, plan_batches(lengths, 65_536))
    assert len(totals) == -(-lengths.sum() // 65_536)
    assert min(totals) > 0.99 * max(totals)


@given(LENGTHS, BUDGETS, st.integers(1, 30))
def test_every_record_is_in_the_plan_once_with_its_own_tokens(lengths, budget, limit):
    plan = prepared(lengths, budget, limit)
    assert sorted(plan.order) == list(range(len(lengths)))
    assert plan.truncated == sum(length > limit for length in lengths)
    assert plan.tokens == len(plan.token_ids) == plan.lengths.sum()
    assert [plan.lengths[batch].sum() for batch in plan.batches] == sums(plan.lengths, plan.bounds)
    for place, ids in enumerate(plan.token_ids.split(plan.lengths.tolist())):
        residues = min(lengths[plan.order[place]], limit)
        assert ids.tolist() == [0, *[4] * residues, 2]


@given(LENGTHS)
def test_records_are_sorted_by_length_and_then_by_their_place(lengths):
    plan = prepared(lengths, 100)
    keys = [(-length, row) for length, row in zip(plan.lengths, plan.order, strict=True)]
    assert keys == sorted(keys)


@given(LENGTHS, BUDGETS)
def test_equal_input_gives_an_equal_plan_whatever_the_characters(lengths, budget):
    first, second = prepared(lengths, budget), prepared(lengths, budget, letter=b"W")
    assert first.bounds == second.bounds
    assert np.array_equal(first.order, second.order)
    assert np.array_equal(first.lengths, second.lengths)


def test_nothing_to_embed_is_no_batch():
    assert prepared([], 10).batches == []


def test_calls_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="1 name for 2 sequences; each sequence needs one name"):
        prepare(["a"], [b"M", b"K"], ResidueTokenizer(), tokens_per_batch=10)
    with pytest.raises(UsageError, match="max residues 1024 and tokens per batch 0 must both be at least 1"):
        prepared([1], 0)
    with pytest.raises(FastaError, match="record 'record 1': the sequence is empty"):
        prepared([1, 0], 10)
