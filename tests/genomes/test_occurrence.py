"""Occurrence of frames in proteins against a plain search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucpro.genomes.identification import occurring


def rows(words: list[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(words), dtype=np.uint8).reshape(len(words), -1)


def expected(words: list[bytes], text: bytes) -> list[bool]:
    return [word in text for word in words]


# Two letters make repeats, overlaps and near misses common.
residues = st.binary(min_size=1, max_size=1).map(lambda byte: b"AB"[byte[0] % 2 : byte[0] % 2 + 1])
proteins = st.lists(st.lists(residues, max_size=60).map(b"".join), max_size=8).map(b"\n".join)


@given(proteins, st.integers(1, 12), st.data())
@settings(max_examples=300)
def test_answers_are_those_of_a_plain_search(text: bytes, length: int, data: st.DataObject) -> None:
    words = data.draw(
        st.lists(st.lists(residues, min_size=length, max_size=length).map(b"".join), min_size=1, max_size=40)
    )
    assert occurring(rows(words), text).tolist() == expected(words, text)


@pytest.mark.parametrize("frames", [1, 8, 9, 600])
def test_few_and_many_frames_have_one_answer(frames: int) -> None:
    generator = np.random.default_rng(1)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
    sizes = generator.integers(0, 900, 300)
    text = b"\n".join(bytes(letters[generator.integers(0, 20, size)]) for size in sizes)
    starts = generator.integers(0, len(text) - 40, frames)
    words = [text[start : start + 40] for start in starts.tolist()]
    words[::3] = [b"W" + word[1:] for word in words[::3]]
    assert occurring(rows(words), text).tolist() == expected(words, text)
    assert frames < 600 or 100 < sum(expected(words, text)) < 500


def test_places_at_the_borders_of_the_text_and_of_blocks_are_found() -> None:
    block = 1 << 15
    generator = np.random.default_rng(7)
    text = bytes(generator.integers(65, 91, 3 * block + 50, dtype=np.uint8))
    starts = [0, 1, block - 100, block - 99, block - 1, block, block + 1, 2 * block - 50, len(text) - 100]
    words = [text[start : start + 100] for start in starts]
    words += [bytes(generator.integers(65, 91, 100, dtype=np.uint8)) for _ in range(9)]
    assert occurring(rows(words), text).tolist() == [True] * 9 + [False] * 9


def test_a_frame_never_crosses_from_one_protein_to_the_next() -> None:
    words = [b"AB", b"BC", b"CD", b"DE", b"EF", b"FG", b"GH", b"HI", b"IJ", b"JK"]
    text = b"ABC\nDEF\nGH\nIJK"
    answers = dict(zip(words, occurring(rows(words), text).tolist(), strict=True))
    assert answers == {word: word in {b"AB", b"BC", b"DE", b"EF", b"GH", b"IJ", b"JK"} for word in words}


def test_a_longer_frame_than_the_text_does_not_occur() -> None:
    assert occurring(rows([b"MKV"] * 20), b"MK").tolist() == [False] * 20
    assert occurring(rows([b"MKV"] * 20), b"").tolist() == [False] * 20


def test_no_frames_have_no_answers() -> None:
    assert occurring(np.empty((0, 5), dtype=np.uint8), b"MKVLA").tolist() == []


def thue_morse(doublings: int) -> tuple[bytes, bytes]:
    """Two words that differ at every place and have one hash modulo 2**64, whatever the multiplier."""
    word, other = b"A", b"B"
    for _ in range(doublings):
        word, other = word + other, other + word
    return word, other


@pytest.mark.parametrize("order", [(0,), (1,), (0, 1), (1, 0)])
def test_answers_hold_where_hashes_collide(order: tuple[int, ...]) -> None:
    words = thue_morse(11)
    text = b"\n".join([b"MKV", *(words[index] for index in order)])
    many = [*words * 6, b"C" * len(words[0])]
    assert occurring(rows(many), text).tolist() == [0 in order, 1 in order] * 6 + [False]
