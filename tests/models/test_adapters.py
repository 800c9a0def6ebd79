"""LoRA adapters of PEFT: merged as the formula says, told apart in ``meta``, refused where they are more."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import nucpro
from nucpro.cli import main
from nucpro.errors import ModelError
from random_esm import encoder_of, vectors_of

RANK = 4
ALPHA = 10
PARTS = ("attention.self.query", "attention.self.value", "output.dense")


def make_adapter(
    folder: Path,
    base: Path,
    *,
    prefix: str = "esm.",
    more: dict[str, torch.Tensor] | None = None,
    **config: Any,
) -> Path:
    """A folder as ``PeftModel.save_pretrained`` writes it for ``EsmForSequenceClassification``."""
    weights = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    tensors = {"base_model.model.classifier.dense.weight": torch.full((2, 2), float("nan"))}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if module.endswith(PARTS) and name.endswith(".weight"):
            rows, columns = weight.shape
            for letter, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
                values = torch.randn(shape, generator=generator) * 0.1
                tensors[f"base_model.model.{prefix}{module}.lora_{letter}.weight"] = values
    folder.mkdir()
    save_file(tensors | (more or {}), folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "bias": "none",
        "modules_to_save": ["classifier", "score"],
        "init_lora_weights": True,
        "use_dora": False,
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def merge(folder: Path, base: Path, adapter: Path, scale: Callable[[str], float]) -> Path:
    """The base model with the adapter merged by the formula."""
    shutil.copytree(base, folder)
    weights, deltas = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for name in weights:
        module = name.removesuffix(".weight")
        down, up = (
            next((deltas[key] for key in deltas if key.endswith(f"{module}.lora_{letter}.weight")), None)
            for letter in "AB"
        )
        if down is not None and up is not None and module.startswith("encoder."):
            weights[name] = weights[name] + scale(module) * (up @ down)
    save_file(weights, folder / "model.safetensors")
    return folder


SCALES: dict[str, tuple[dict[str, Any], Callable[[str], float]]] = {
    "plain": ({}, lambda _: ALPHA / RANK),
    "rank stabilised": ({"use_rslora": True}, lambda _: ALPHA / math.sqrt(RANK)),
    "alpha of a module": (
        {"alpha_pattern": {"self.value": 3}},
        lambda module: (3 if module.endswith("self.value") else ALPHA) / RANK,
    ),
}


@pytest.mark.parametrize("prefix", ["esm.", ""])
@pytest.mark.parametrize("case", SCALES)
def test_an_adapter_is_merged_as_the_formula_says(
    case: str, prefix: str, tmp_path: Path, model: Path
) -> None:
    config, scale = SCALES[case]
    adapter = make_adapter(tmp_path / "lora", model, prefix=prefix, **config)
    expected = vectors_of(merge(tmp_path / "merged", model, adapter, scale))
    assert np.array_equal(vectors_of(adapter), expected)
    assert not np.allclose(vectors_of(model), expected, atol=1e-3)


def test_real_weights_with_an_adapter(tmp_path: Path, real_data: Path) -> None:
    base = real_data / "esm2_8m"
    adapter = make_adapter(tmp_path / "lora", base)
    merged = merge(tmp_path / "merged", base, adapter, lambda _: ALPHA / RANK)
    assert np.array_equal(vectors_of(adapter), vectors_of(merged))


def test_an_adapter_is_merged_into_the_model_that_is_named(tmp_path: Path, model: Path) -> None:
    adapter = make_adapter(tmp_path / "lora", model)
    elsewhere = shutil.copytree(model, tmp_path / "elsewhere")
    (tmp_path / "x.fa").write_text(">a\nMKVLA\n>b\nMSTNPKPQRK\n")
    expected = nucpro.load_encoder(adapter, device="cpu").embed(tmp_path / "x.fa")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    config = adapter / "adapter_config.json"
    for base in ("/nowhere", None):
        config.write_text(json.dumps(settings | {"base_model_name_or_path": base}))
        found = nucpro.load_encoder(elsewhere, adapter=adapter, device="cpu").embed(tmp_path / "x.fa")
        assert np.array_equal(found, expected)
        assert found.meta["made_by"]["id"] == "elsewhere"
        assert found.meta["made_by"]["adapter"] == "lora"
    output = tmp_path / "x.npz"
    command = [
        "embed",
        str(tmp_path / "x.fa"),
        "-o",
        str(output),
        "--device",
        "cpu",
        "--adapter",
        str(adapter),
    ]
    assert main([*command, "--protein-model", str(elsewhere)]) == 0
    assert nucpro.read_vectors(output).meta == {**found.meta, "command": "embed"}
    assert np.array_equal(nucpro.read_vectors(output), expected)
    # Without a model that is named, the adapter's own base is taken, and never the default.
    config.write_text(json.dumps(settings))
    for encoder in (
        nucpro.load_encoder(adapter=adapter, device="cpu"),
        nucpro.load_encoder(adapter, device="cpu"),
    ):
        assert np.array_equal(encoder.embed(tmp_path / "x.fa"), expected)
    output.unlink()
    assert main(command) == 0
    assert np.array_equal(nucpro.read_vectors(output), expected)
    assert nucpro.read_vectors(output).meta["made_by"]["id"] == model.name


def test_what_is_no_adapter_is_refused_where_one_is_named(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_adapter(tmp_path / "lora", model)
    for wrong in (model, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match=r"holds no LoRA adapter \(adapter_config\.json is missing"):
            nucpro.load_encoder(model, adapter=wrong, device="cpu")
    with pytest.raises(ModelError, match="is an adapter too"):
        nucpro.load_encoder(adapter, adapter=adapter, device="cpu")
    (tmp_path / "x.fa").write_text(">a\nMKVLA\n")
    command = ["embed", str(tmp_path / "x.fa"), "-o", str(tmp_path / "x.npz"), "--device", "cpu"]
    assert main([*command, "--protein-model", str(model), "--adapter", str(tmp_path / "nowhere")]) == 3
    assert "holds no LoRA adapter" in capsys.readouterr().err


def test_meta_shows_base_and_adapter(tmp_path: Path, model: Path) -> None:
    alone = encoder_of(model).recipe
    adapted = encoder_of(make_adapter(tmp_path / "lora", model)).recipe
    assert {name: adapted.made_by[name] for name in alone.made_by} == dict(alone.made_by)
    assert adapted.made_by["adapter"] == "lora"
    # The scale is in the configuration, and changes vectors as much as the matrices do.
    others = [
        encoder_of(make_adapter(tmp_path / "alpha", model, lora_alpha=11)).recipe,
        encoder_of(make_adapter(tmp_path / "scale", model, use_rslora=True)).recipe,
    ]
    copied = encoder_of(shutil.copytree(tmp_path / "lora", tmp_path / "renamed")).recipe
    assert copied.key == adapted.key
    assert len({alone.key, adapted.key, *(recipe.key for recipe in others)}) == 4


def test_an_adapter_is_identified_without_torch(tmp_path: Path, model: Path) -> None:
    folder = make_adapter(tmp_path / "lora", model)
    code = "import sys; from nucpro.models.weights import locate; locate(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True
    )
    assert done.stdout == "False\n"


def test_a_base_model_may_be_beside_the_configuration(tmp_path: Path, model: Path) -> None:
    adapter = make_adapter(tmp_path / "lora", model, base_model_name_or_path="../base")
    shutil.copytree(model, tmp_path / "base")
    assert np.array_equal(vectors_of(adapter), vectors_of(make_adapter(tmp_path / "same", model)))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, r"use_dora is True, and only plain LoRA"),
    "another kind": ({"peft_type": "IA3"}, r"peft_type is 'IA3'"),
    "biases": ({"bias": "lora_only"}, r"bias is 'lora_only'"),
    "transposed": ({"fan_in_fan_out": True}, r"fan_in_fan_out is True"),
    "other base weights": ({"init_lora_weights": "pissa_niter_4"}, r"init_lora_weights is 'pissa_niter_4'"),
    "no base": ({"base_model_name_or_path": None}, r"base_model_name_or_path is None"),
    "a base that is gone": ({"base_model_name_or_path": "/no/folder/x"}, r"its base model cannot be found"),
    "alpha in words": ({"lora_alpha": "8"}, r"lora_alpha or alpha_pattern holds '': '8'"),
    "alpha in many digits": ({"lora_alpha": 10**400}, r"lora_alpha or alpha_pattern holds '': 1000"),
    "no patterns": ({"alpha_pattern": [3]}, r"alpha_pattern holds 'alpha_pattern': '\[3\]'"),
    "a base in nobody's home": (
        {"base_model_name_or_path": "~nobody-here/x"},
        "its base model cannot be found",
    ),
    "a base that no file system takes": (
        {"base_model_name_or_path": "x/" + "y" * 999},
        "its base model cannot be found",
    ),
    "a pattern": ({"alpha_pattern": {"layer.[01].*": 3}}, r"alpha_pattern holds 'layer\.\[01\]\.\*'"),
}
QUERY = "base_model.model.esm.encoder.layer.0.attention.self.query"
REFUSED_TENSORS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "a saved module": (
        {"base_model.model.esm.encoder.layer.0.LayerNorm.weight": torch.ones(16)},
        "the adapter holds",
    ),
    "magnitudes": (
        {f"{QUERY}.lora_magnitude_vector": torch.ones(16)},
        "lora_magnitude_vector, and only plain",
    ),
    "an embedding": (
        {"base_model.model.esm.embeddings.word_embeddings.lora_embedding_A": torch.ones(4, 33)},
        "lora_embedding_A, and only plain",
    ),
    "one of two": ({f"{QUERY}x.lora_A.weight": torch.ones(4, 16)}, r"queryx\.lora_A\.weight, and only plain"),
    "no such module": (
        {f"{QUERY}x.lora_{letter}.weight": torch.ones(4, 4) for letter in "AB"},
        "queryx, which the base model lacks",
    ),
    "another width": ({f"{QUERY}.lora_A.weight": torch.ones(RANK, 32)}, r"lora_A \(4, 32\), but the base"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_plain_lora_is_refused(case: str, tmp_path: Path, model: Path) -> None:
    config, told = REFUSED[case]
    with pytest.raises(ModelError, match=told) as caught:
        encoder_of(make_adapter(tmp_path / "lora", model, **config))
    assert str(caught.value).startswith(str(tmp_path / "lora" / "adapter_config.json"))


@pytest.mark.parametrize("case", REFUSED_TENSORS)
def test_tensors_that_are_not_plain_lora_are_refused(case: str, tmp_path: Path, model: Path) -> None:
    more, told = REFUSED_TENSORS[case]
    with pytest.raises(ModelError, match=told):
        encoder_of(make_adapter(tmp_path / "lora", model, more=more))


def test_a_folder_of_both_is_refused(tmp_path: Path, model: Path) -> None:
    adapter = make_adapter(tmp_path / "lora", model)
    shutil.copy(model / "model.safetensors", adapter)
    with pytest.raises(ModelError, match=r"holds a model .* and an adapter"):
        encoder_of(adapter)


def test_an_adapter_of_an_adapter_is_refused(tmp_path: Path, model: Path) -> None:
    first = make_adapter(tmp_path / "first", model)
    second = make_adapter(tmp_path / "second", model, base_model_name_or_path=str(first))
    with pytest.raises(ModelError, match="is an adapter too"):
        encoder_of(second)


def test_a_folder_without_the_weights_of_its_adapter_is_named(tmp_path: Path, model: Path) -> None:
    adapter = make_adapter(tmp_path / "lora", model)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        encoder_of(adapter)
