"""Layers and poolings: as transformers has the layers, as NumPy pools them, whatever else is in the batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EsmModel

import nucpro
import random_esm
from nucpro.cli import main
from nucpro.embedding.batches import Embedder, embed
from nucpro.errors import UsageError
from nucpro.models.config import POOLINGS, Readout
from nucpro.models.esm2 import Esm2
from nucpro.models.tokens import ESM_VOCABULARY, ResidueTokenizer

LENGTHS = (1, 2, 5, 30, 30, 77, 100)


@torch.inference_mode()
def states(esm: EsmModel, sequences: list[bytes]) -> list[list[np.ndarray]]:
    """For each layer, the hidden states of each sequence, as transformers computes them one by one."""
    found = []
    for sequence in sequences:
        tokens, _ = random_esm.packed([sequence])
        found.append(esm(tokens.long()[None], output_hidden_states=True).hidden_states)
    return [[one[layer][0].numpy() for one in found] for layer in range(len(found[0]))]


def pooled(state: np.ndarray, pooling: str) -> np.ndarray:
    if pooling == "cls":
        return state[0]
    return {"mean": np.mean, "max": np.max, "min": np.min, "std": np.std}[pooling](state[1:-1], axis=0)


def vectors(encoder: Esm2, sequences: list[bytes], readout: Readout, budget: int = 8_192) -> np.ndarray:
    names = [str(row) for row in range(len(sequences))]
    return embed(names, sequences, Embedder(encoder, budget, readout), ResidueTokenizer()).matrix


@pytest.mark.parametrize(
    ("layers", "poolings"),
    [
        ((0,), ("mean",)),
        ((1,), ("max",)),
        ((-1, 0), ("cls",)),
        ((3, 1, -4), POOLINGS),
        ((2,), ("std", "mean")),
    ],
)
def test_layers_and_poolings_are_those_of_transformers_and_numpy(
    layers: tuple[int, ...], poolings: tuple[str, ...]
) -> None:
    esm = random_esm.model()
    encoder = Esm2.from_huggingface(esm)
    sequences = random_esm.proteins(LENGTHS)
    of_layers = states(esm, sequences)
    expected = [
        np.concatenate([pooled(of_layers[layer][row], one) for layer in layers for one in poolings])
        for row in range(len(sequences))
    ]
    for budget in (1, 104, 8_192):
        found = vectors(encoder, sequences, Readout(layers, poolings), budget)
        np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-4)
    alone = [vectors(encoder, [one], Readout(layers, poolings))[0] for one in sequences]
    np.testing.assert_allclose(found, np.stack(alone), rtol=0, atol=1e-5)


def test_every_layer_of_real_weights_equals_transformers(real_data: Path) -> None:
    folder = real_data / "esm2_8m"
    esm = EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    sequences = [one.translate(None, b"XBUZO") for one in random_esm.proteins((30, 99, 166))]
    of_layers = states(esm, sequences)
    count = len(of_layers) - 1
    encoder = nucpro.load_encoder(folder, device="cpu", layer=list(range(count + 1)), pool=POOLINGS)
    found = encoder.embed([one.decode() for one in sequences]).matrix.reshape(3, count + 1, len(POOLINGS), -1)
    for layer in range(count + 1):
        for place, pooling in enumerate(POOLINGS):
            expected = np.stack([pooled(state, pooling) for state in of_layers[layer]])
            difference = np.abs(found[:, layer, place] - expected)
            assert difference.max() <= 1e-4 * max(1, np.abs(expected).max()), (
                layer,
                pooling,
                difference.max(),
            )


def test_nothing_above_the_highest_layer_is_computed() -> None:
    encoder = Esm2.from_huggingface(random_esm.model())
    expected = vectors(encoder, random_esm.proteins((9,)), Readout((1,)))
    for part in (*encoder.layers[1:], encoder.final_norm):
        for parameter in part.parameters():
            parameter.data.fill_(float("nan"))
    assert np.array_equal(vectors(encoder, random_esm.proteins((9,)), Readout((1,))), expected)


def test_the_command_writes_what_is_asked_for_and_says_it(tmp_path: Path) -> None:
    folder = random_esm.save(random_esm.model(), tmp_path / "model")
    proteins = [one.decode() for one in random_esm.proteins((9, 30))]
    (tmp_path / "x.fa").write_text("".join(f">p{row}\n{one}\n" for row, one in enumerate(proteins)))
    output = tmp_path / "x.npz"
    command = [
        "embed",
        str(tmp_path / "x.fa"),
        "-o",
        str(output),
        "--protein-model",
        str(folder),
        "--device",
        "cpu",
    ]
    assert main([*command, "--layer", "-1", "--layer", "1", "--pool", "max,cls"]) == 0
    found = nucpro.read_vectors(output)
    made_by = found.meta["made_by"]
    assert made_by["read_layers"] == [3, 1]
    assert made_by["pooling"] == "max of residues + first token"
    assert found.matrix.shape == (2, 4 * 64)
    same = nucpro.load_encoder(folder, device="cpu", layer=[3, -3], pool=["max", "cls"]).embed(proteins)
    assert np.array_equal(same, found)
    # The mean of the last layer is what it was, by whatever names.
    assert main([*command[:3], str(tmp_path / "a.npz"), *command[4:]]) == 0
    assert main([*command[:3], str(tmp_path / "b.npz"), *command[4:], "--layer", "3", "--pool", "mean"]) == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert "read_layers" not in json.dumps(dict(nucpro.read_vectors(tmp_path / "a.npz").meta))


def test_vectors_that_may_be_equal_are_no_error(model: Path) -> None:
    encoder = nucpro.load_encoder(model, device="cpu", layer=0, pool="cls")
    assert encoder.embed(["MK", "KMA"]).matrix.shape == (2, 16)
    assert not nucpro.load_encoder(model, device="cpu", pool="std").embed(["M"]).matrix.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, "--layer is 2; allowed: 0 .the embedding. to 1"),
        ({"layer": -3}, "--layer is -3"),
        ({"layer": [1, 1]}, "each once"),
        ({"pool": []}, "--pool is nothing"),
        ({"pool": "median"}, "--pool is median; allowed: mean, max, min, std, cls"),
    ],
)
def test_layers_and_poolings_that_are_not_there_are_refused(
    options: dict[str, object], message: str, model: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        nucpro.load_encoder(model, device="cpu", **options)


def test_the_vocabulary_of_the_reference_is_the_published_one() -> None:
    assert ResidueTokenizer().vocabulary == ESM_VOCABULARY
