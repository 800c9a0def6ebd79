"""Nucleotides to token ids: what is asked of the tokenizers library, and what is refused before it is asked."""

from __future__ import annotations

import copy
import json

import pytest
from tokenizers import Tokenizer

import dna_stand_ins
import random_mosaic_bert as mosaic
from nucpro.errors import FastaError, ModelError
from nucpro.formats.sequences import NUCLEOTIDES
from nucpro.models.dna_tokens import BASE_LETTERS, DnaTokenizer

LIMIT = 10_000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    texts = [chunk.decode() for chunk in mosaic.chunks(100)]
    return dna_stand_ins.train_tokenizer(tmp_path_factory.mktemp("tokens"), texts, vocabulary_size=96)


@pytest.fixture(scope="module")
def content(file):
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def tokenizer(file):
    return DnaTokenizer.from_file(file)


def expected_ids(file, sequence):
    """What the library makes of one sequence when its padding is taken off by hand."""
    ids = Tokenizer.from_file(str(file)).encode(sequence.decode()).ids
    return ids[: ids.index(2) + 1]


def test_ids_are_those_of_the_file_without_its_padding(file, tokenizer):
    sequences = [*mosaic.chunks(20), b"A", b"ACGTN"]
    encoded = tokenizer.encode([str(row) for row in range(22)], sequences, LIMIT)
    expected = [expected_ids(file, sequence) for sequence in sequences]
    assert encoded.tokens.tolist() == [token for ids in expected for token in ids]
    assert encoded.lengths.tolist() == [len(ids) for ids in expected]
    assert (encoded.truncated, encoded.unknown) == (0, 1)


def test_the_real_tokenizer_gives_the_published_tokens(real_data):
    file = real_data / "dnabert_s" / "tokenizer.json"
    tokenizer = DnaTokenizer.from_file(file)
    sequences = mosaic.chunks(50)
    encoded = tokenizer.encode([str(row) for row in range(50)], sequences, LIMIT)
    assert encoded.tokens.tolist() == [token for chunk in sequences for token in expected_ids(file, chunk)]
    assert (tokenizer.largest_id, encoded.unknown) == (4095, 0)


def test_sequences_longer_than_the_baked_in_truncation_are_whole(tokenizer):
    (whole,) = mosaic.chunks(1, length=30_000)
    encoded = tokenizer.encode(["a"], [whole], 30_000)
    assert encoded.lengths[0] > dna_stand_ins.PADDED_TO
    assert encoded.truncated == 0


def test_long_sequences_are_cut_after_bases_and_counted(tokenizer):
    (whole,) = mosaic.chunks(1, length=12_000)
    encoded = tokenizer.encode("abc", [whole, whole[:10_000], whole[:9_999]], LIMIT)
    cut, fits, shorter = encoded.lengths
    assert encoded.truncated == 1
    assert encoded.tokens[:cut].tolist() == encoded.tokens[cut : cut + fits].tolist()
    assert shorter <= fits


def test_characters_without_a_token_are_counted(tokenizer):
    encoded = tokenizer.encode("ab", [b"ACGTNNNNACGU", BASE_LETTERS.encode()], LIMIT)
    assert encoded.unknown == 4 + 11


def test_every_unknown_letter_is_one_token(tokenizer):
    encoded = tokenizer.encode(["a"], [b"N" * 50], LIMIT)
    assert (encoded.tokens.tolist(), encoded.unknown) == ([1, *[0] * 50, 2], 50)


def test_case_does_not_matter(tokenizer):
    lower, upper = (
        tokenizer.encode(["a"], [word], LIMIT).tokens for word in (b"acgtnryacca", b"ACGTNRYACCA")
    )
    assert lower.tolist() == upper.tolist()


def test_no_sequences_are_no_tokens(tokenizer):
    encoded = tokenizer.encode([], [], LIMIT)
    assert (len(encoded.tokens), len(encoded.lengths), encoded.truncated, encoded.unknown) == (0, 0, 0, 0)


def test_characters_are_those_of_nucleotide_files():
    assert set(BASE_LETTERS) == set(NUCLEOTIDES)


@pytest.mark.parametrize("letter", ["E", "*", "-", " ", "\n", "\x00", "\xff", "["])
def test_a_letter_that_is_no_nucleotide_is_named_with_its_place(tokenizer, letter):
    sequences = [b"ACG", b"ac" + letter.encode("latin-1") + b"t"]
    with pytest.raises(FastaError) as caught:
        tokenizer.encode(["first", "second"], sequences, 2)
    assert str(caught.value) == (
        f"record 'second': {letter!r} at position 3 is not a nucleotide; allowed are ACGTURYSWKMBDHVN in upper or "
        "lower case; write N for an unknown base, or remove the record"
    )


def test_an_empty_sequence_is_named(tokenizer):
    with pytest.raises(FastaError, match="record 'b': the sequence is empty; remove the record"):
        tokenizer.encode("ab", [b"A", b""], LIMIT)


def test_the_digest_ignores_padding_and_the_order_of_fields(content, tokenizer):
    turned = dict(reversed(content.items()))
    assert DnaTokenizer(turned | {"padding": None, "truncation": None}).digest() == tokenizer.digest()
    merges = content["model"] | {"merges": content["model"]["merges"][:-1]}
    assert DnaTokenizer(content | {"model": merges}).digest() != tokenizer.digest()


UNDEFINED = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}
REFUSED = {
    "no tokenizer": (
        lambda content: content.clear(),
        r"no tokenizer that the tokenizers library can build \(.*\); fetch the model again",
    ),
    "a merge of what is not there": (
        lambda content: content["model"]["merges"].append(["N", "N"]),
        "no tokenizer that the tokenizers library can build",
    ),
    "no special tokens": (
        lambda content: content.update(post_processor=None),
        r"ACGT becomes A C.*; DNABERT-S makes \[CLS\], tokens that spell the sequence, and \[SEP\]: is this",
    ),
    "a template of undefined tokens": (
        lambda content: content["post_processor"]["special_tokens"].clear(),
        r"'\[CLS\]' is in its template, but not defined there; fetch the model again",
    ),
    "one in a sequence": (
        lambda content: content.update(post_processor={"type": "Sequence", "processors": [UNDEFINED]}),
        r"'\[CLS\]' is in its template, but not defined there",
    ),
    "lower case": (
        lambda content: content.update(normalizer={"type": "Lowercase"}),
        r"ACGT becomes \[CLS\] \[UNK\] \[UNK\] \[UNK\] \[UNK\] \[SEP\]; DNABERT-S makes",
    ),
    "no unknown token": (
        lambda content: content["model"].update(unk_token=None),
        "the unknown token is None and has no id, so bases without a token would be lost",
    ),
    "random tokens": (
        lambda content: content["model"].update(dropout=0.1),
        "dropout is 0.1, which draws tokens at random; set it to null",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_tokenizer_of_another_kind_is_refused(tmp_path, file, change, message):
    content = json.loads(file.read_text())
    change(content)
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"tokenizer\.json: {message}"):
        DnaTokenizer.from_file(other)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("ACGT")
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read as JSON"):
        DnaTokenizer.from_file(tmp_path / "tokenizer.json")


def test_equal_arguments_give_equal_stand_ins(tmp_path, file):
    texts = [chunk.decode() for chunk in mosaic.chunks(100)]
    again = dna_stand_ins.train_tokenizer(tmp_path, texts, vocabulary_size=96)
    assert again.read_bytes() == file.read_bytes()
    first, second = (mosaic.checkpoint(tmp_path / name) / "model.safetensors" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_ids_of_a_template_count_for_the_largest(content):
    other = copy.deepcopy(content)
    other["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [70_000]
    assert DnaTokenizer(other).largest_id == 70_000
