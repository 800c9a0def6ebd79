"""Speed of the DNABERT-S encoder on one GPU, beside a loop of one sequence a call and the bare matrix products.

    python benchmarks/gpu_dna.py --output benchmarks/results/h100_dna.json
    python benchmarks/gpu_dna.py --tiny              # proves the script on any machine in seconds

The model has the shape of DNABERT-S (117 million parameters) and random weights; sequences are stretches of 300
bases of the demo's genomes, and the tokenizer is trained on those (give the published one with --tokenizer). All
runs share one process; rounds of what is compared take turns, and medians are reported.
"""

from __future__ import annotations

import gzip
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import tokenizers
import torch
import torch.nn.functional as F
from gpu_extract import (
    Run,
    bare_products_run,
    batches_of,
    device_here,
    encoder_run,
    kernel_times,
    medians,
    parser_of,
    show,
    with_kernels,
    write,
)
from timing import wall_seconds
from transformers import PreTrainedTokenizerFast

from nucpro.embedding.batches import Embedder, Pending, Prepared, default_tokens_per_batch, prepare
from nucpro.models.architectures import load_dna_tokenizer
from nucpro.models.dna_tokens import DnaTokenizer
from nucpro.models.mosaic_bert import MosaicBert, alibi_bias, load_mosaic_bert
from nucpro.models.weights import ModelFiles, locate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo"))

import dna_stand_ins

BASES = 300
LIMIT = 10_000


@dataclass(frozen=True)
class Size:
    """Model shape and amount of work."""

    width: int
    layers: int
    heads: int
    feed_forward_width: int
    vocabulary_size: int
    files: int
    sequences_per_file: int
    singles: int
    rounds: int
    budgets: tuple[int, ...]


FULL = Size(768, 12, 12, 3072, 4096, 12, 10_000, 300, 5, (16_384, 32_768, 65_536, 131_072))
TINY = Size(64, 2, 4, 96, 128, 3, 100, 10, 2, (512, 2_048))


@dataclass(frozen=True)
class Bench:
    """Everything that measurements share."""

    size: Size
    device: torch.device
    sequences: list[bytes]
    tokenizer: DnaTokenizer
    files: ModelFiles
    encoder: MosaicBert
    exact: MosaicBert
    """In float32, by the plain forward."""

    def file(self, number: int) -> list[bytes]:
        """Sequences of one file of the job; a run of many files begins again at the first sequence."""
        count = self.size.sequences_per_file
        start = number * count % (len(self.sequences) - count + 1)
        return self.sequences[start : start + count]

    def prepared(self, sequences: list[bytes], budget: int | None = None) -> Prepared:
        names = [str(row) for row in range(len(sequences))]
        budget = budget or default_tokens_per_batch(self.device)
        return prepare(names, sequences, self.tokenizer, max_residues=LIMIT, tokens_per_batch=budget)

    def medians(self, runs: dict[str, Run], rounds: int) -> dict[str, float]:
        return medians(runs, rounds, self.device, wall_seconds)


# ---------------------------------------------------------------------------------------------- set up


def genome_stretches(count: int) -> list[bytes]:
    """Stretches of the demo's genomes, in random order; neighbours in a genome overlap."""
    stretches: list[str] = []
    for path in sorted((ROOT / "demo" / "genomes").glob("*.fna.gz")):
        with gzip.open(path, "rt") as lines:
            genome = "".join(line.strip().upper() for line in lines if not line.startswith(">"))
        stretches += [genome[start : start + BASES] for start in range(0, len(genome) - BASES + 1, 10)]
    random.Random(0).shuffle(stretches)
    return [stretch.encode() for stretch in stretches[:count]]


def make_bench(size: Size, device: torch.device, folder: Path, tokenizer_json: Path | None) -> Bench:
    sequences = genome_stretches(max(size.files * size.sequences_per_file, 200))
    shape = {key: value for key, value in asdict(size).items() if key in MODEL_SHAPE}
    dna_stand_ins.make_dna_checkpoint(folder, **shape)
    if tokenizer_json:
        (folder / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    else:
        texts = [sequence.decode() for sequence in sequences[:2_000]]
        dna_stand_ins.train_tokenizer(folder, texts, vocabulary_size=size.vocabulary_size)
    files = locate(str(folder))
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    return Bench(
        size=size,
        device=device,
        sequences=sequences,
        tokenizer=load_dna_tokenizer(files),
        files=files,
        encoder=with_kernels(load_mosaic_bert(files, device=device, dtype=dtype)),
        exact=load_mosaic_bert(files, device=device, dtype=torch.float32),
    )


MODEL_SHAPE = ("width", "layers", "heads", "feed_forward_width", "vocabulary_size")


# ---------------------------------------------------------------------------------------------- the peer


def published_forward(model: MosaicBert, ids_nl: torch.Tensor) -> torch.Tensor:
    """Hidden states ``[N, L, D]`` in the way of the published code's PyTorch path, with our weights.

    Rows of padding are taken out after the embedding; every layer puts them back for attention, which makes the
    whole score matrix and adds the bias to it, and takes them out again.
    """
    count, length = ids_nl.shape
    mask_nl = torch.ones_like(ids_nl)
    indices_t = torch.nonzero(mask_nl.flatten()).flatten()
    blocked = (1.0 - mask_nl[:, None, None].float()) * -10_000.0
    bias = blocked + alibi_bias(model.slopes, length)[None]
    hidden_td = model.embed(ids_nl).flatten(0, 1)[indices_t]
    for layer in model.layers:
        rows_tx = layer.query_key_value(hidden_td)
        padded = rows_tx.new_zeros(count * length, rows_tx.shape[1]).index_put_((indices_t,), rows_tx)
        mixed = padded.view(count, length, 3, model.config.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        context = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(count * length, -1)[indices_t]
        hidden_td = layer.attention_norm(layer.attention_out(context) + hidden_td)
        gate, ungated = layer.feed_forward_in(hidden_td).chunk(2, dim=1)
        inner = layer.feed_forward_out(F.gelu(gate) * ungated)
        hidden_td = layer.feed_forward_norm(inner + hidden_td)
    return (
        hidden_td.new_zeros(count * length, model.width)
        .index_put_((indices_t,), hidden_td)
        .view(count, length, -1)
    )


def published_loop(bench: Bench) -> Run:
    """One sequence a call, from text to a list of floats, as the original feature script does it."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(bench.files.folder / "tokenizer.json"))
    texts = [sequence.decode() for sequence in bench.sequences[: bench.size.singles]]

    def run() -> list[list[float]]:
        means = []
        for text in texts:
            ids = tokenizer(text, return_tensors="pt", padding=False, truncation=False)["input_ids"]
            hidden = published_forward(bench.exact, ids.to(bench.device))[0]
            means.append(hidden.mean(dim=0).cpu().tolist())
        return means

    return run


def own_loop(bench: Bench, encoder: MosaicBert) -> Run:
    """One sequence a call through our own parts."""

    def run() -> None:
        for sequence in bench.sequences[: bench.size.singles]:
            encoded = bench.tokenizer.encode(["record"], [sequence], LIMIT)
            lengths = encoded.lengths.tolist()
            hidden = encoder(torch.from_numpy(encoded.tokens).to(bench.device), lengths)
            encoder.pool(hidden, lengths).cpu()

    return run


# ---------------------------------------------------------------------------------------------- measurements


def measure_loops(bench: Bench) -> dict[str, float]:
    """Sequences a second of loops of one sequence a call."""
    runs = {
        "as published, float32": published_loop(bench),
        "plain forward, float32": own_loop(bench, bench.exact),
        "as the product computes": own_loop(bench, bench.encoder),
    }
    times = bench.medians(runs, 3)
    return {name: bench.size.singles / taken for name, taken in times.items()}


def measure_tokens(bench: Bench) -> dict[str, float]:
    """Tokenising alone, on all cores of the machine."""
    sequences = bench.file(0)
    names = [str(row) for row in range(len(sequences))]
    run = {"tokens": lambda: bench.tokenizer.encode(names, sequences, LIMIT)}
    encoded = bench.tokenizer.encode(names, sequences, LIMIT)
    return {
        "sequences_per_s": len(sequences) / bench.medians(run, bench.size.rounds)["tokens"],
        "prepared_sequences_per_s": len(sequences)
        / bench.medians({"all": lambda: bench.prepared(sequences)}, bench.size.rounds)["all"],
        "tokens_per_sequence": float(encoded.lengths.mean()),
        "shortest": int(encoded.lengths.min()),
        "longest": int(encoded.lengths.max()),
        "unknown_tokens": encoded.unknown,
    }


def measure_batches(bench: Bench) -> dict[str, dict[str, float]]:
    """One file whose token ids are on the device, at several sizes of batches."""
    results = {}
    for budget in bench.size.budgets:
        work = bench.prepared(bench.file(0), budget)
        batches = batches_of(work, bench.device)
        runs = {
            "ours": encoder_run(bench.encoder, batches),
            "products": bare_products_run(bench.encoder, batches),
        }
        times = bench.medians(runs, bench.size.rounds)
        results[f"{budget} tokens a batch"] = {
            "sequences_per_s": len(work.names) / times["ours"],
            "tokens_per_s": work.tokens / times["ours"],
            "share_of_bare_products": times["products"] / times["ours"],
            "tflops": operations(bench.encoder, work) / times["ours"] / 1e12,
        }
    fused, bench.encoder.fused = bench.encoder.fused, None
    plain = {"plain": encoder_run(bench.encoder, batches_of(bench.prepared(bench.file(0)), bench.device))}
    taken = bench.medians(plain, 2)["plain"]
    bench.encoder.fused = fused
    results["without kernels"] = {"sequences_per_s": bench.size.sequences_per_file / taken}
    return results


def operations(encoder: MosaicBert, work: Prepared) -> float:
    """Floating-point operations that the forward cannot do without."""
    config = encoder.config
    products = 2 * work.tokens * (4 * config.width**2 + 3 * config.width * config.feed_forward_width)
    attention = 4 * config.width * float((work.lengths**2).sum())
    return config.layers * (products + attention)


def measure_end_to_end(bench: Bench) -> dict[str, float]:
    """Files from text in host memory to vectors in host memory, tokenised ahead of the device by a thread."""
    embedder = Embedder(bench.encoder)
    count = bench.size.files
    embedder.submit(bench.prepared(bench.file(0))).result()
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        ahead: deque[Future[Prepared]] = deque(
            threads.submit(bench.prepared, bench.file(number)) for number in range(min(3, count))
        )
        pending: Pending | None = None
        for number in range(count):
            submitted = embedder.submit(ahead.popleft().result())
            if number + 3 < count:
                ahead.append(threads.submit(bench.prepared, bench.file(number + 3)))
            if pending is not None:
                pending.result()
            pending = submitted
        assert pending is not None, "there is at least one file"
        pending.result()
    taken = time.perf_counter() - start
    sequences = count * bench.size.sequences_per_file
    return {"files": count, "sequences": sequences, "seconds": taken, "sequences_per_s": sequences / taken}


def measure_accuracy(bench: Bench) -> dict[str, dict[str, float]]:
    """Vectors of every kind of forward against the published way in float32, one sequence a call."""
    sequences = bench.sequences[:200]
    names = [str(row) for row in range(len(sequences))]
    encoded = bench.tokenizer.encode(names, sequences, LIMIT)
    parts = torch.from_numpy(encoded.tokens).long().to(bench.device).split(encoded.lengths.tolist())
    expected = torch.stack([published_forward(bench.exact, ids[None])[0].mean(dim=0) for ids in parts])
    report = {}
    kinds = {"float32, plain": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    for name, dtype in kinds.items():
        encoder = with_kernels(load_mosaic_bert(bench.files, device=bench.device, dtype=dtype))
        for label, fused in {name: encoder.fused, f"{name}, without kernels": None}.items():
            encoder.fused = fused
            vectors = Embedder(encoder).submit(bench.prepared(sequences)).result()
            report[label] = agreement(torch.from_numpy(vectors).to(expected), expected)
    return report


def agreement(vectors: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    cosines = torch.cosine_similarity(vectors, expected)
    return {
        "relative_error": float((vectors - expected).norm() / expected.norm()),
        "largest_difference": float((vectors - expected).abs().max()),
        "cosine_mean": float(cosines.mean()),
        "cosine_worst": float(cosines.min()),
    }


def measure_repeatability(bench: Bench) -> dict[str, float]:
    """Equal input twice, and a sequence among other companions."""
    embedder, sequences = Embedder(bench.encoder), bench.file(0)[:100]
    first, again = (embedder.submit(bench.prepared(sequences)).result() for _ in range(2))
    alone = embedder.submit(bench.prepared(sequences[:1])).result()
    return {
        "equal_bytes_twice": first.tobytes() == again.tobytes(),
        "largest_difference_by_companions": float(abs(first[0] - alone[0]).max()),
    }


def profile(bench: Bench) -> dict[str, float]:
    """Milliseconds of each kernel in one batch."""
    if bench.device.type != "cuda":
        return {}
    tokens, lengths = batches_of(bench.prepared(bench.file(0)), bench.device)[0]
    return kernel_times(lambda: bench.encoder(tokens, lengths))


# ---------------------------------------------------------------------------------------------- report


def hardware(bench: Bench) -> dict[str, str | int]:
    cuda = bench.device.type == "cuda"
    versions: dict[str, str | int] = {
        "device": torch.cuda.get_device_name(bench.device) if cuda else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
        "kernels": str(bench.encoder.fused is not None),
    }
    if cuda:
        import triton

        versions |= {"triton": triton.__version__, "cuda": str(torch.version.cuda)}
    return versions


def conclusions(results: dict[str, dict]) -> dict[str, float]:
    """What the targets are about."""
    rate = results["end to end"]["sequences_per_s"]
    loops = results["one sequence a call, sequences/s"]
    ratios = {f"times the loop {name}": rate / loop for name, loop in loops.items()}
    return {
        "sequences_per_s": rate,
        **ratios,
        "share_of_tokenising": rate / results["tokens"]["sequences_per_s"],
    }


def measure(bench: Bench) -> dict[str, dict]:
    results: dict[str, dict] = {"hardware": hardware(bench), "size": asdict(bench.size)}
    with torch.inference_mode():
        results["accuracy against the published way"] = measure_accuracy(bench)
        results["repeatability"] = measure_repeatability(bench)
        results["tokens"] = measure_tokens(bench)
        results["one sequence a call, sequences/s"] = measure_loops(bench)
        results["batches on the device"] = measure_batches(bench)
        results["end to end"] = measure_end_to_end(bench)
        results["kernels, ms"] = profile(bench)
    results["conclusions"] = conclusions(results)
    return results


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to use; by default one is trained")
    arguments, device = parser.parse_args(), device_here()
    with tempfile.TemporaryDirectory() as folder:
        size = TINY if arguments.tiny else FULL
        results = measure(make_bench(size, device, Path(folder) / "untrained", arguments.tokenizer))
    for title, rows in results.items():
        show(title, rows)
    write(results, arguments.output)


if __name__ == "__main__":
    main()
