"""The same vectors on a CUDA device, without waiting for it, and with less memory than a batch needs."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import random_esm
from nucpro.embedding.batches import Embedder, embed, prepare
from nucpro.models.architectures import use_kernels
from nucpro.models.esm2 import Esm2
from nucpro.models.tokens import ResidueTokenizer

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch"
)

LENGTHS = (1, 2, 30, 30, 77, 99, *[100] * 20, 166, 300, 1024)
NAMES = [f"record {row}" for row in range(len(LENGTHS))]


@pytest.fixture(scope="module")
def esm():
    return random_esm.model(hidden_size=256, num_attention_heads=4, intermediate_size=1024)


def on_cuda(esm, dtype):
    encoder = Esm2.from_huggingface(esm, device=torch.device("cuda", 0), dtype=dtype)
    use_kernels(encoder)
    return encoder


def vectors(encoder, budget):
    return embed(NAMES, random_esm.proteins(LENGTHS), Embedder(encoder, budget), ResidueTokenizer()).matrix


def cosines(actual, expected):
    return torch.cosine_similarity(torch.from_numpy(actual), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 0.999999), (torch.float16, 0.9999), (torch.bfloat16, 0.99)]
)
def test_vectors_equal_those_of_the_cpu(esm, dtype, least):
    expected = vectors(Esm2.from_huggingface(esm), 4_096)
    actual = vectors(on_cuda(esm, dtype), 4_096)
    assert cosines(actual, expected).min() >= least, f"cosine {cosines(actual, expected).min():.7f} at worst"


def test_equal_work_gives_equal_bytes(esm):
    encoder = on_cuda(esm, torch.float16)
    first, second = (vectors(encoder, 1_000).tobytes() for _ in range(2))
    assert first == second


def test_a_file_begins_when_the_device_gets_to_it(esm):
    """What the device still has to do for files before is no part of a file's time."""
    embedder = Embedder(on_cuda(esm, torch.float16), 1_000)
    prepared = prepare(NAMES, random_esm.proteins(LENGTHS), ResidueTokenizer(), tokens_per_batch=1_000)
    embedder.submit(prepared).result()
    before = time.perf_counter()
    embedder.submit(prepared).result()
    alone = time.perf_counter() - before
    torch.cuda._sleep(2_000_000_000)  # cycles: about a second
    before = time.perf_counter()
    pending = embedder.submit(prepared)
    pending.result()
    assert pending.began - before > 2 * alone
    assert pending.began <= time.perf_counter()


def test_several_files_are_under_way_at_once(esm):
    embedder = Embedder(on_cuda(esm, torch.float16), 1_000)
    files = [random_esm.proteins(LENGTHS, seed) for seed in range(4)]
    tokenizer = ResidueTokenizer()
    pending = [embedder.submit(prepare(NAMES, file, tokenizer, tokens_per_batch=1_000)) for file in files]
    together = [one.result() for one in pending]
    assert all(one.done() for one in pending)
    for file, matrix in zip(files, together, strict=True):
        np.testing.assert_array_equal(matrix, embed(NAMES, file, embedder, tokenizer).matrix)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_submitting_has_no_hidden_synchronisation(esm):
    encoder = on_cuda(esm, torch.float16)
    plan = prepare(NAMES, random_esm.proteins(LENGTHS), ResidueTokenizer(), tokens_per_batch=1_000)
    embedder = Embedder(encoder, 1_000)
    embedder.submit(plan).result()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = embedder.submit(plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(pending.result()).all()


def test_batches_are_halved_until_they_fit_into_memory(esm):
    encoder = on_cuda(esm, torch.float16)
    sequences = random_esm.proteins(LENGTHS * 25)
    names = [str(row) for row in range(len(sequences))]
    expected = embed(names, sequences, Embedder(encoder, 2_000), ResidueTokenizer()).matrix
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # One batch of all 94,000 tokens needs 200 MB for the feed-forward part alone.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 100 * 2**20) / total)
    try:
        embedder = Embedder(encoder, 10**6)
        actual = embed(names, sequences, embedder, ResidueTokenizer()).matrix
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert embedder.splits > 0
    assert cosines(actual, expected).min() >= 0.9999


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_way_that_ignores_companions_gives_each_sequence_the_same_bytes(esm, dtype):
    """So equal sequences of a file are computed once by it."""
    encoder = Esm2.from_huggingface(esm, device=torch.device("cuda", 0), dtype=dtype)
    if not use_kernels(encoder).ignores_companions:
        pytest.skip("needs a GPU of compute capability 9.0")
    draw = np.random.default_rng(5)
    for count in (2, 3, 5, 13, 34, 77, 200, 600):
        lengths = np.clip(draw.lognormal(4.6, 0.5, count), 3, 1_022).astype(int)
        sequences = random_esm.proteins(lengths.tolist())
        names = [f"record {row}" for row in range(count)]
        whole = embed(names, sequences, Embedder(encoder), ResidueTokenizer()).matrix
        for share in (0.3, 0.6, 0.9):
            some = np.flatnonzero(draw.random(count) < share)
            if some.size:
                part = embed(
                    [names[row] for row in some],
                    [sequences[row] for row in some],
                    Embedder(encoder),
                    ResidueTokenizer(),
                )
                assert part.matrix.tobytes() == whole[some].tobytes(), f"{some.size} of {count}"
