"""Six reading frames against plain translation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame_reference import STANDARD_CODE, VERTEBRATE_MITOCHONDRIAL_CODE, cut, frames
from nucpro.genomes.frames import (
    FRAME_NAMES,
    chunks_of,
    frame_bases,
    genetic_code,
    open_frames,
    reverse_complement,
)

bases = st.text("ACGT", min_size=1, max_size=400)


def opened(sequence: str, size: int, number: int) -> dict[tuple[int, str], str]:
    """Translation of every frame without a stop, by chunk and frame."""
    groups = open_frames(sequence.encode(), 0, chunks_of(len(sequence), size), genetic_code(number))
    return {
        (key // 6, FRAME_NAMES[key % 6]): bytes(residues).decode()
        for group in groups
        for key, residues in zip(group.keys.tolist(), group.residues, strict=True)
    }


@given(bases, st.integers(3, 120), st.sampled_from([(1, STANDARD_CODE), (2, VERTEBRATE_MITOCHONDRIAL_CODE)]))
def test_frames_without_a_stop_are_those_of_plain_translation(
    sequence: str, size: int, code: tuple[int, dict[str, str]]
) -> None:
    expected = {
        (number, name): protein
        for number, (start, end) in enumerate(cut(len(sequence), size))
        for name, (_, protein) in frames(sequence[start:end], code[1]).items()
        if protein and "*" not in protein
    }
    assert opened(sequence, size, code[0]) == expected


@given(st.text("ACGT", min_size=1, max_size=60))
def test_slices_are_those_of_the_strand(chunk: str) -> None:
    for frame, name in enumerate(FRAME_NAMES):
        nucleotides, protein = frames(chunk)[name]
        assert frame_bases(chunk.encode(), frame, len(protein)).decode() == nucleotides


@pytest.mark.parametrize(
    ("size", "lengths"), [(300, [300, 298, 298]), (500, [499, 499, 498]), (5, [4, 4, 3])]
)
def test_a_slice_has_one_base_more_than_its_codons_where_there_is_one(size: int, lengths: list[int]) -> None:
    chunk = b"ACGGT" * (size // 5) + b"A" * (size % 5)
    found = [len(frame_bases(chunk, frame, (size - frame % 3) // 3)) for frame in range(6)]
    assert found == lengths * 2


def test_the_complement_of_ambiguous_bases() -> None:
    assert reverse_complement(b"ACGTURYSWKMBDHVN") == b"NBDHVKMWSRYAACGT"
