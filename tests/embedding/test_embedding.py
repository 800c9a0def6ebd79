"""Vectors of sequences: independent of batches, in input order, and never silently wrong."""

from __future__ import annotations

import gzip
import logging
import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import EsmModel

import random_esm
from nucpro.embedding.batches import Embedder, default_tokens_per_batch, embed, prepare
from nucpro.errors import ExtractionError
from nucpro.models.config import PooledSpan
from nucpro.models.esm2 import Esm2, load_esm2
from nucpro.models.tensors import pool_states
from nucpro.models.tokens import ESM_VOCABULARY, ResidueTokenizer
from nucpro.models.weights import locate

ROUNDING = 1e-5
"""Largest difference that another batch, order or companion may make in float32."""
LENGTHS = (1, 2, 5, 30, 30, 30, 77, 99, 100, 100, 166, 300)


@pytest.fixture(scope="module")
def esm():
    return random_esm.model()


@pytest.fixture
def encoder(esm):
    return Esm2.from_huggingface(esm)


def vectors(encoder, sequences, budget=8_192, **options):
    names = [f"record {row}" for row in range(len(sequences))]
    return embed(names, sequences, Embedder(encoder, budget), ResidueTokenizer(), **options)


@pytest.fixture(scope="module")
def viral_proteins(real_data):
    """Annotated proteins of real viruses: the long ones of a coronavirus are cut, the others are short."""
    annotation = gzip.decompress((real_data / "refseq_mini" / "viral.1.genomic.gbff.gz").read_bytes())
    translations = re.findall(rb'/translation="([A-Z\s]+)"', annotation)
    return sorted((re.sub(rb"\s", b"", one) for one in translations), key=len)[::4]


class Limited:
    """An encoder on a device with little memory: more than ``most`` tokens at once do not fit."""

    def __init__(self, encoder, most, fail):
        self.encoder, self.most, self.fail = encoder, most, fail
        self.width, self.device, self.pool = encoder.width, encoder.device, encoder.pool

    def __call__(self, tokens, lengths):
        if len(tokens) > self.most:
            self.fail()
        return self.encoder(tokens, lengths)


def out_of_device_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def out_of_host_memory():
    torch.empty(2**62, dtype=torch.uint8)


def test_vectors_are_the_mean_over_residues_as_transformers_computes_it(esm, encoder):
    sequences = random_esm.proteins(LENGTHS)
    hidden = random_esm.reference(esm, sequences).split([length + 2 for length in LENGTHS])
    expected = torch.stack([states[1:-1].mean(0) for states in hidden])
    result = vectors(encoder, sequences)
    difference = np.abs(result.matrix - expected.numpy())
    assert result.matrix.dtype == np.float32
    assert difference.max() <= 1e-4, f"at most {difference.max():.3g}"
    assert difference.mean() <= 1e-6, f"in the mean {difference.mean():.3g}"


@pytest.mark.parametrize("budget", [1, 50, 104, 333, 1000, 100_000])
def test_the_batch_budget_does_not_matter(encoder, budget):
    sequences = random_esm.proteins(LENGTHS)
    expected = vectors(encoder, sequences).matrix
    np.testing.assert_allclose(vectors(encoder, sequences, budget).matrix, expected, rtol=0, atol=ROUNDING)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(len(LENGTHS))), kept=st.integers(1, len(LENGTHS)), budget=st.integers(1, 500)
)
def test_order_and_companions_do_not_matter(encoder, order, kept, budget):
    sequences = random_esm.proteins(LENGTHS)
    expected = vectors(encoder, sequences).matrix
    rows = list(order[:kept])
    actual = vectors(encoder, [sequences[row] for row in rows], budget)
    np.testing.assert_allclose(actual.matrix, expected[rows], rtol=0, atol=ROUNDING)


def test_equal_work_gives_equal_bytes(encoder):
    sequences = random_esm.proteins(LENGTHS * 5)
    first, second = (vectors(encoder, sequences, 333).matrix.tobytes() for _ in range(2))
    assert first == second


def test_real_proteins_and_weights_equal_transformers_in_every_batch_size(real_data, viral_proteins):
    folder = real_data / "esm2_8m"
    encoder = load_esm2(locate(str(folder)), device=torch.device("cpu"), dtype=torch.float32)
    esm = EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    one_by_one, together = (vectors(encoder, viral_proteins, budget) for budget in (1, 8_192))
    np.testing.assert_allclose(one_by_one.matrix, together.matrix, rtol=0, atol=ROUNDING)
    assert together.truncated == sum(len(protein) > 1024 for protein in viral_proteins) > 0
    alone = [random_esm.reference(esm, [protein[:1024]])[1:-1].mean(0) for protein in viral_proteins]
    difference = np.abs(together.matrix - torch.stack(alone).numpy())
    assert difference.max() <= 1e-4, f"at most {difference.max():.3g}"
    assert difference.mean() <= 1e-6, f"in the mean {difference.mean():.3g}"


def test_long_sequences_are_cut_and_counted(encoder):
    (long,) = random_esm.proteins([1030])
    result = vectors(encoder, [long, long[:1024], long[:50]])
    assert result.truncated == 1
    np.testing.assert_allclose(result.matrix[0], result.matrix[1], rtol=0, atol=ROUNDING)
    short = vectors(encoder, [long], max_residues=50)
    np.testing.assert_allclose(short.matrix[0], result.matrix[2], rtol=0, atol=ROUNDING)


def test_the_encoder_says_which_tokens_are_pooled(encoder):
    sequences = random_esm.proteins([10])
    whole = Limited(encoder, 10**9, None)
    whole.pool = partial(pool_states, span=PooledSpan("all tokens", 0, 0))
    with torch.inference_mode():
        hidden = encoder(*random_esm.packed(sequences))
    np.testing.assert_allclose(vectors(whole, sequences).matrix[0], hidden.mean(0).numpy(), rtol=0, atol=1e-6)


def test_nothing_gives_nothing(encoder):
    assert vectors(encoder, []).matrix.shape == (0, 64)


def test_several_files_may_be_waiting(encoder):
    embedder = Embedder(encoder)
    files = [random_esm.proteins(LENGTHS, seed) for seed in range(3)]
    names = [str(row) for row in range(len(LENGTHS))]
    pending = [
        embedder.submit(prepare(names, file, ResidueTokenizer(), tokens_per_batch=333)) for file in files
    ]
    assert all(one.done() for one in pending)
    for file, one in zip(files, pending, strict=True):
        np.testing.assert_array_equal(one.result(), vectors(encoder, file, 333).matrix)


@pytest.mark.parametrize("fail", [out_of_device_memory, out_of_host_memory])
def test_a_batch_that_does_not_fit_is_halved_and_counted(encoder, fail, caplog):
    sequences = random_esm.proteins(LENGTHS)
    embedder = Embedder(Limited(encoder, 350, fail), 1_000)
    names = [f"record {row}" for row in range(len(sequences))]
    with caplog.at_level(logging.WARNING, "nucpro"):
        result = embed(names, sequences, embedder, ResidueTokenizer())
    expected = vectors(encoder, sequences).matrix
    np.testing.assert_allclose(result.matrix, expected, rtol=0, atol=ROUNDING)
    assert embedder.splits == len(caplog.messages) > 0
    assert caplog.messages[0].startswith("out of memory on cpu: a batch of ")
    assert caplog.messages[0].endswith("is halved; lower the tokens per batch if this happens often")


@pytest.mark.parametrize("fail", [out_of_device_memory, out_of_host_memory])
def test_a_record_that_does_not_fit_alone_is_named(encoder, fail):
    with pytest.raises(ExtractionError) as caught:
        vectors(Limited(encoder, 200, fail), random_esm.proteins(LENGTHS))
    assert str(caught.value).startswith(
        "record 'record 11' (302 tokens) does not fit into the memory of cpu, even alone; lower the maximum of "
        "residues, free memory there, or use a larger device ("
    )


def test_a_failing_encoder_is_reported_with_its_batch(encoder):
    def fail():
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(
        ExtractionError, match=r"failed on a batch of 2 records \(tokens of shape \[14\], 8 to 6 each, .*"
    ):
        vectors(Limited(encoder, 10, fail), [b"MKVL", b"MKVLAA"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_names_the_record(encoder, value):
    encoder.token_embeddings.weight[ESM_VOCABULARY.index("W")] = value
    sequences = [b"MKV", b"MKVL", b"MKW", b"W" * 50]
    with pytest.raises(ExtractionError) as caught:
        vectors(encoder, sequences, 20)
    message = str(caught.value)
    assert message.startswith(
        "record 'record 2' (5 tokens): 64 of 64 values of its vector are NaN or infinite "
    )
    assert "(2 of 4 records are affected)" in message
    assert (
        "computed in a batch of 3 records (tokens of shape [16], 6 to 5 each, from 'record 1' to" in message
    )
    assert message.endswith(
        "try the precision fp32, and if that fails too, fetch the model again (nucpro fetch-models FOLDER)"
    )


def test_the_default_budget_belongs_to_the_device(encoder):
    assert Embedder(encoder).tokens_per_batch == default_tokens_per_batch(torch.device("cpu"))
