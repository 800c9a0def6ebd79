"""Speed of training beside a DataLoader over rows with 12 workers, and whether both learn the same.

    python benchmarks/train.py --output benchmarks/results/train_h100.json
    python benchmarks/train.py --tiny --device cpu        # proves the script on any machine in seconds

2 million rows of 2,048 random float32 numbers (16 GB) are drawn on the device; labels follow from a few columns.
The peer is a loop of the original's kind: rows one by one out of a list of tensors, collated by worker processes,
copied to the device, one step, and a wait for the loss. It is timed on some thousand batches, after as many as its
workers hold ready, and its epoch is extrapolated from these; ours is timed on whole epochs.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import wall_seconds
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import nucpro
from nucpro.classifier.features import read_features
from nucpro.classifier.fitting import Feed, ResidentFeed, Steps, StreamedFeed, steps_for, viral_margins
from nucpro.classifier.metrics import Scored
from nucpro.classifier.model import Classifier
from nucpro.classifier.options import Placement, TrainingOptions
from nucpro.classifier.sources import survey
from nucpro.folder.paths import DataFolder
from nucpro.formats import write_merged

RATE, MOMENTUM = 2e-4, 0.9


@dataclass(frozen=True)
class Size:
    """Amount of work."""

    rows: int
    width: int
    rows_per_file: int
    validation: int
    epochs: int
    peer_batches: int
    parity_rows: int
    streamed_rows: int
    files: int
    batch_sizes: tuple[int, ...]


FULL = Size(2_000_000, 2048, 10_000, 200_000, 5, 3_000, 100_000, 400_000, 20, (128, 256, 1024, 4096))
TINY = Size(2_000, 800, 100, 400, 2, 20, 640, 1_000, 3, (128, 256))


@dataclass(frozen=True)
class Bench:
    """Everything that measurements share."""

    size: Size
    device: torch.device
    matrix: torch.Tensor
    labels: torch.Tensor

    @property
    def options(self) -> TrainingOptions:
        return TrainingOptions(device=str(self.device))

    def order(self, rows: int, epoch: int = 0) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(epoch).permutation(rows))

    def classifier(self, dropout: float = 0.5) -> Classifier:
        torch.manual_seed(0)
        return Classifier(self.size.width, dropout=dropout).to(self.device)


def make_bench(size: Size, device: torch.device) -> Bench:
    matrix = torch.empty(size.rows, size.width, device=device)
    for start in range(0, size.rows, 100_000):
        matrix[start : start + 100_000].normal_()
    labels = (matrix[:, :8].sum(1) > 0).long()
    return Bench(size, device, matrix, labels.cpu())


# ---------------------------------------------------------------------------------------------- ours


def visit(feed: Feed, steps: Steps, order: torch.Tensor, rate: float, seed: int) -> float:
    """Visit all rows once; give the mean loss."""
    steps.begin_epoch(rate, seed)
    return float(sum(float(steps.run(block)) for block in feed.blocks(order))) / len(order)


def measure_ours(bench: Bench) -> dict[str, object]:
    """Whole epochs, as `nucpro train` runs them: draw the order, visit all rows, score the validation part."""
    classifier = bench.classifier()
    feed = ResidentFeed(bench.matrix, bench.labels.to(bench.device))
    steps = steps_for(classifier, bench.options, bench.device)
    held = torch.arange(bench.size.validation)
    losses: list[float] = []
    facts: dict[str, list[float]] = {"order_s": [], "epoch_s": [], "validation_s": []}

    def one_epoch(order: torch.Tensor, epoch: int) -> None:
        losses.append(visit(feed, steps, order, RATE, epoch))

    def validate() -> None:
        Scored(bench.labels[held].numpy(), viral_margins(classifier, feed, held).numpy()).metrics()

    for epoch in range(bench.size.epochs):
        began = time.perf_counter()
        order = bench.order(bench.size.rows, epoch)
        facts["order_s"].append(time.perf_counter() - began)
        facts["epoch_s"].append(wall_seconds(partial(one_epoch, order, epoch), bench.device))
        facts["validation_s"].append(wall_seconds(validate, bench.device))
    typical = statistics.median(facts["epoch_s"][1:])
    return {
        **facts,
        "train_loss": losses,
        "steps": type(steps).__name__,
        "rows_per_s": bench.size.rows / typical,
        "step_us": 1e6 * typical / (bench.size.rows / 32),
        "rows_per_s_with_order_and_validation": bench.size.rows
        / (typical + statistics.median(facts["order_s"]) + statistics.median(facts["validation_s"])),
        "weights_gb_per_s": 4 * 4 * 512 * bench.size.width / 1e9 / (typical / (bench.size.rows / 32)),
    }


def measure_streamed(bench: Bench) -> dict[str, object]:
    """The same where rows lie in host memory."""
    rows = min(bench.size.streamed_rows, bench.size.rows)
    host, labels = bench.matrix[:rows].cpu(), bench.labels[:rows]
    feed = StreamedFeed(host, labels, bench.device, 16_384)
    steps = steps_for(bench.classifier(), bench.options, bench.device)
    visit(feed, steps, bench.order(rows), RATE, 0)
    taken = wall_seconds(lambda: visit(feed, steps, bench.order(rows), RATE, 1), bench.device)
    return {"rows": rows, "rows_per_s": rows / taken}


def measure_batch_sizes(bench: Bench) -> list[dict[str, object]]:
    """One epoch of each larger batch, with the learning rate that the rule gives."""
    feed = ResidentFeed(bench.matrix, bench.labels.to(bench.device))
    results = []
    for batch_size in bench.size.batch_sizes:
        options = replace(bench.options, batch_size=batch_size)
        steps = steps_for(bench.classifier(), options, bench.device)
        visit(feed, steps, bench.order(min(bench.size.rows, 200 * batch_size)), options.base_rate, 0)
        order = bench.order(bench.size.rows)
        taken = wall_seconds(partial(visit, feed, steps, order, options.base_rate, 1), bench.device)
        results.append(
            {
                "batch_size": batch_size,
                "learning_rate": options.base_rate,
                "steps": type(steps).__name__,
                "rows_per_s": bench.size.rows / taken,
            }
        )
    return results


# ---------------------------------------------------------------------------------------------- the peer


class Rows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows one by one out of the tensors of files, with a label each."""

    def __init__(self, files: list[torch.Tensor], labels: torch.Tensor) -> None:
        self.files = files
        self.labels = labels
        self.per_file = len(files[0])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.files[row // self.per_file][row % self.per_file], self.labels[row]


def plain_batches(bench: Bench, rows: int, workers: int) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    files = list(bench.matrix[:rows].cpu().split(bench.size.rows_per_file))
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        Rows(files, bench.labels[:rows]), 32, shuffle=True, num_workers=workers, generator=generator
    )


def peer_steps(
    classifier: Classifier, batches: DataLoader[tuple[torch.Tensor, torch.Tensor]], wait: bool
) -> Iterator[None]:
    """Train in the plain way, batch by batch."""
    device = classifier.hidden.weight.device
    optimizer = torch.optim.SGD(classifier.parameters(), lr=RATE, momentum=MOMENTUM)
    total = 0.0
    classifier.train()
    for rows, labels in batches:
        rows, labels = rows.to(device), labels.to(device)  # noqa: PLW2901
        optimizer.zero_grad()
        loss = F.cross_entropy(classifier(rows), labels)
        loss.backward()
        optimizer.step()
        if wait:
            total += loss.item()
        yield


def measure_peer(bench: Bench, workers: int, wait: bool) -> dict[str, object]:
    """Steady rate of the plain loop."""
    warm = 2 * max(workers, 1) + 50 if bench.size is FULL else 5
    rows = min(bench.size.rows, (bench.size.peer_batches + warm + 4 * workers) * 32)
    loop = peer_steps(bench.classifier(), plain_batches(bench, rows, workers), wait)
    for _ in range(warm):
        next(loop)
    count = min(bench.size.peer_batches, rows // 32 - warm)
    taken = wall_seconds(lambda: [next(loop) for _ in range(count)], bench.device)
    loop.close()
    per_s = 32 * count / taken
    return {
        "batches": count,
        "rows_per_s": per_s,
        "step_us": 1e6 * taken / count,
        "epoch_s_extrapolated": bench.size.rows / per_s,
    }


# ---------------------------------------------------------------------------------------------- parity, reading


def measure_parity(bench: Bench) -> dict[str, object]:
    """One epoch without dropout, in one order, from one start: our steps against a plain loop."""
    rows = min(bench.size.parity_rows, bench.size.rows)
    order = bench.order(rows)
    start = bench.classifier(dropout=0.0)
    ours, plain = copy.deepcopy(start), copy.deepcopy(start)
    feed = ResidentFeed(bench.matrix[:rows], bench.labels[:rows].to(bench.device))
    ours_loss = visit(feed, steps_for(ours, bench.options, bench.device), order, RATE, 0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = torch.zeros(1, dtype=torch.float64, device=bench.device)
    plain.train()
    for batch in order.to(bench.device).split(32):
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(bench.matrix[batch]), bench.labels[batch.cpu()].to(bench.device))
        loss.backward()
        optimizer.step()
        losses += loss.detach() * len(batch)
    pairs = {name: (value, plain.state_dict()[name]) for name, value in ours.state_dict().items()}
    moved = start.hidden.weight - plain.hidden.weight
    return {
        "rows": rows,
        "train_loss": {"ours": ours_loss, "plain": float(losses) / rows},
        "largest_difference": {
            name: float((a.double() - b.double()).abs().max()) for name, (a, b) in pairs.items()
        },
        "first_weights_relative_to_their_change": (
            (ours.hidden.weight - plain.hidden.weight).norm() / moved.norm()
        ).item(),
    }


def measure_reading(bench: Bench) -> dict[str, object]:
    """From merged files on disk (in the cache) to the matrix on the device."""
    per_file, width = bench.size.rows_per_file, bench.size.width
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name))
        for number in range(bench.size.files):
            label = number % 2
            source = folder.source_of(
                folder.root / f"{('bacteria', 'viral')[label]}.1.1.identified_nucleotide.fa"
            )
            assert source is not None
            pair = source.pair(number + 1)
            pair.merged.parent.mkdir(parents=True, exist_ok=True)
            ids = [f"G{number}_chunk_{row}F1" for row in range(per_file)]
            rows = bench.matrix[number * per_file : (number + 1) * per_file].cpu().numpy()
            write_merged(pair.merged, ids, rows, None, label)
        began = time.perf_counter()
        found = survey(folder.root)
        surveyed = time.perf_counter()
        where = Placement.DEVICE if bench.device.type == "cuda" else Placement.MEMORY
        taken = wall_seconds(lambda: read_features(found, where, bench.device, folder.root), bench.device)
    size = found.rows * width * 4
    return {
        "files": bench.size.files,
        "survey_s": surveyed - began,
        "read_s": taken,
        "gb_per_s": size / 1e9 / taken,
        "seconds_for_16_gb": taken * bench.size.rows / found.rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device, size = torch.device(arguments.device), TINY if arguments.tiny else FULL
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    result: dict[str, object] = {
        "what": "training at batches of 32, one epoch over all rows",
        "rows": size.rows,
        "width": size.width,
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "nucpro": nucpro.__version__,
        "peer_workers": arguments.workers,
        "peer": "timed on a slice of batches; its epoch is extrapolated",
    }
    began = time.perf_counter()
    bench = make_bench(size, device)
    measurements: dict[str, Callable[[], object]] = {
        "parity": lambda: measure_parity(bench),
        "ours": lambda: measure_ours(bench),
        "peer_waiting_for_each_loss": lambda: measure_peer(bench, arguments.workers, True),
        "peer_without_waiting": lambda: measure_peer(bench, arguments.workers, False),
        "streamed_from_memory": lambda: measure_streamed(bench),
        "larger_batches": lambda: measure_batch_sizes(bench),
        "reading": lambda: measure_reading(bench),
    }
    for name, measure in measurements.items():
        result[name] = measure()
        result["total_s"] = time.perf_counter() - began
        print(name, json.dumps(result[name]), flush=True)
        if arguments.output:  # after each part, so that a stopped run leaves what it has measured
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    ours = result["ours"]
    for peer in ("peer_waiting_for_each_loss", "peer_without_waiting"):
        times = ours["rows_per_s"] / result[peer]["rows_per_s"]  # type: ignore[index]
        result[f"times_{peer}"] = times
        print(f"{times:.1f} times the {peer.replace('_', ' ')}")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
