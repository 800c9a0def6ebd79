"""What the demo (and the tests) use in place of things that cannot ship: untrained weights and vectors.

Everything here is seeded and deterministic, and is written in the layouts of the real things: checkpoints
as on the Hugging Face hub, old VirNucPro files as its scripts wrote them with ``torch.save``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

SEED = 7
OLD_PROTEIN_WIDTH = 2560
"""Width of ESM-2 3B, which data folders from before the move to FastESM2_650 hold."""


def make_checkpoint(
    folder: Path, *, width: int = 1280, layers: int = 2, heads: int = 20, feed_forward: int | None = None
) -> Path:
    """Write an UNTRAINED ESM-2 checkpoint: ``config.json`` and ``model.safetensors`` with seeded weights."""
    folder.mkdir(parents=True, exist_ok=True)
    feed_forward = feed_forward or width // 2
    config = {
        "model_type": "esm",
        "architectures": ["EsmModel"],
        "vocab_size": 33,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        "max_position_embeddings": 1026,
        "position_embedding_type": "rotary",
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "pad_token_id": 1,
        "mask_token_id": 32,
        "emb_layer_norm_before": False,
        "token_dropout": True,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(_weights(width, layers, feed_forward), str(folder / "model.safetensors"))
    return folder


def _weights(width: int, layers: int, feed_forward: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    tensors: dict[str, torch.Tensor] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        tensors[name] = torch.randn(rows, columns, generator=generator) / columns**0.5

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(f"{name}.weight", rows, columns)
        tensors[f"{name}.bias"] = torch.randn(rows, generator=generator) / 10

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = 1 + torch.randn(width, generator=generator) / 10
        tensors[f"{name}.bias"] = torch.randn(width, generator=generator) / 10

    matrix("embeddings.word_embeddings.weight", 33, width)
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        norm(f"{prefix}.attention.LayerNorm")
        for part in ("query", "key", "value"):
            linear(f"{prefix}.attention.self.{part}", width, width)
        linear(f"{prefix}.attention.output.dense", width, width)
        norm(f"{prefix}.LayerNorm")
        linear(f"{prefix}.intermediate.dense", feed_forward, width)
        linear(f"{prefix}.output.dense", width, feed_forward)
    norm("encoder.emb_layer_norm_after")
    return tensors


def write_dna_stand_in(path: Path, ids: Sequence[str]) -> None:
    """Write a ``_DNABERT_S.pt`` file of STAND-IN vectors as VirNucPro wrote them: rows are lists of floats."""
    rows = [{"label": name, "mean_representation": _floats(f"{path.name} {name}", 768)} for name in ids]
    torch.save({"nucleotide": list(ids), "data": rows}, path)


def write_old_protein(path: Path, ids: Sequence[str], width: int = OLD_PROTEIN_WIDTH) -> None:
    """Write an ``_ESM.pt`` file as VirNucPro wrote them: one storage a vector, no ``meta``."""
    rows = [torch.tensor(_floats(name, width)) for name in ids]
    torch.save({"proteins": list(ids), "data": rows}, path)


def write_old_merged(
    path: Path, ids: Sequence[str], label: int, width: int = 768 + OLD_PROTEIN_WIDTH
) -> None:
    """Write a ``_merged.pt`` file as VirNucPro wrote them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = torch.tensor([_floats(name, width) for name in ids])
    torch.save({"ids": list(ids), "data": data, "labels": [label]}, path)


def _floats(seed: str, count: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(0.0, 1.0) for _ in range(count)]
