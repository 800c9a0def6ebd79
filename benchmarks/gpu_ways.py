"""The ways in which an encoder can compute on one GPU, in turns: plain, kernels around cuBLAS products, Hopper product.

    python benchmarks/gpu_ways.py --output benchmarks/results/gpu_ways_h100.json
    TRITON_INTERPRET=1 python benchmarks/gpu_ways.py --tiny      # proves the script on any machine in a minute

Shapes are those of ESM-2 650M and DNABERT-S with random weights, in fp16. Every way is first compared with the plain
forward in float32, in fp16 and bf16. Then rounds of all ways take turns, and medians are reported. Two rows stand
beside ours: the matrix products of all layers alone, and our forward with ``torch.nn.attention.varlen.varlen_attn``
(torch 2.10 and newer) in place of our attention. The ways that the GPU cannot run are left out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from gpu_extract import device_here, hardware, kernel_times, medians, parser_of, show, write

from nucpro.inspection.speed import DNABERT_S, ESM2_650M
from nucpro.models import architectures, fused, kernels, mosaic_bert_fused
from nucpro.models.encoder import Forward, PackedEncoder
from nucpro.models.esm2 import Esm2
from nucpro.models.kernels.product import Blocks
from nucpro.models.mosaic_bert import MosaicBert
from nucpro.models.tensors import pool_states

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None

Work = dict[str, list[int]]
NATURAL = math.log2(math.e) ** 2
"""Head width whose root turns the scale of queries into 1, so that scores are none of base 2."""


# ---------------------------------------------------------------------------------------------- work


def proteins(tokens: int) -> Work:
    """Tokens of each sequence of a batch."""
    draw, mixed = random.Random(0), []
    while sum(mixed) < tokens - 1_026:
        mixed.append(2 + min(1_024, max(30, round(draw.lognormvariate(5.6, 0.7)))))
    return {
        "100 residues": [102] * (tokens // 102),
        "166 residues": [168] * (tokens // 168),
        "proteome, 30 to 1,024 residues": sorted(mixed, reverse=True) or [3],
    }


def stretches(tokens: int) -> Work:
    """Tokens of DNA of 300 and 500 bases in the mean, and where they scatter as those of real chunks do."""
    draw = random.Random(0)
    scattered = [draw.randint(46, 76) for _ in range(tokens // 61)]
    return {
        "300 bases (63 tokens)": [63] * (tokens // 63),
        "500 bases (105 tokens)": [105] * (tokens // 105),
        "300 bases (46 to 76 tokens)": sorted(scattered, reverse=True),
    }


# ---------------------------------------------------------------------------------------------- ways


def ways_of(model: PackedEncoder, device: torch.device, blocks: Blocks | None) -> dict[str, Forward]:
    """All forwards of an encoder that this device can run; ``blocks`` are those of the Hopper product."""
    if isinstance(model, MosaicBert):
        # PyTorch's attention over packed sequences knows no linear biases.
        return {"plain": model.encode, "cublas": mosaic_bert_fused.FusedMosaicBert(model)}
    around_cublas = fused.FusedEsm2(model, None)
    ways: dict[str, Forward] = {"plain": model.encode, "cublas": around_cublas}
    if blocks is not None:
        ways["hopper"] = fused.FusedEsm2(model, blocks)
    if varlen_attn is not None and device.type == "cuda":
        for name, some in {"cublas": None, "hopper": blocks}.items():
            if name in ways:
                ways |= {f"{name}, varlen_attn": varlen_forward(fused.FusedEsm2(model, some))}
    return ways


def varlen_forward(forward: fused.FusedEsm2) -> Forward:
    """The same forward with PyTorch's attention over packed sequences."""
    forward._heads = replace(forward._heads, width=NATURAL)

    def run(tokens_t: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        ends = torch.tensor([0, *lengths]).cumsum(0).to(device=tokens_t.device, dtype=torch.int32)

        def attend(mixed_tx: torch.Tensor, _tiles: torch.Tensor, heads: int) -> torch.Tensor:
            query, key, value = mixed_tx.view(len(mixed_tx), 3, heads, -1).unbind(1)
            longest = max(lengths)
            return varlen_attn(query, key, value, ends, ends, longest, longest).flatten(1)

        with replaced(attend):
            return forward(tokens_t, lengths)

    return run


@contextmanager
def replaced(attend: Callable[..., torch.Tensor]):
    ours, fused.attend = fused.attend, attend
    try:
        yield
    finally:
        fused.attend = ours


def products_of(model: PackedEncoder, tokens: int) -> Callable[[], None]:
    """All matrix products of a batch, and nothing else."""
    linears = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    widths = {linear.in_features for linear in linears}
    inputs = {width: torch.randn(tokens, width, device=model.device, dtype=model.dtype) for width in widths}

    def run() -> None:
        for linear in linears:
            F.linear(inputs[linear.in_features], linear.weight, linear.bias)

    return run


# ---------------------------------------------------------------------------------------------- measurements


@torch.inference_mode()
def accuracy(
    make: Callable[[torch.dtype], PackedEncoder], device: torch.device, blocks: Blocks | None
) -> dict:
    """Every way against the plain forward in float32."""
    lengths = [1_026, 302, 168, 102, 102, 64, 65, 32, 3] if device.type == "cuda" else [65, 33, 3]
    exact = make(torch.float32)
    tokens_t = random_tokens(exact, sum(lengths))
    truth = exact.encode(tokens_t, lengths)
    truth_nd = pool_states(truth, lengths, exact.config.pooled_span)
    report = {}
    for dtype in (torch.float16, torch.bfloat16):
        # On a CPU, a model in bfloat16 is not one that kernels take.
        if device.type == "cpu" and dtype == torch.bfloat16:
            continue
        for name, way in ways_of(make(dtype), device, blocks).items():
            hidden = way(tokens_t, lengths).float()
            cosines = torch.cosine_similarity(
                pool_states(hidden, lengths, exact.config.pooled_span), truth_nd
            )
            report[f"{name}, {str(dtype).removeprefix('torch.')}"] = {
                "relative_error_of_hidden_states": float((hidden - truth).norm() / truth.norm()),
                "pooled_cosine_mean": float(cosines.mean()),
                "pooled_cosine_worst": float(cosines.min()),
                "equal_bytes_twice": bool(torch.equal(hidden, way(tokens_t, lengths).float())),
            }
    return report


@torch.inference_mode()
def speed(model: PackedEncoder, work: Work, device: torch.device, blocks: Blocks | None, rounds: int) -> dict:
    report = {}
    for name, lengths in work.items():
        tokens_t = random_tokens(model, sum(lengths))
        runs = {
            way: lambda forward=forward, tokens=tokens_t, lengths=lengths: forward(tokens, lengths)
            for way, forward in ways_of(model, device, blocks).items()
        }
        times = medians(runs | {"bare products": products_of(model, sum(lengths))}, rounds, device)
        report[name] = {"tokens": sum(lengths), "sequences": len(lengths)}
        report[name] |= {f"{way}, ms": taken * 1e3 for way, taken in times.items()}
        report[name] |= {f"{way}, sequences/s": len(lengths) / times[way] for way in runs}
        report[name]["cublas beside plain"] = times["plain"] / times["cublas"]
        if "hopper" in times:
            report[name]["cublas beside hopper"] = times["hopper"] / times["cublas"]
    return report


@torch.inference_mode()
def profile(model: PackedEncoder, lengths: list[int], device: torch.device) -> dict[str, float]:
    """Milliseconds of each kernel of a batch by the way around cuBLAS products."""
    if device.type != "cuda":
        return {}
    forward, tokens_t = ways_of(model, device, None)["cublas"], random_tokens(model, sum(lengths))
    return kernel_times(lambda: forward(tokens_t, lengths))


def random_tokens(model: PackedEncoder, count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(5, model.config.vocabulary_size - 1, (count,), generator=draw).to(model.device)


def main() -> None:
    arguments, device = parser_of(__doc__).parse_args(), device_here()
    tokens, rounds, blocks = (170, 1, Blocks(32, 128, 32, 2)) if arguments.tiny else (65_536, 9, None)
    esm, dna = ESM2_650M, DNABERT_S
    if arguments.tiny:
        esm = replace(esm, width=64, layers=2, heads=4, feed_forward_width=128)
        dna = replace(dna, width=64, layers=2, heads=4, feed_forward_width=128)
    elif architectures.way_of(esm, device, torch.float16).way is kernels.Way.HOPPER:
        blocks = Blocks.of_device(device)
    results = {"hardware": hardware(device)}
    for title, kind, config, work in (
        ("ESM-2 650M", Esm2, esm, proteins(tokens)),
        ("DNABERT-S", MosaicBert, dna, stretches(tokens)),
    ):

        def make(dtype: torch.dtype, kind=kind, config=config) -> PackedEncoder:
            torch.manual_seed(0)
            exact = kind.drawn(config, device=device, dtype=torch.float32)
            made = kind.drawn(config, device=device, dtype=dtype)
            for rounded, weight in zip(made.parameters(), exact.parameters(), strict=True):
                rounded.data.copy_(weight)
            return made

        results[f"{title}, accuracy"] = accuracy(make, device, blocks)
        show(f"{title}, accuracy", results[f"{title}, accuracy"])
        model = make(torch.float16)
        results[title] = speed(model, work, device, blocks, rounds)
        show(title, results[title])
        results[f"{title}, kernels, ms"] = profile(model, next(iter(work.values())), device)
        show(f"{title}, kernels, ms", results[f"{title}, kernels, ms"])
    write(results, arguments.output)


if __name__ == "__main__":
    main()
