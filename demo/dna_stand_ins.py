"""An UNTRAINED nucleotide model in the layout of DNABERT-S, for the demo and the tests.

Weights are seeded random numbers. The tokenizer is trained, but on a handful of genomes only: its tokens are
not those of the published model. Equal arguments give equal files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from stand_ins import SEED

SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
"""In the order of their ids, as in DNABERT-S."""
PADDED_TO = 2000
"""Truncation and padding that a published tokenizer carries, and that must not be obeyed."""


def train_tokenizer(folder: Path, sequences: Iterable[str], *, vocabulary_size: int = 256) -> Path:
    """Write a ``tokenizer.json``: byte-pair encoding learnt from upper-case sequences, as DNABERT-S has it."""
    tokenizer = Tokenizer(BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=list("ACGT"),
        limit_alphabet=4,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sequences, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(PADDED_TO)
    tokenizer.enable_padding(pad_id=3, pad_token="[PAD]", length=PADDED_TO)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def make_dna_checkpoint(
    folder: Path,
    *,
    width: int = 768,
    layers: int = 2,
    heads: int = 12,
    feed_forward_width: int = 768,
    vocabulary_size: int = 4096,
) -> Path:
    """Write an UNTRAINED MosaicBERT: ``config.json`` and ``model.safetensors`` with seeded weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": vocabulary_size,
        "type_vocab_size": 2,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward_width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "alibi_starting_size": 512,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 512,
        "position_embedding_type": "absolute",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    shapes = _shapes(width, layers, feed_forward_width, vocabulary_size)
    save_file(_weights(shapes), str(folder / "model.safetensors"))
    return folder


def _shapes(width: int, layers: int, feed_forward: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, by its name in published checkpoints."""
    products = {
        "attention.self.Wqkv": (3 * width, width),
        "attention.output.dense": (width, width),
        "mlp.gated_layers": (2 * feed_forward, width),
        "mlp.wo": (width, feed_forward),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.mlp.layernorm"]
        for name, shape in products.items():
            shapes[f"{prefix}.{name}.weight"] = shape
            if name != "mlp.gated_layers":
                shapes[f"{prefix}.{name}.bias"] = shape[:1]
    return shapes | {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}


def _weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Products keep the size of what goes in; norms and biases are near one and zero, but not trivial."""
    generator = torch.Generator().manual_seed(SEED)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 2:
            tensors[name] = noise / (1.0 if "embeddings" in name else shape[1] ** 0.5)
        else:
            tensors[name] = noise / 10 + (1.0 if name.lower().endswith("layernorm.weight") else 0.0)
    return tensors
