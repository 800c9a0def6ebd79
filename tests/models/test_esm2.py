"""The encoder against transformers, and against itself in other packings."""

from __future__ import annotations

import pytest
import torch
from transformers import EsmForMaskedLM, EsmModel

import random_esm
from nucpro.errors import ModelError
from nucpro.models.config import RESIDUES_ONLY
from nucpro.models.esm2 import Esm2, load_esm2
from nucpro.models.tensors import pool_states
from nucpro.models.weights import locate

CPU = torch.device("cpu")
MIXED_LENGTHS = (1, 1, 2, 7, 30, 30, 99, 100, 100, 166)
SHAPES = {
    "one head": {"num_attention_heads": 1, "hidden_size": 32},
    "heads of two": {"num_attention_heads": 16, "hidden_size": 32},
    "wide feed-forward": {"intermediate_size": 512},
    "narrow feed-forward": {"intermediate_size": 24},
    "odd head count": {"num_attention_heads": 5, "hidden_size": 80},
    "one layer": {"num_hidden_layers": 1},
    "nine layers": {"num_hidden_layers": 9},
    "large epsilon": {"layer_norm_eps": 1e-2},
    "other rotary base": {"rope_theta": 500.0},
}


@torch.inference_mode()
def encode(encoder, sequences):
    return encoder(*random_esm.packed(sequences))


def assert_close(actual, expected, what=""):
    difference = (actual - expected).abs()
    message = f"{what}: difference at most {difference.max():.3g}, in the mean {difference.mean():.3g}"
    assert difference.max() <= 1e-4, message
    assert difference.mean() <= 1e-6, message


@pytest.mark.parametrize("token_dropout", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equals_transformers_for_every_residue(shape, token_dropout):
    esm = random_esm.model(token_dropout=token_dropout, **shape)
    sequences = random_esm.proteins(MIXED_LENGTHS)
    assert_close(encode(Esm2.from_huggingface(esm), sequences), random_esm.reference(esm, sequences))


@pytest.mark.parametrize("length", [1, 2, 62, 63, 64, 126, 127, 254, 511, 1023, 1024])
def test_equals_transformers_at_every_length(length):
    esm = random_esm.model()
    sequences = random_esm.proteins([length, length])
    assert_close(encode(Esm2.from_huggingface(esm), sequences), random_esm.reference(esm, sequences))


def test_real_weights_equal_transformers(real_data):
    folder = real_data / "esm2_8m"
    encoder = load_esm2(locate(str(folder)), device=CPU, dtype=torch.float32)
    esm = EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    sequences = random_esm.proteins((1, 5, 99, 100, 100, 166, 300, 1024))
    actual, expected = encode(encoder, sequences), random_esm.reference(esm, sequences)
    assert_close(actual, expected, "per residue")
    lengths = [len(sequence) + 2 for sequence in sequences]
    pooled = [pool_states(hidden, lengths, RESIDUES_ONLY) for hidden in (actual, expected)]
    assert_close(*pooled, "pooled")


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.9999), (torch.bfloat16, 0.99)])
def test_real_weights_in_half_precision_point_the_same_way(real_data, dtype, least):
    files = locate(str(real_data / "esm2_8m"))
    sequences = random_esm.proteins((20, 99, 100, 100, 166))
    lengths = [len(sequence) + 2 for sequence in sequences]
    exact, half = (
        pool_states(encode(load_esm2(files, device=CPU, dtype=kind), sequences), lengths, RESIDUES_ONLY)
        for kind in (torch.float32, dtype)
    )
    cosines = torch.cosine_similarity(exact, half)
    assert cosines.min() >= least, f"cosine {cosines.min():.6f} at worst, {cosines.mean():.6f} in the mean"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_companions_and_order_do_not_matter(order):
    encoder = Esm2.from_huggingface(random_esm.model())
    sequences = random_esm.proteins((30, 100, 30, 77))
    alone = [encode(encoder, [sequences[row]]) for row in order]
    together = encode(encoder, [sequences[row] for row in order])
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_positions_restart_in_every_sequence():
    encoder = Esm2.from_huggingface(random_esm.model())
    (sequence,) = random_esm.proteins([50])
    hidden = encode(encoder, [sequence] * 3).view(3, 52, -1)
    torch.testing.assert_close(hidden[0], hidden[2], rtol=0, atol=1e-6)


def test_token_dropout_changes_the_numbers():
    esm = random_esm.model()
    sequences = random_esm.proteins([40])
    on, off = (encode(Esm2.from_huggingface(esm, token_dropout=way), sequences) for way in ("on", "off"))
    assert (on - off).abs().max() > 0.01
    assert_close(on, encode(Esm2.from_huggingface(esm), sequences), "auto follows the model, which says on")


def test_a_model_with_a_head_is_taken_over():
    esm = random_esm.model()
    with_head = EsmForMaskedLM(esm.config).eval()
    with_head.esm.load_state_dict(esm.state_dict())
    sequences = random_esm.proteins(MIXED_LENGTHS)
    assert torch.equal(
        encode(Esm2.from_huggingface(with_head), sequences), encode(Esm2.from_huggingface(esm), sequences)
    )


def test_a_model_object_keeps_its_device_and_precision_and_its_own_weights():
    esm = random_esm.model().half()
    encoder = Esm2.from_huggingface(esm)
    assert (encoder.dtype, encoder.device, encoder.width) == (torch.float16, CPU, 64)
    before = encoder.token_embeddings.weight.clone()
    esm.embeddings.word_embeddings.weight.data.zero_()
    assert torch.equal(encoder.token_embeddings.weight, before)


def test_rotary_frequencies_of_the_checkpoint_count():
    """Published weights hold frequencies that were rounded to float16, and were trained with those."""
    esm = random_esm.model()
    sequences = random_esm.proteins([1000])
    computed = encode(Esm2.from_huggingface(esm), sequences)
    esm.rotary_embeddings.inv_freq = esm.rotary_embeddings.inv_freq.half().float()
    rounded = encode(Esm2.from_huggingface(esm), sequences)
    assert_close(rounded, random_esm.reference(esm, sequences))
    assert (rounded - computed).abs().max() > 1e-3


def test_other_rotary_frequencies_are_refused():
    esm = random_esm.model().bfloat16()
    with pytest.raises(
        ModelError, match=r"EsmModel: rotary_embeddings.inv_freq deviates by 0\.00\d+ from .* not in bfloat16"
    ):
        Esm2.from_huggingface(esm)


def test_what_is_no_esm2_is_refused_by_name():
    with pytest.raises(ModelError, match=r"a Linear has no \.config"):
        Esm2.from_huggingface(torch.nn.Linear(2, 2))
    with pytest.raises(
        ModelError, match="position_embedding_type is 'absolute', but every ESM-2 has 'rotary'"
    ):
        Esm2.from_huggingface(EsmModel(random_esm.config(position_embedding_type="absolute")))
    with pytest.raises(ModelError, match="emb_layer_norm_before is True, but every ESM-2 has False"):
        Esm2.from_huggingface(EsmModel(random_esm.config(emb_layer_norm_before=True)))


def test_on_a_cpu_bfloat16_is_for_products_and_the_rest_is_float32():
    esm = random_esm.model()
    rounded, exact = Esm2.from_huggingface(esm, dtype=torch.bfloat16), Esm2.from_huggingface(esm)
    assert rounded.dtype == torch.bfloat16
    kinds = {name: parameter.dtype for name, parameter in rounded.named_parameters()}
    products = {
        "query_key_value.weight",
        "attention_out.weight",
        "feed_forward_in.weight",
        "feed_forward_out.weight",
    }
    for name, kind in kinds.items():
        is_product = any(name.endswith(product) for product in products)
        assert kind == (torch.bfloat16 if is_product else torch.float32), name
    tokens, lengths = random_esm.packed(random_esm.proteins((1, 30, 62)))
    with torch.inference_mode():
        hidden, truth = rounded(tokens, lengths), exact(tokens, lengths)
    assert hidden.dtype == torch.float32
    assert 1e-5 < float((hidden - truth).norm() / truth.norm()) < 1e-2


def test_an_encoder_with_drawn_weights_computes_values_of_ordinary_size():
    config = Esm2.from_huggingface(random_esm.model()).config
    drawn = Esm2.drawn(config, device=torch.device("cpu"), dtype=torch.float32)
    tokens, lengths = random_esm.packed(random_esm.proteins((1, 30)))
    with torch.inference_mode():
        hidden = drawn(tokens, lengths)
    assert 0.5 < float(hidden.std()) < 2
