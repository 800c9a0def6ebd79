"""Packed batches: runs of equal length, and means over residues."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from nucpro.models.config import RESIDUES_ONLY, PooledSpan
from nucpro.models.tensors import equal_runs, pool_states

LENGTHS = st.lists(st.integers(3, 6), min_size=1, max_size=12)


@given(LENGTHS)
def test_runs_cover_all_tokens_in_order(lengths):
    runs = equal_runs(lengths)
    assert [run.length for run in runs for _ in range(run.count)] == lengths
    assert [run.start for run in runs] == [0, *(run.stop for run in runs[:-1])]
    assert runs[-1].stop == sum(lengths)


@given(LENGTHS)
def test_the_mean_leaves_out_what_the_span_says(lengths):
    hidden = torch.randn(sum(lengths), 4, dtype=torch.float16)
    for span, skipped in ((RESIDUES_ONLY, slice(1, -1)), (PooledSpan("all tokens", 0, 0), slice(None))):
        means = pool_states(hidden, lengths, span)
        expected = [part[skipped].double().mean(0) for part in hidden.split(lengths)]
        assert means.dtype == torch.float32
        torch.testing.assert_close(means.double(), torch.stack(expected), rtol=0, atol=1e-6)


def test_sums_that_half_precision_cannot_hold_are_right():
    hidden = torch.full((1026, 2), 1000.0, dtype=torch.float16)
    assert pool_states(hidden, [1026], RESIDUES_ONLY).tolist() == [[1000.0, 1000.0]]
