"""The DNABERT-S encoder against a plain float64 reference, and against itself in other packings."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch

import random_mosaic_bert as mosaic
from nucpro.embedding.batches import Embedder, embed, prepare
from nucpro.errors import ModelError
from nucpro.models.architectures import load_dna_tokenizer, way_of
from nucpro.models.config import MosaicBertConfig
from nucpro.models.mosaic_bert import alibi_bias, alibi_slopes, attend, load_mosaic_bert
from nucpro.models.tensors import equal_runs, pool_states
from nucpro.models.weights import locate

CPU = torch.device("cpu")
MIXED_LENGTHS = (2, 3, 3, 17, 66, 66, 70, 130)
GATE = "encoder.layer.1.mlp.gated_layers.weight"


def load(folder, dtype=torch.float32):
    return load_mosaic_bert(locate(str(folder)), device=CPU, dtype=dtype)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return mosaic.checkpoint(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture(scope="module")
def encoder(saved):
    return load(saved)


@pytest.fixture(scope="module")
def tokenizer(saved):
    return load_dna_tokenizer(locate(str(saved)))


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "my model")


@torch.inference_mode()
def encode(encoder, tokens, lengths):
    return encoder(tokens, lengths)


def assert_close(actual, expected, most=2e-5):
    difference = (actual.double() - expected.double()).abs()
    message = f"difference at most {difference.max():.3g}, in the mean {difference.mean():.3g}"
    assert difference.max() <= most, message


@pytest.mark.parametrize("heads", mosaic.SLOPES)
def test_equals_the_reference_with_any_number_of_heads(tmp_path, heads):
    folder = mosaic.checkpoint(tmp_path, heads=heads)
    tokens = mosaic.random_tokens(MIXED_LENGTHS)
    expected = mosaic.reference(folder, tokens, MIXED_LENGTHS, heads)
    assert_close(encode(load(folder), tokens, MIXED_LENGTHS), expected)


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1024, 1025, 1700])
def test_equals_the_reference_at_every_length(saved, encoder, length):
    lengths = [length, length, 40]
    tokens = mosaic.random_tokens(lengths)
    assert_close(encode(encoder, tokens, lengths), mosaic.reference(saved, tokens, lengths))


def test_equals_the_reference_in_the_real_shape(real_data, tmp_path):
    """12 heads of 64 columns and the feed-forward width of config.json, in as many layers as a test has time for."""
    config = MosaicBertConfig.from_dict(json.loads((real_data / "dnabert_s" / "config.json").read_text()))
    assert config == MosaicBertConfig(
        vocabulary_size=4096,
        token_types=2,
        width=768,
        layers=12,
        heads=12,
        feed_forward_width=3072,
        norm_epsilon=1e-12,
    )
    folder = mosaic.checkpoint(tmp_path, width=768, feed_forward_width=3072, vocabulary_size=4096)
    tokens = mosaic.random_tokens(MIXED_LENGTHS)
    assert_close(
        encode(load(folder), tokens, MIXED_LENGTHS), mosaic.reference(folder, tokens, MIXED_LENGTHS), 1e-4
    )


def test_vectors_are_means_of_all_tokens(saved, encoder, tokenizer):
    sequences = mosaic.chunks(6) + mosaic.chunks(2, length=41)
    tokens, lengths = mosaic.packed(tokenizer, sequences)
    hidden = mosaic.reference(saved, tokens, lengths)
    expected = torch.stack([part.mean(dim=0) for part in hidden.split(lengths)])
    vectors = embed("abcdefgh", sequences, Embedder(encoder), tokenizer, max_residues=10_000)
    assert_close(torch.from_numpy(vectors.matrix), expected)


def test_unknown_tokens_reach_whoever_prepares(tokenizer):
    prepared = prepare("ab", [b"NNACGT", b"ACGTR"], tokenizer, tokens_per_batch=100)
    assert (prepared.unknown, prepared.tokens) == (3, len(prepared.token_ids))


@pytest.mark.parametrize("budget", [1, 100, 250, 10_000])
def test_a_vector_does_not_depend_on_batches(encoder, tokenizer, budget):
    sequences = mosaic.chunks(8) + mosaic.chunks(4, length=123)
    names = [str(row) for row in range(len(sequences))]
    alone = [embed("a", [sequence], Embedder(encoder), tokenizer).matrix for sequence in sequences]
    together = embed(names, sequences, Embedder(encoder, budget), tokenizer)
    assert_close(torch.from_numpy(together.matrix), torch.from_numpy(np.concatenate(alone)), 1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_companions_and_order_do_not_matter(encoder, order):
    lengths = [30, 600, 30, 77]
    parts = mosaic.random_tokens(lengths).split(lengths)
    alone = [encode(encoder, parts[row], [lengths[row]]) for row in order]
    together = encode(encoder, torch.cat([parts[row] for row in order]), [lengths[row] for row in order])
    assert_close(together, torch.cat(alone), 1e-5)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.99999), (torch.bfloat16, 0.999)])
def test_half_precision_points_the_same_way(saved, encoder, tokenizer, dtype, least):
    tokens, lengths = mosaic.packed(tokenizer, mosaic.chunks(8))
    exact, half = (
        pool_states(encode(one, tokens, lengths), lengths, one.config.pooled_span)
        for one in (encoder, load(saved, dtype))
    )
    cosines = torch.cosine_similarity(exact, half)
    assert cosines.min() >= least, f"cosine {cosines.min():.6f} at worst, {cosines.mean():.6f} in the mean"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch")
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 0.999999), (torch.float16, 0.9999), (torch.bfloat16, 0.99)]
)
def test_vectors_on_cuda_equal_those_of_the_cpu(tmp_path, dtype, least):
    folder = mosaic.checkpoint(tmp_path, width=256, heads=4, feed_forward_width=512)
    files = locate(str(folder))
    cuda = load_mosaic_bert(files, device=torch.device("cuda", 0), dtype=dtype)
    names, sequences = [str(row) for row in range(21)], [*mosaic.chunks(20), *mosaic.chunks(1, length=4_000)]
    actual, expected = (
        torch.from_numpy(embed(names, sequences, Embedder(one, 2_000), load_dna_tokenizer(files)).matrix)
        for one in (cuda, load(folder))
    )
    cosines = torch.cosine_similarity(actual, expected)
    assert cosines.min() >= least, f"cosine {cosines.min():.7f} at worst, {cosines.mean():.7f} in the mean"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_round_the_bias(dtype):
    """A score that cancels a bias of -212.13, which half precision can hold as -212.125 or -212 only."""
    distance, slope, score = 300, 2**-0.5, 212.0
    mixed = torch.zeros(distance + 1, 3, dtype=dtype)
    mixed[0, 0], mixed[distance, 1], mixed[distance, 2] = 1.0, score, 1.0
    bias = alibi_bias(torch.tensor([slope]), distance + 1)
    share = float(attend(mixed, equal_runs([distance + 1]), bias)[0, 0])
    positions = torch.arange(distance + 1, dtype=torch.float64)
    scores = -slope * positions
    scores[distance] += score
    expected = float(scores.softmax(dim=0)[distance])
    assert share == pytest.approx(expected, rel=torch.finfo(dtype).eps)


def test_attention_is_computed_in_float32_whatever_the_precision():
    lengths = [40, 40, 9]
    mixed = torch.randn(sum(lengths), 36, generator=torch.Generator().manual_seed(0)).half()
    half, full = (
        attend(inputs, equal_runs(lengths), alibi_bias(torch.tensor(alibi_slopes(3)), max(lengths)))
        for inputs in (mixed, mixed.float())
    )
    assert torch.equal(half, full.half())


def test_slopes_of_twelve_heads_are_those_of_eight_then_every_other_of_sixteen():
    assert alibi_slopes(12) == [*alibi_slopes(8), *alibi_slopes(16)[:8:2]]
    assert alibi_slopes(8) == [2**-power for power in range(1, 9)]


@pytest.mark.parametrize("heads", mosaic.SLOPES)
def test_slopes_are_those_of_the_paper(heads):
    assert alibi_slopes(heads) == pytest.approx(
        [2**-exponent for exponent in mosaic.SLOPES[heads]], rel=1e-15
    )


@pytest.mark.parametrize(
    ("device", "dtype", "heads", "words"),
    [
        ("cpu", torch.float16, 3, "cpu is not an NVIDIA GPU"),
        ("cuda:0", torch.float32, 3, "kernels compute in float16 and bfloat16, not in float32"),
        ("cuda:0", torch.float16, 2, "heads have 24 columns, not a power of two of at least 16"),
        ("cuda:0", torch.float16, 6, "heads have 8 columns, not a power of two of at least 16"),
    ],
)
def test_says_why_kernels_cannot_run(saved, device, dtype, heads, words):
    fields = json.loads((saved / "config.json").read_text())
    config = MosaicBertConfig.from_dict(fields | {"num_attention_heads": heads, "intermediate_size": 96})
    assert way_of(config, torch.device(device), dtype).reason == words


def with_prefix_and_heads(tensors):
    for name in list(tensors):
        tensors[f"bert.{name}"] = tensors.pop(name)
    tensors |= {
        "cls.predictions.bias": torch.zeros(96),
        "cls.predictions.transform.LayerNorm.weight": torch.ones(48),
        "bert.pooler.dense.weight": torch.full((48, 48), float("nan")),
        "classifier.weight": torch.zeros(2, 48),
        "qa_outputs.weight": torch.zeros(2, 48),
        "bert.embeddings.position_ids": torch.arange(512)[None],
        "bert.embeddings.token_type_ids": torch.zeros(1, 512, dtype=torch.int64),
    }


def as_pickle(folder):
    torch.save(mosaic.tensors(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


LAYOUTS = {
    "prefix and heads": lambda folder: mosaic.rewrite(folder, with_prefix_and_heads),
    "pickle": as_pickle,
    "float64": lambda folder: mosaic.rewrite(
        folder, lambda tensors: tensors.update({name: tensor.double() for name, tensor in tensors.items()})
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_gives_the_same_encoder(saved, folder, layout):
    layout(folder)
    expected, actual = load(saved).state_dict(), load(folder).state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def put(name, value):
    return lambda tensors: tensors.update({name: value})


def damage(tensors):
    tensors[GATE] = tensors[GATE].clone()
    tensors[GATE][0, :2] = float("nan")


REFUSED_TENSORS = {
    "missing": (
        lambda tensors: tensors.pop(GATE),
        rf"{GATE} missing from the weights, which hold \d+ tensors",
    ),
    "a bias on the gate": (
        put("encoder.layer.0.mlp.gated_layers.bias", torch.zeros(160)),
        r"encoder\.layer\.0\.mlp\.gated_layers\.bias in the weights have no place",
    ),
    "position embeddings": (
        put("embeddings.position_embeddings.weight", torch.zeros(512, 48)),
        r"embeddings\.position_embeddings\.weight in the weights have no place",
    ),
    "separate queries": (
        put("encoder.layer.0.attention.self.query.weight", torch.zeros(48, 48)),
        r"encoder\.layer\.0\.attention\.self\.query\.weight in the weights have no place",
    ),
    "a gate of half the width": (
        put(GATE, torch.zeros(80, 48)),
        rf"{GATE} is float32 of shape \(80, 48\), but config.json makes it floats of shape \(160, 48\)",
    ),
    "not a number": (damage, rf"{GATE} holds 2 of 7680 values that are NaN or infinite"),
    "twice": (
        put(f"bert.{GATE}", torch.zeros(160, 48)),
        rf"a tensor has two names, bert.{GATE} and {GATE}; save",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS.keys())
def test_weights_that_do_not_fit_are_refused(folder, change, message):
    mosaic.rewrite(folder, change)
    with pytest.raises(ModelError, match=f"^my model: .*{message}"):
        load(folder)


class Hostile:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_that_wants_to_run_code_is_refused_by_name(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Hostile(tmp_path / "marker")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: refused, the file wants to call posix\.mkdir"):
        load(folder)
    assert not (tmp_path / "marker").exists()


REFUSED_FIELDS = {
    "another type": (
        {"model_type": "esm"},
        "model_type is 'esm'; allowed is bert: this is not a DNABERT-S or",
    ),
    "no type": ({"model_type": None}, "model_type is None; allowed is bert"),
    "activation": ({"hidden_act": "relu"}, "hidden_act is 'relu', but every MosaicBERT has 'gelu'; this is"),
    "decoder": ({"is_decoder": True}, "is_decoder is True, but every MosaicBERT has False"),
    "heads": ({"num_attention_heads": 5}, "hidden_size 48 cannot be shared by 5 attention heads"),
    "no token types": ({"type_vocab_size": 0}, "type_vocab_size is 0; it must be a whole number from 1 to"),
    "missing": ({"intermediate_size": None}, "intermediate_size is missing; fetch the model again"),
    "layers": (
        {"num_hidden_layers": 10**6},
        "num_hidden_layers is 1000000; it must be a whole number from 1 to",
    ),
    "epsilon": ({"layer_norm_eps": -1e-12}, "layer_norm_eps is -1e-12; it must be a positive number"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED_FIELDS.values(), ids=REFUSED_FIELDS.keys())
def test_a_configuration_that_contradicts_the_weights_is_refused(saved, changes, message):
    fields = json.loads((saved / "config.json").read_text()) | changes
    with pytest.raises(ModelError, match=f"^config.json: {message}"):
        MosaicBertConfig.from_dict(fields)


def test_a_tokenizer_that_is_not_the_models_is_refused(folder):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 95}))
    with pytest.raises(
        ModelError, match=r"my model: tokenizer.json has ids up to 95, but .* vocab_size 95; they"
    ):
        load_dna_tokenizer(locate(str(folder)))


def test_a_checkpoint_without_a_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json: is missing; fetch the model again"):
        load_dna_tokenizer(locate(str(folder)))
