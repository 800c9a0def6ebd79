"""Speed of the ESM-2 encoder on one GPU, beside transformers and beside the bare matrix products it consists of.

    python benchmarks/gpu_extract.py --output benchmarks/results/h100.json
    python benchmarks/gpu_extract.py --tiny            # proves the script on any machine in seconds

The model has the shape of ESM-2 650M and random weights. Everything runs in one process on one GPU, rounds of what
is compared take turns (a GPU at its power limit slows down as it warms up), and medians are reported. Needs
transformers, and for more than --tiny a CUDA GPU with 40 GiB.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
import transformers
from timing import wall_seconds
from transformers import EsmConfig, EsmModel

from nucpro.embedding.batches import Embedder, Prepared, default_tokens_per_batch, prepare
from nucpro.models.architectures import use_kernels, way_of
from nucpro.models.config import Esm2Config
from nucpro.models.encoder import PackedEncoder
from nucpro.models.esm2 import Esm2
from nucpro.models.tokens import ResidueTokenizer

LETTERS = b"ACDEFGHIKLMNPQRSTVWY"
Run = Callable[[], object]
Batches = list[tuple[torch.Tensor, list[int]]]
Encoder = TypeVar("Encoder", bound=PackedEncoder)


@dataclass(frozen=True)
class Size:
    """Model shape and amount of work."""

    width: int
    layers: int
    heads: int
    tokens: int
    budget: int
    rounds: int
    peer_tokens: tuple[int, ...]


FULL = Size(1280, 33, 20, 390_000, 0, 5, (2_048, 8_192, 32_768, 65_536, 131_072))
TINY = Size(64, 2, 4, 3_000, 1_000, 2, (512, 2_048))


# ---------------------------------------------------------------------------------------------- workloads


def workloads(tokens: int) -> dict[str, list[int]]:
    """Residues of the sequences of each workload, about ``tokens`` tokens each."""
    draw = random.Random(0)
    kinds: dict[str, Callable[[], int]] = {
        "100": lambda: 100,
        "166": lambda: 166,
        "99 and 100, tails to 30": lambda: (
            draw.choice((99, 100)) if draw.random() < 0.9 else draw.randint(30, 98)
        ),
        "166, tails to 30": lambda: 166 if draw.random() < 0.9 else draw.randint(30, 165),
        "proteome, 30 to 1,024": lambda: min(1_024, max(30, round(draw.lognormvariate(5.6, 0.7)))),
    }
    lengths: dict[str, list[int]] = {}
    for name, kind in kinds.items():
        lengths[name] = []
        while sum(lengths[name]) + 2 * len(lengths[name]) < tokens:
            lengths[name].append(kind())
    return lengths


def prepared(lengths: Sequence[int], budget: int) -> Prepared:
    draw = random.Random(1)
    sequences = [bytes(draw.choices(LETTERS, k=length)) for length in lengths]
    names = [str(row) for row in range(len(sequences))]
    return prepare(names, sequences, ResidueTokenizer(), tokens_per_batch=budget)


def batches_of(work: Prepared, device: torch.device) -> Batches:
    """Token ids on the device and lengths of every batch, as the product plans them."""
    lengths = [work.lengths[batch].tolist() for batch in work.batches]
    parts = work.token_ids.to(device).split([sum(batch) for batch in lengths])
    return list(zip(parts, lengths, strict=True))


# ---------------------------------------------------------------------------------------------- timing


def seconds(run: Run, device: torch.device) -> float:
    """Time on the device between the start of the first and the end of the last kernel."""
    if device.type != "cuda":
        return wall_seconds(run, device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1_000


def medians(
    runs: dict[str, Run],
    rounds: int,
    device: torch.device,
    timed: Callable[[Run, torch.device], float] = seconds,
) -> dict[str, float]:
    """Median seconds of each run; rounds take turns after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            taken = timed(run, device)
            if number:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


# ---------------------------------------------------------------------------------------------- what is compared


def encoder_run(encoder: PackedEncoder, batches: Batches) -> Run:
    def run() -> None:
        for tokens, lengths in batches:
            encoder.pool(encoder(tokens, lengths), lengths)

    return run


def bare_products_run(encoder: PackedEncoder, batches: Batches) -> Run:
    """The matrix products of all layers on the same tokens, and nothing else."""
    sizes = [sum(lengths) for _, lengths in batches]
    like = encoder.token_embeddings.weight
    narrow = torch.randn(max(sizes), encoder.width, device=like.device, dtype=like.dtype)
    wide = torch.randn(max(sizes), encoder.config.feed_forward_width, device=like.device, dtype=like.dtype)

    def run() -> None:
        for size in sizes:
            for layer in encoder.layers:
                for linear in (layer.query_key_value, layer.attention_out, layer.feed_forward_in):
                    F.linear(narrow[:size], linear.weight, linear.bias)
                F.linear(wide[:size], layer.feed_forward_out.weight, layer.feed_forward_out.bias)

    return run


def transformers_run(model: EsmModel, residues: int, tokens: int, device: torch.device) -> tuple[Run, int]:
    """What a plain script does with one batch: padded rows, a mask, the mean over residues."""
    rows = max(1, tokens // (residues + 2))
    ids = torch.randint(4, 24, (rows, residues + 2), device=device)
    mask = torch.ones_like(ids)

    def run() -> None:
        model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 1:-1].float().mean(1)

    return run, rows


def transformers_sweep(model: EsmModel, residues: int, size: Size, device: torch.device) -> dict[int, float]:
    """Sequences a second at each batch size."""
    rates = {}
    for tokens in size.peer_tokens:
        run, rows = transformers_run(model, residues, tokens, device)
        repeats = max(1, 65_536 // tokens) if size is FULL else 1

        def repeated(run: Run = run, repeats: int = repeats) -> None:
            for _ in range(repeats):
                run()

        rates[tokens] = rows * repeats / medians({"peer": repeated}, 3, device)["peer"]
    return rates


def plain_script_rate(model: EsmModel, residues: int, size: Size, device: torch.device) -> float:
    """Sequences a second of a loop as scripts have it: one batch, then each row's mean to the host."""
    rows = max(1, size.peer_tokens[0] // (residues + 2))
    ids = torch.randint(4, 24, (rows, residues + 2)).tolist()

    def batch() -> None:
        tokens = torch.tensor(ids).to(device)
        hidden = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        for row in hidden:
            row[1:-1].mean(0).float().cpu()

    batch()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(20):
            batch()
        times.append(time.perf_counter() - start)
    return 20 * rows / statistics.median(times)


# ---------------------------------------------------------------------------------------------- measurements


@torch.inference_mode()
def measure_speed(encoder: Esm2, peer: EsmModel, size: Size, device: torch.device) -> dict[str, dict]:
    budget = size.budget or default_tokens_per_batch(device)
    results: dict[str, dict] = {}
    for name, lengths in workloads(size.tokens).items():
        work = prepared(lengths, budget)
        batches = batches_of(work, device)
        runs = {"ours": encoder_run(encoder, batches), "products": bare_products_run(encoder, batches)}
        times = medians(runs, size.rounds, device)
        results[name] = {
            "sequences": len(lengths),
            "tokens": work.tokens,
            "batches": len(batches),
            "sequences_per_s": len(lengths) / times["ours"],
            "tokens_per_s": work.tokens / times["ours"],
            "share_of_bare_products": times["products"] / times["ours"],
            "tflops": operations(encoder, work) / times["ours"] / 1e12,
        }
        if name.isdecimal():
            rates = transformers_sweep(peer, int(name), size, device)
            results[name] |= {
                "transformers_sequences_per_s": rates,
                "times_transformers_best": results[name]["sequences_per_s"] / max(rates.values()),
                "times_transformers_smallest_batch": results[name]["sequences_per_s"]
                / rates[size.peer_tokens[0]],
                "plain_script_sequences_per_s": plain_script_rate(peer, int(name), size, device),
            }
        results[name]["share_of_token_rate_at_100"] = (
            results[name]["tokens_per_s"] / results["100"]["tokens_per_s"]
        )
    return results


def operations(encoder: Esm2, work: Prepared) -> float:
    """Floating-point operations that the forward cannot do without."""
    config = encoder.config
    products = 2 * work.tokens * (4 * config.width**2 + 2 * config.width * config.feed_forward_width)
    attention = 4 * config.width * float((work.lengths**2).sum())
    return config.layers * (products + attention)


@torch.inference_mode()
def measure_parts(encoder: Esm2, size: Size, device: torch.device) -> dict[str, float]:
    """Milliseconds of a batch with and without what could be left out, per workload."""
    budget = size.budget or default_tokens_per_batch(device)
    parts = {}
    for name in ("100", "proteome, 30 to 1,024"):
        batch = batches_of(prepared(workloads(size.tokens)[name], budget), device)[:1]
        tokens, lengths = batch[0]
        fused, hidden = encoder.fused, encoder(tokens, lengths)
        runs: dict[str, Run] = {
            "forward": lambda tokens=tokens, lengths=lengths: encoder(tokens, lengths),
            "forward and pooling": encoder_run(encoder, batch),
            "pooling alone": lambda hidden=hidden, lengths=lengths: encoder.pool(hidden, lengths),
        }
        times = medians(runs, size.rounds, device)
        encoder.fused = None
        times["forward without kernels"] = medians({"plain": runs["forward"]}, size.rounds, device)["plain"]
        encoder.fused = fused
        parts |= {f"{name}: {part}, ms": value * 1_000 for part, value in times.items()}
    return parts


@torch.inference_mode()
def measure_end_to_end(encoder: Esm2, size: Size, device: torch.device) -> dict[str, float]:
    """One file of the job: sequences of 100 residues in host memory to vectors in host memory."""
    budget = size.budget or default_tokens_per_batch(device)
    lengths = [100] * (10_000 if size is FULL else 30)
    start = time.perf_counter()
    work = prepared(lengths, budget)
    preparing = time.perf_counter() - start
    embedder = Embedder(encoder, budget)
    embedder.submit(work).result()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        embedder.submit(work).result()
        times.append(time.perf_counter() - start)
    taken = statistics.median(times)
    return {
        "sequences": len(lengths),
        "seconds": taken,
        "sequences_per_s": len(lengths) / taken,
        "prepare_s": preparing,
    }


@torch.inference_mode()
def pooled(encoder: Esm2, batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = torch.cat([encoder(*batch).float() for batch in batches])
    lengths = [length for _, batch in batches for length in batch]
    return hidden, encoder.pool(hidden, lengths)


def agreement(encoder: Esm2, exact: Esm2, batches: Batches) -> dict[str, float]:
    hidden, vectors = pooled(encoder, batches)
    exact_hidden, exact_vectors = pooled(exact, batches)
    cosines = torch.cosine_similarity(vectors, exact_vectors)
    return {
        "relative_error_of_hidden_states": float((hidden - exact_hidden).norm() / exact_hidden.norm()),
        "pooled_cosine_mean": float(cosines.mean()),
        "pooled_cosine_worst": float(cosines.min()),
        "finite": bool(hidden.isfinite().all()),
    }


def measure_accuracy(peer: EsmModel, device: torch.device) -> dict[str, dict[str, float]]:
    """Against the plain forward in float32, on random weights and with hidden states of thousands."""
    batches = batches_of(prepared([30, 62, 63, 99, 100, 100, 166, 300, 1_000], 2_000), device)
    report = {}
    for kind, factor in (("random weights", 1.0), ("three channels of thousands", 1e5)):
        with torch.no_grad():
            peer.embeddings.word_embeddings.weight[:, :3] *= factor
        exact = Esm2.from_huggingface(peer, dtype=torch.float32, device=device)
        for dtype in (torch.float16, torch.bfloat16):
            half = with_kernels(Esm2.from_huggingface(peer, dtype=dtype, device=device))
            report[f"{kind}, {dtype}"] = agreement(half, exact, batches)
            half.fused = None
            report[f"{kind}, {dtype}, without kernels"] = agreement(half, exact, batches)
        with torch.no_grad():
            peer.embeddings.word_embeddings.weight[:, :3] /= factor
    return report


@torch.inference_mode()
def measure_repeatability(encoder: Esm2, device: torch.device) -> dict[str, float]:
    """Equal input twice, and one sequence among other companions."""
    together, alone = (
        batches_of(prepared(lengths, 10**6), device) for lengths in ([166, 100, 100, 30], [166])
    )
    first, again = (pooled(encoder, together)[1] for _ in range(2))
    single = pooled(encoder, alone)[1]
    same = batches_of(prepared([166, 100, 100, 30], 10**6), device)[0][0][:168]
    assert torch.equal(same, alone[0][0]), "the sequence is not the same in both batches"
    return {
        "equal_bytes_twice": torch.equal(first, again),
        "largest_difference_by_companions": float((first[0] - single[0]).abs().max()),
    }


@torch.inference_mode()
def profile(encoder: Esm2, size: Size, device: torch.device) -> dict[str, float]:
    """Milliseconds of each kernel in one batch of 100 residues."""
    if device.type != "cuda":
        return {}
    tokens, lengths = batches_of(
        prepared(workloads(size.tokens)["100"], default_tokens_per_batch(device)), device
    )[0]
    return kernel_times(lambda: encoder(tokens, lengths))


def kernel_times(run: Run) -> dict[str, float]:
    """Milliseconds of the kernels of a run that take longest."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        run()
        torch.cuda.synchronize()
    events = sorted(trace.key_averages(), key=lambda event: -event.device_time_total)
    return {f"{event.key[:70]} x{event.count}": event.device_time_total / 1_000 for event in events[:12]}


# ---------------------------------------------------------------------------------------------- report


def hardware(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        import triton

        versions |= {"triton": triton.__version__, "cuda": str(torch.version.cuda)}
    return {"device": name} | versions


def show(title: str, rows: dict) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        if isinstance(value, dict):
            parts = "  ".join(
                f"{key} {part:.6g}" if isinstance(part, float) else f"{key} {part}"
                for key, part in value.items()
            )
            print(f"  {name}: {parts}")
        else:
            print(f"  {name}: {value:.6g}" if isinstance(value, float) else f"  {name}: {value}")


def with_kernels(encoder: Encoder) -> Encoder:
    use_kernels(encoder)
    return encoder


def random_model(size: Size, device: torch.device) -> EsmModel:
    config = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    with device:
        return EsmModel(config, add_pooling_layer=False).eval()


def parser_of(description: str) -> argparse.ArgumentParser:
    """Options that all benchmarks of encoders have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="tiny models and little work, on any machine")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    return parser


def device_here() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def write(results: dict, path: Path | None) -> None:
    """Write results where a file is named for them."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")


def drawn(size: Size, device: torch.device) -> Esm2:
    """ESM-2 with random weights, in the precision that a run computes in."""
    config = Esm2Config(
        33, size.width, size.layers, size.heads, 4 * size.width, 1e-5, 10_000.0, token_dropout=True
    )
    return Esm2.drawn(config, device=device, dtype=dtype_of(device))


def dtype_of(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type == "cuda" else torch.float32


def main() -> None:
    arguments, device = parser_of(__doc__).parse_args(), device_here()
    size, dtype = TINY if arguments.tiny else FULL, dtype_of(device)
    results: dict[str, dict] = {"hardware": hardware(device), "size": asdict(size)}
    peer = random_model(size, device)
    results["accuracy"] = measure_accuracy(peer, device)
    peer = peer.to(dtype)
    encoder = with_kernels(Esm2.from_huggingface(peer))
    results["hardware"]["runs"] = str(way_of(encoder.config, device, dtype))
    results["repeatability"] = measure_repeatability(encoder, device)
    results["speed"] = measure_speed(encoder, peer, size, device)
    results["parts"] = measure_parts(encoder, size, device)
    results["end to end"] = measure_end_to_end(encoder, size, device)
    results["kernels, ms"] = profile(encoder, size, device)
    for title, rows in results.items():
        show(title, rows)
    write(results, arguments.output)


if __name__ == "__main__":
    main()
