"""Residues to token ids, against transformers' tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import EsmTokenizer

import random_esm
from nucpro.errors import FastaError, ModelError
from nucpro.models.tokens import ESM_VOCABULARY, RESIDUE_LETTERS, ResidueTokenizer


def test_ids_equal_those_of_transformers(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(ESM_VOCABULARY))
    sequences = [*random_esm.proteins((1, 5, 300)), RESIDUE_LETTERS.encode()]
    encoded = ResidueTokenizer.from_file(vocabulary).encode("abcd", sequences, 1024)
    expected = EsmTokenizer(str(vocabulary))([sequence.decode() for sequence in sequences])["input_ids"]
    assert encoded.tokens.tolist() == [token for ids in expected for token in ids]
    assert encoded.lengths.tolist() == [len(ids) for ids in expected]


def test_the_vocabulary_of_the_real_checkpoint_is_the_standard_one(real_data):
    tokenizer = ResidueTokenizer.from_file(real_data / "esm2_8m" / "vocab.txt")
    assert tokenizer.vocabulary == ESM_VOCABULARY
    assert tokenizer.digest() == ResidueTokenizer().digest()


def test_case_does_not_matter():
    lower, upper = (ResidueTokenizer().encode(["a"], [word], 9).tokens for word in (b"mkvlx", b"MKVLX"))
    assert np.array_equal(lower, upper)


def test_long_sequences_are_cut_and_counted():
    tokenizer = ResidueTokenizer()
    encoded = tokenizer.encode("abc", [b"MKV", b"MKVL", b"MKVLA"], 4)
    assert (encoded.lengths.tolist(), encoded.truncated) == ([5, 6, 6], 1)
    assert encoded.tokens.tolist()[5:11] == encoded.tokens.tolist()[11:]


def test_another_order_of_tokens_is_followed():
    tokenizer = ResidueTokenizer(ESM_VOCABULARY[::-1])
    ids = tokenizer.encode(["a"], [b"L"], 9).tokens.tolist()
    assert ids == [32, 32 - ESM_VOCABULARY.index("L"), 30]


def test_no_sequences_are_no_tokens():
    encoded = ResidueTokenizer().encode([], [], 9)
    assert (len(encoded.tokens), len(encoded.lengths), encoded.truncated) == (0, 0, 0)


@pytest.mark.parametrize("letter", ["J", "*", "-", ".", "<", " ", "\n", "\x00", "\xff"])
def test_a_letter_without_a_residue_is_named_with_its_place(letter):
    sequences = [b"MKV", b"MK" + letter.encode("latin-1") + b"V"]
    with pytest.raises(FastaError) as caught:
        ResidueTokenizer().encode(["first", "second"], sequences, 2)
    assert str(caught.value) == (
        f"record 'second': {letter!r} at position 3 is not a residue; allowed are ACDEFGHIKLMNPQRSTVWYXBUZO in upper "
        "or lower case; write X for an unknown residue, or remove the record"
    )


def test_an_empty_sequence_is_named():
    with pytest.raises(FastaError, match="record 'b': the sequence is empty; remove the record"):
        ResidueTokenizer().encode("ab", [b"M", b""], 9)


def test_a_letter_that_the_vocabulary_lacks_is_no_residue():
    tokenizer = ResidueTokenizer([token for token in ESM_VOCABULARY if token != "O"])
    with pytest.raises(
        FastaError, match="'O' at position 2 is not a residue; allowed are ACDEFGHIKLMNPQRSTVWYXBUZ in"
    ):
        tokenizer.encode(["a"], [b"MO"], 9)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (
            [token for token in ESM_VOCABULARY if token not in ("<eos>", "W")],
            "no token for <eos>, W among its 31",
        ),
        ([*ESM_VOCABULARY, "A"], "token 'A' is a duplicate"),
        (
            [f"<{n}>" for n in range(250)] + list(ESM_VOCABULARY),
            "a residue has the id 278; ids up to 254 are supported",
        ),
    ],
    ids=["incomplete", "twice", "too large"],
)
def test_a_vocabulary_of_another_kind_is_refused(tmp_path, vocabulary, message):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(vocabulary))
    with pytest.raises(ModelError, match=f"vocab.txt: {message}"):
        ResidueTokenizer.from_file(file)


def test_a_vocabulary_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"vocab\.txt: the vocabulary cannot be read"):
        ResidueTokenizer.from_file(tmp_path / "vocab.txt")
