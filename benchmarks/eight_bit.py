"""What eight bits cost in accuracy: products of ESM-2 with rounded inputs and weights, beside float32.

    python benchmarks/eight_bit.py --real-data FOLDER --json OUT.json [--tiny]

Rounds the inputs and weights of chosen products to FP8 (e4m3) or to 8-bit integers, with one scale a row of each,
and computes in float32: the error that any kernel with these formats has, whatever its speed. FOLDER holds the
published 8M weights (``esm2_8m``) and annotated genomes (``refseq_mini``); sequences are windows of 100 residues of
the annotated proteins, every 10 residues. A random model of the 650M shape stands beside it on a GPU.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gb_io
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from nucpro.embedding import Embedder, embed
from nucpro.models.architectures import use_kernels
from nucpro.models.esm2 import Esm2, load_esm2
from nucpro.models.tokens import ResidueTokenizer
from nucpro.models.weights import locate

QKV, OUT, IN, BACK = "query_key_value", "attention_out", "feed_forward_in", "feed_forward_out"
WINDOW, STEP = 100, 10
Rounding = Callable[[torch.Tensor], torch.Tensor]


def fp8(rows: torch.Tensor) -> torch.Tensor:
    scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 448
    return (rows / scale).to(torch.float8_e4m3fn).to(rows.dtype) * scale


def int8(rows: torch.Tensor) -> torch.Tensor:
    scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return (rows / scale).round() * scale


def exact(rows: torch.Tensor) -> torch.Tensor:
    return rows


@dataclass(frozen=True)
class Format:
    """How a product is rounded; ``rotation`` columns at a time are mixed by a Hadamard matrix before."""

    inputs: Rounding
    weights: Rounding
    rotation: int = 1


FP8, INT8, INT8_ROTATED = Format(fp8, fp8), Format(int8, int8), Format(int8, int8, 64)
ALL = (QKV, OUT, IN, BACK)
MOST = (QKV, IN, BACK)
MIXTURES: dict[str, dict[str, Format]] = {
    "fp8: all": dict.fromkeys(ALL, FP8),
    "fp8: all but attention output": dict.fromkeys(MOST, FP8),
    "fp8: feed-forward": {IN: FP8, BACK: FP8},
    **{f"fp8: {name}": {name: FP8} for name in ALL},
    "fp8: all but attention output, weights only": dict.fromkeys(MOST, Format(exact, fp8)),
    "fp8: all but attention output, inputs only": dict.fromkeys(MOST, Format(fp8, exact)),
    "int8: all but attention output": dict.fromkeys(MOST, INT8),
    "int8: all, rotated": dict.fromkeys(ALL, INT8_ROTATED),
    "int8: all but attention output, rotated": dict.fromkeys(MOST, INT8_ROTATED),
    "int8: query_key_value and feed_forward_in, rotated": dict.fromkeys((QKV, IN), INT8_ROTATED),
    "int8: the same, and fp8: feed_forward_out": {QKV: INT8_ROTATED, IN: INT8_ROTATED, BACK: FP8},
}


def hadamard(size: int) -> torch.Tensor:
    """Orthogonal matrix of equal absolute values; size is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix / math.sqrt(size)


class RoundedLinear(nn.Module):
    """A linear layer whose inputs and weights are rounded, computed in float32."""

    def __init__(self, linear: nn.Linear, kind: Format) -> None:
        super().__init__()
        self.kind = kind
        self.rotation = hadamard(kind.rotation).to(linear.weight)
        self.weight = kind.weights(self.rotated(linear.weight.data))
        self.bias = linear.bias.data

    def rotated(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.view(len(rows), -1, self.kind.rotation) @ self.rotation).reshape(len(rows), -1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return F.linear(self.kind.inputs(self.rotated(rows)), self.weight, self.bias)


def rounded(model: Esm2, mixture: dict[str, Format], layers: Iterable[int] | None = None) -> Esm2:
    for number in layers if layers is not None else range(len(model.layers)):
        for name, kind in mixture.items():
            setattr(model.layers[number], name, RoundedLinear(getattr(model.layers[number], name), kind))
    return model


def proteins(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.gbff.gz")):
        with gzip.open(path, "rb") as stream:
            for record in gb_io.iter(stream):
                for feature in record.features:
                    for qualifier in feature.qualifiers if feature.kind == "CDS" else ():
                        if qualifier.key == "translation":
                            yield "".join(qualifier.value.split())


def windows(folder: Path, step: int) -> list[str]:
    cut = (p[i : i + WINDOW] for p in proteins(folder) for i in range(0, len(p) - WINDOW + 1, step))
    return list(dict.fromkeys(cut))


def vectors(model: Esm2, sequences: Sequence[str]) -> torch.Tensor:
    use_kernels(model)
    names = [str(number) for number in range(len(sequences))]
    letters = [sequence.encode() for sequence in sequences]
    made = embed(names, letters, Embedder(model, 32_768), ResidueTokenizer())
    return torch.from_numpy(made.matrix).to(model.device)


def nearest(rows: torch.Tensor) -> torch.Tensor:
    """Row number of the nearest other row, by Euclidean distance."""
    squares = (rows * rows).sum(1)
    found = []
    for start in range(0, len(rows), 2_000):
        part = rows[start : start + 2_000]
        distances = squares - 2 * part @ rows.T
        distances[torch.arange(len(part)), torch.arange(start, start + len(part))] = torch.inf
        found.append(distances.argmin(1))
    return torch.cat(found)


def agreement(made: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    cosines = torch.cosine_similarity(made.double(), truth.double())
    centred = truth - truth.mean(0)
    error = made - made.mean(0) - centred
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_1st_percentile": float(cosines.quantile(0.01)),
        "cosine_worst": float(cosines.min()),
        "nearest_neighbour_agreement": float((nearest(made) == nearest(truth)).float().mean()),
        "error_beside_deviation_from_the_mean": float(error.norm() / centred.norm()),
    }


def compare(
    make: Callable[[torch.dtype], Esm2], sequences: list[str], halves: bool
) -> dict[str, dict[str, float]]:
    truth = vectors(make(torch.float32), sequences)
    report = {}
    for dtype in (torch.float16, torch.bfloat16) if halves else ():
        report[str(dtype)] = agreement(vectors(make(dtype), sequences), truth)
    for name, mixture in MIXTURES.items():
        report[name] = agreement(vectors(rounded(make(torch.float32), mixture), sequences), truth)
        print(f"{name:60s}", *(f"{value:.5f}" for value in report[name].values()), flush=True)
    return report


def random_model(*, tiny: bool) -> transformers.EsmModel:
    shape = (64, 2, 4, 256) if tiny else (1280, 33, 20, 5120)
    sizes = dict(
        zip(
            ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            shape,
            strict=True,
        )
    )
    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=33,
        position_embedding_type="rotary",
        token_dropout=True,
        mask_token_id=32,
        pad_token_id=1,
        **sizes,
    )
    return transformers.EsmModel(config, add_pooling_layer=False).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real-data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument(
        "--tiny", action="store_true", help="200 sequences and a small random model: to try the script"
    )
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files = locate(str(arguments.real_data / "esm2_8m"))
    sequences = windows(arguments.real_data / "refseq_mini", STEP)[: 200 if arguments.tiny else None]
    peer = random_model(tiny=arguments.tiny)
    result = {
        "machine": {
            "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
            "platform": platform.platform(),
            "torch": torch.__version__,
        },
        "sequences": len(sequences),
        "published 8M weights": compare(
            lambda dtype: load_esm2(files, device=device, dtype=dtype), sequences, device.type == "cuda"
        ),
        "random weights of the 650M shape, every 40th sequence": compare(
            lambda dtype: Esm2.from_huggingface(peer, device=device, dtype=dtype),
            sequences[::40],
            device.type == "cuda",
        ),
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
