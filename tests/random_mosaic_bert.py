"""MosaicBERT models with random weights, tokens of real genomes, and a plain float64 reference."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import dna_stand_ins
from nucpro.formats.fasta import read
from nucpro.models.dna_tokens import DnaTokenizer

GENOMES = Path(__file__).resolve().parent.parent / "demo" / "genomes"
VOCABULARY_SIZE = 96
SHAPE = {"width": 48, "layers": 2, "heads": 12, "feed_forward_width": 80, "vocabulary_size": VOCABULARY_SIZE}
SLOPES = {
    1: [8],
    2: [4, 8],
    3: [4, 8, 2],
    8: [1, 2, 3, 4, 5, 6, 7, 8],
    12: [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5],
    16: [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8],
}
"""The slope of each head is 2 to minus this, by number of heads."""


def chunks(count: int, length: int = 300, source: str = "viral.1.1") -> list[bytes]:
    """The first stretches of a genome of the demo that have this length."""
    whole = b"".join(read(GENOMES / f"{source}.genomic.fna.gz").sequences)
    return [whole[start : start + length] for start in range(0, count * length, length)]


def checkpoint(folder: Path, **changes: int) -> Path:
    """Folder with an untrained model and a tokenizer of the demo's genomes, in the layout of DNABERT-S."""
    dna_stand_ins.make_dna_checkpoint(folder, **(SHAPE | changes))
    texts = [chunk.decode() for chunk in chunks(100)]
    dna_stand_ins.train_tokenizer(folder, texts, vocabulary_size=VOCABULARY_SIZE)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a checkpoint, given as a dictionary that is edited in place."""
    content = tensors(folder)
    change(content)
    save_file(content, folder / "model.safetensors")


def packed(tokenizer: DnaTokenizer, sequences: Sequence[bytes]) -> tuple[torch.Tensor, list[int]]:
    """Token ids and lengths, in the order given."""
    encoded = tokenizer.encode([str(row) for row in range(len(sequences))], sequences, 10**6)
    return torch.from_numpy(encoded.tokens), encoded.lengths.tolist()


def random_tokens(lengths: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Random ids of packed sequences of these lengths."""
    draw = random.Random(seed)
    return torch.tensor([draw.randrange(VOCABULARY_SIZE) for _ in range(sum(lengths))], dtype=torch.int32)


def reference(folder: Path, tokens: torch.Tensor, lengths: Sequence[int], heads: int = 12) -> torch.Tensor:
    """Hidden states in float64, written from the description of the architecture, one sequence at a time."""
    weights = {name: tensor.double() for name, tensor in tensors(folder).items()}
    return torch.cat([_encode(weights, ids.long(), heads) for ids in tokens.split(list(lengths))])


def _encode(weights: dict[str, torch.Tensor], ids: torch.Tensor, heads: int) -> torch.Tensor:
    hidden = weights["embeddings.word_embeddings.weight"][ids]
    hidden = hidden + weights["embeddings.token_type_embeddings.weight"][0]
    hidden = _norm(weights, "embeddings.LayerNorm", hidden)
    layers = sum(name.endswith("Wqkv.weight") for name in weights)
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        mixed = _linear(weights, f"{prefix}.attention.self.Wqkv", hidden)
        context = _linear(weights, f"{prefix}.attention.output.dense", attention(mixed, heads))
        hidden = _norm(weights, f"{prefix}.attention.output.LayerNorm", hidden + context)
        inner = hidden @ weights[f"{prefix}.mlp.gated_layers.weight"].T
        first, second = inner[:, : inner.shape[1] // 2], inner[:, inner.shape[1] // 2 :]
        gated = first * (1 + torch.erf(first / math.sqrt(2))) / 2 * second
        hidden = _norm(
            weights, f"{prefix}.mlp.layernorm", hidden + _linear(weights, f"{prefix}.mlp.wo", gated)
        )
    return hidden


def attention(mixed: torch.Tensor, heads: int) -> torch.Tensor:
    """Full score matrices, head by head."""
    queries, keys, values = mixed.split(mixed.shape[1] // 3, dim=1)
    width = queries.shape[1] // heads
    positions = torch.arange(len(mixed), dtype=torch.float64)
    distances = (positions[:, None] - positions[None, :]).abs()
    outputs = []
    for head, exponent in enumerate(SLOPES[heads]):
        part = slice(head * width, (head + 1) * width)
        scores = queries[:, part] @ keys[:, part].T / math.sqrt(width) - 2.0**-exponent * distances
        shares = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
        outputs.append(shares / shares.sum(dim=1, keepdim=True) @ values[:, part])
    return torch.cat(outputs, dim=1)


def _linear(weights: dict[str, torch.Tensor], name: str, inputs: torch.Tensor) -> torch.Tensor:
    return inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: dict[str, torch.Tensor], name: str, inputs: torch.Tensor) -> torch.Tensor:
    centred = inputs - inputs.mean(dim=1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(dim=1, keepdim=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
