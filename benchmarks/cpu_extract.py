"""Speed of the ESM-2 encoder on a CPU, beside transformers on the same threads.

    python benchmarks/cpu_extract.py --weights FOLDER --output benchmarks/results/cpu_extract.json
    python benchmarks/cpu_extract.py --tiny            # proves the script in seconds

The model is ESM-2 8M in float32: real weights from a folder, else random ones of its shape. Both encoders share
weights, token ids and threads in one process, rounds take turns, and medians are reported of wall time and of the
CPU time of the process: other work on the machine shows in the first more than in the second. transformers gets
its batches ready-made, padded and on masks, at several budgets of padded tokens from sequences sorted by length,
and in unsorted batches of 8 sequences. Vectors of both are compared before anything is timed.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from gpu_extract import TINY, Run, Size, parser_of, prepared, random_model, show, write
from store import machine
from transformers import EsmModel

from nucpro.embedding.batches import Embedder, Prepared
from nucpro.models.esm2 import Esm2

FULL = Size(320, 6, 20, 8_200, 0, 7, (1_024, 2_048, 4_096, 8_192))
PADDING = 1
PLAIN_ROWS = 8
OURS, PLAIN = "nucpro", f"transformers, unsorted batches of {PLAIN_ROWS}"
Batch = tuple[torch.Tensor, torch.Tensor]


# ---------------------------------------------------------------------------------------------- workloads


def workloads(tokens: int) -> dict[str, list[int]]:
    """Residues of the sequences of each workload, about ``tokens`` tokens each."""
    draw = random.Random(0)
    mixed: list[int] = []
    while sum(mixed) + 2 * len(mixed) < tokens:
        mixed.append(draw.randint(30, 600))
    return {"100": [100] * (tokens // 102), "mixed, 30 to 600": mixed}


def rows_of(work: Prepared) -> list[torch.Tensor]:
    """Token ids of each sequence, longest first."""
    return list(work.token_ids.long().split(work.lengths.tolist()))


def padded(rows: Sequence[torch.Tensor]) -> Batch:
    """Ids and mask of one batch."""
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=PADDING)
    return ids, (ids != PADDING).long()


def careful_batches(rows: Sequence[torch.Tensor], budget: int) -> list[Batch]:
    """Batches of sorted sequences, padded to at most ``budget`` tokens."""
    batches, first = [], 0
    while first < len(rows):
        count = max(1, budget // len(rows[first]))
        batches.append(padded(rows[first : first + count]))
        first += count
    return batches


def plain_batches(work: Prepared) -> list[Batch]:
    """Batches of a fixed number of sequences in input order."""
    rows = [row for _, row in sorted(zip(work.order.tolist(), rows_of(work), strict=True))]
    return [padded(rows[first : first + PLAIN_ROWS]) for first in range(0, len(rows), PLAIN_ROWS)]


# ---------------------------------------------------------------------------------------------- what is compared


def transformers_vectors(model: EsmModel, batches: Sequence[Batch]) -> torch.Tensor:
    """Means over residues, in the order of the batches."""
    means = []
    for ids, mask in batches:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        lengths = mask.sum(1, keepdim=True)
        residues = mask.clone()
        residues[:, 0] = 0
        residues.scatter_(1, lengths - 1, 0)
        means.append((hidden * residues[..., None]).sum(1) / (lengths - 2))
    return torch.cat(means)


def runs_of(embedder: Embedder, peer: EsmModel, work: Prepared, size: Size) -> dict[str, Run]:
    ways = {
        f"transformers, {budget} tokens": careful_batches(rows_of(work), budget)
        for budget in size.peer_tokens
    }
    ways[PLAIN] = plain_batches(work)
    runs: dict[str, Run] = {OURS: lambda: embedder.submit(work).result()}
    for name, batches in ways.items():
        runs[name] = lambda batches=batches: transformers_vectors(peer, batches)
    return runs


def largest_difference(embedder: Embedder, peer: EsmModel, work: Prepared) -> float:
    ours = torch.from_numpy(embedder.submit(work).result())
    theirs = transformers_vectors(peer, plain_batches(work))
    return float((ours - theirs).abs().max())


# ---------------------------------------------------------------------------------------------- timing


def medians(runs: dict[str, Run], rounds: int) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds of each run; rounds take turns after one that does not count."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            taken = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                times[name].append(taken)
    return {
        name: dict(zip(("wall_s", "cpu_s"), map(statistics.median, zip(*taken, strict=True)), strict=True))
        for name, taken in times.items()
    }


@torch.inference_mode()
def measure(embedder: Embedder, peer: EsmModel, size: Size) -> dict[str, dict]:
    results: dict[str, dict] = {}
    for name, lengths in workloads(size.tokens).items():
        work = prepared(lengths, embedder.tokens_per_batch)
        difference = largest_difference(embedder, peer, work)
        times = medians(runs_of(embedder, peer, work, size), size.rounds)
        results[name] = {
            "sequences": len(lengths),
            "tokens": work.tokens,
            "largest_difference": difference,
            "sequences_per_s": len(lengths) / times[OURS]["wall_s"],
            "seconds": times,
        } | factors(times)
    return results


def factors(times: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times faster than transformers at its best budget, by each clock, and than a plain script."""
    found = {}
    for clock in ("wall_s", "cpu_s"):
        ours = times[OURS][clock]
        careful = [taken[clock] for name, taken in times.items() if name not in (OURS, PLAIN)]
        found[f"times_transformers_best, {clock}"] = min(careful) / ours
        found[f"times_plain_script, {clock}"] = times[PLAIN][clock] / ours
    return found


# ---------------------------------------------------------------------------------------------- report


def hardware(threads: int) -> dict[str, object]:
    return machine() | {
        "transformers": transformers.__version__,
        "threads": threads,
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def model_of(weights: Path | None, size: Size) -> EsmModel:
    if weights is None:
        return random_model(size, torch.device("cpu"))
    model = EsmModel.from_pretrained(
        weights, add_pooling_layer=False, dtype=torch.float32, attn_implementation="sdpa"
    )
    return model.eval()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--weights", type=Path, help="folder with ESM-2 8M; random weights where not given")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = TINY if arguments.tiny else FULL
    results: dict[str, dict] = {"hardware": hardware(arguments.threads), "size": asdict(size)}
    results["size"]["weights"] = "random" if arguments.weights is None else "real"
    peer = model_of(arguments.weights, size)
    embedder = Embedder(Esm2.from_huggingface(peer))
    results["size"]["budget"] = embedder.tokens_per_batch
    results["speed"] = measure(embedder, peer, size)
    show("hardware", results["hardware"])
    for name, row in results["speed"].items():
        show(name, {key: value for key, value in (row | row["seconds"]).items() if key != "seconds"})
    write(results, arguments.output)


if __name__ == "__main__":
    main()
