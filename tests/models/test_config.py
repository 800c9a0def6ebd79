"""Configurations: what is taken from them, and which lies are found out before anything is built."""

from __future__ import annotations

import json

import pytest

import random_esm
from nucpro.errors import ModelError, UsageError
from nucpro.models.config import Esm2Config

FAST_ESM = {"model_type": "fast_esm", "position_embedding_type": None, "token_dropout": None}


def fields(**changes):
    """A configuration as transformers writes it; None removes a field."""
    config = json.loads(random_esm.config().to_json_string(use_diff=False)) | changes
    return {name: value for name, value in config.items() if name not in changes or value is not None}


def test_numbers_are_taken_over():
    assert Esm2Config.from_dict(fields()) == Esm2Config(
        vocabulary_size=33,
        width=64,
        layers=3,
        heads=4,
        feed_forward_width=128,
        norm_epsilon=1e-5,
        rotary_base=10000.0,
        token_dropout=True,
    )


@pytest.mark.parametrize(
    ("changes", "choice", "expected"),
    [
        ({"token_dropout": True}, "auto", True),
        ({"token_dropout": False}, "auto", False),
        ({"token_dropout": None}, "auto", False),
        (FAST_ESM, "auto", True),
        (FAST_ESM | {"token_dropout": False}, "auto", False),
        ({"token_dropout": False}, "on", True),
        (FAST_ESM, "off", False),
    ],
)
def test_token_dropout_follows_the_choice_then_the_field_then_the_model_type(changes, choice, expected):
    assert Esm2Config.from_dict(fields(**changes), choice).token_dropout is expected


def test_a_missing_rotary_base_is_that_of_all_esm2():
    assert Esm2Config.from_dict(fields(rope_theta=None)).rotary_base == 10000.0


REFUSED = {
    "another type": (
        {"model_type": "bert"},
        "model_type is 'bert'; allowed are esm and fast_esm: this is not an",
    ),
    "no type": ({"model_type": None}, "model_type is None"),
    "positions": (
        {"position_embedding_type": "absolute"},
        "position_embedding_type is 'absolute', but every ESM-2",
    ),
    "no positions": (
        {"position_embedding_type": None},
        "position_embedding_type is 'absolute', but every ESM-2",
    ),
    "norm before": (
        {"emb_layer_norm_before": True},
        "emb_layer_norm_before is True, but every ESM-2 has False",
    ),
    "decoder": ({"is_decoder": True}, "is_decoder is True, but every ESM-2 has False"),
    "folding": ({"is_folding_model": True}, "is_folding_model is True"),
    "activation": ({"hidden_act": "relu"}, "hidden_act is 'relu', but every ESM-2 has 'gelu'"),
    "heads": ({"num_attention_heads": 5}, "hidden_size 64 cannot be shared by 5 attention heads"),
    "odd heads": ({"hidden_size": 20}, "hidden_size 20 cannot be shared by 4 attention heads"),
    "negative": ({"hidden_size": -64}, "hidden_size is -64; it must be a whole number from 1 to 1,000,000"),
    "zero": ({"num_attention_heads": 0}, "num_attention_heads is 0; it must be a whole number from 1"),
    "huge": (
        {"num_hidden_layers": 10**9},
        "num_hidden_layers is 1000000000; it must be a whole number from 1 to 1,000",
    ),
    "text": ({"vocab_size": "33"}, "vocab_size is '33'; it must be a whole number"),
    "truth value": ({"intermediate_size": True}, "intermediate_size is True; it must be a whole number"),
    "missing": ({"num_hidden_layers": None}, "num_hidden_layers is missing; fetch the model again"),
    "epsilon": ({"layer_norm_eps": 0}, "layer_norm_eps is 0; it must be a positive number"),
    "too large": ({"layer_norm_eps": 10**400}, r"layer_norm_eps is 10{59}…; it must be a positive number"),
    "long": ({"hidden_act": "x" * 9999}, "hidden_act is 'x{59}…, but every ESM-2 has 'gelu'"),
    "infinite": ({"rope_theta": float("inf")}, "rope_theta is inf; it must be a positive number"),
    "dropout": ({"token_dropout": "yes"}, "token_dropout is 'yes'; it must be true or false"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_configuration_that_contradicts_the_weights_is_refused(changes, message):
    with pytest.raises(ModelError, match=f"^config.json: {message}"):
        Esm2Config.from_dict(fields(**changes))


def test_an_unknown_choice_is_refused():
    with pytest.raises(UsageError, match="token dropout 'maybe' is unknown; allowed are auto, on, off"):
        Esm2Config.from_dict(fields(), "maybe")
