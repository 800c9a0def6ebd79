"""Positions of chunks against the rule told step by step."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame_reference import cut
from nucpro.genomes.frames import chunk_blocks, chunks_of


def spans(length: int, size: int) -> list[tuple[int, int]]:
    chunks = chunks_of(length, size)
    assert chunks.numbers.tolist() == list(range(len(chunks)))
    return list(zip(chunks.starts.tolist(), chunks.ends.tolist(), strict=True))


@pytest.mark.parametrize(
    ("length", "size", "lengths"),
    [
        (301, 300, [300, 151]),
        (1234, 500, [500, 500, 412]),
        (300, 300, [300]),
        (600, 300, [300, 300]),
        (299, 300, [299]),
        (1, 300, [1]),
        (0, 300, []),
        (5, 1, [1, 1, 1, 1, 1]),
    ],
)
def test_lengths_of_chunks(length: int, size: int, lengths: list[int]) -> None:
    assert [end - start for start, end in spans(length, size)] == lengths


@given(st.integers(0, 20_000), st.integers(1, 700))
def test_positions_are_those_of_the_rule(length: int, size: int) -> None:
    assert spans(length, size) == cut(length, size)


@given(st.integers(1, 20_000), st.integers(1, 700))
def test_chunks_cover_the_record_and_only_the_last_is_short(length: int, size: int) -> None:
    found = spans(length, size)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(end - start == min(size, length) for start, end in found[:-1])
    assert all(before[0] < after[0] <= before[1] for before, after in pairwise(found))


@pytest.mark.parametrize("size", [300, 1 << 19, 1 << 21])
def test_blocks_are_the_chunks_in_order(size: int) -> None:
    length = 5_000_001
    blocks = list(chunk_blocks(length, size))
    assert [number for block in blocks for number in block.numbers] == list(range(-(-length // size)))
    joined = [
        (int(start), int(end))
        for block in blocks
        for start, end in zip(block.starts, block.ends, strict=True)
    ]
    assert joined == spans(length, size)
    assert all(block.ends[-1] - block.starts[0] <= max(size, 1 << 20) for block in blocks)
