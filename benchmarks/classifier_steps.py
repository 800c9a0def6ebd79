"""Two ways to run the classifier's steps on a GPU: own kernels, and torch's operations recorded as a CUDA graph.

    python benchmarks/classifier_steps.py --output benchmarks/results/classifier_steps_h100.json
    python benchmarks/classifier_steps.py --tiny --device cpu      # proves the script on any machine in seconds

For batches of 32, 64, 128 and 512 rows: rows per second of whole epochs (median), what the first epoch takes more
(building kernels, recording), and the parity of one epoch without dropout with a plain loop. Variants of the graph
show what a choice inside of it is worth; the kernels of one graph are listed by their time on the device.

Rule that was set before: the graph for every batch size if it reaches 350,000 rows/s at 32; else own kernels below 64.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import platform
import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from timing import wall_seconds
from torch.nn import functional as F

import nucpro
from nucpro.classifier.fitting import Block, Steps, TorchSteps
from nucpro.classifier.fused import FusedSteps
from nucpro.classifier.model import Classifier

RATE, MOMENTUM = 2e-4, 0.9
DECISIVE = 350_000


@dataclass(frozen=True)
class Size:
    """Amount of work."""

    rows: int
    width: int
    epochs: int
    eager_rows: int
    parity_rows: int
    batch_sizes: tuple[int, ...]


FULL = Size(655_360, 2048, 3, 32_000, 32_000, (32, 64, 128, 512))
TINY = Size(600, 32, 1, 200, 200, (32, 128))


class HandSlopes(TorchSteps):
    """The gradient of the scores is written out, so that no kernels of the loss and its gradient are needed."""

    def _visit(self, batches: Sequence[tuple[int, int]]) -> None:
        scores_of_all = torch.zeros(len(self._rows), 2, device=self._rows.device)
        share = torch.empty(len(self._rows), 1, device=self._rows.device)  # of a row in the mean of its batch
        for start, end in batches:
            share[start:end] = 1 / (end - start)
        targets = -share * torch.stack([1 - self._labels, self._labels], 1)
        parameters = list(self._parameters.values())
        for start, end in batches:
            scores = self._classifier(self._rows[start:end])
            slopes = torch.add(targets[start:end], scores.detach().softmax(1), alpha=1 / (end - start))
            for parameter, slope in zip(
                parameters, torch.autograd.grad(scores, parameters, slopes), strict=True
            ):
                parameter.grad = slope
            self._optimizer.step()
            scores_of_all[start:end] = scores.detach()
        losses = F.cross_entropy(scores_of_all, self._labels, reduction="none")
        for number, (start, end) in enumerate(batches):
            self._losses[number] = losses[start:end].mean()


class Compiled(TorchSteps):
    """The classifier's forward and backward are compiled by torch.compile."""

    def __init__(self, classifier: Classifier, batch_size: int, momentum: float) -> None:
        super().__init__(classifier, batch_size, momentum)
        self._loss = torch.compile(self._plain_loss, fullgraph=True, dynamic=False)

    def _plain_loss(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self._classifier(rows), labels)

    def _visit(self, batches: Sequence[tuple[int, int]]) -> None:
        parameters = list(self._parameters.values())
        for number, (start, end) in enumerate(batches):
            whole = end - start == self._batch_size
            loss = (self._loss if whole else self._plain_loss)(self._rows[start:end], self._labels[start:end])
            for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = slope
            self._optimizer.step()
            self._losses[number] = loss.detach()


class Eager(TorchSteps):
    """Without a graph."""

    def __init__(self, classifier: Classifier, batch_size: int, momentum: float) -> None:
        super().__init__(classifier, batch_size, momentum)
        self._records = False


@dataclass(frozen=True)
class Way:
    """A way to run steps."""

    name: str
    kind: Callable[[Classifier, int, float], Steps]
    most_rows: int = 1 << 20
    cudnn: bool = True
    is_slow: bool = False


WAYS = (
    Way("graph", TorchSteps),
    Way("kernels", FusedSteps, most_rows=32),
    Way("graph, batch norm without cuDNN", TorchSteps, cudnn=False),
    Way("graph, slopes written out", HandSlopes),
    Way("graph, slopes written out, without cuDNN", HandSlopes, cudnn=False),
    Way("eager", Eager, is_slow=True),
    Way("graph, compiled", Compiled),
)


@dataclass(frozen=True)
class Bench:
    """Everything that measurements share."""

    size: Size
    device: torch.device
    block: Block

    def classifier(self, dropout: float = 0.5) -> Classifier:
        torch.manual_seed(0)
        return Classifier(self.size.width, dropout=dropout).to(self.device)

    def some(self, rows: int) -> Block:
        return Block(self.block.matrix, self.block.labels, self.block.order[:rows])

    def seconds(self, run: Callable[[], object]) -> float:
        return wall_seconds(run, self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def make_bench(size: Size, device: torch.device) -> Bench:
    matrix = torch.empty(size.rows, size.width, device=device)
    for start in range(0, size.rows, 100_000):
        matrix[start : start + 100_000].normal_()
    labels = (matrix[:, :8].sum(1) > 0).long()
    order = torch.randperm(size.rows, generator=torch.Generator().manual_seed(1)).to(device)
    return Bench(size, device, Block(matrix, labels, order))


def visit(steps: Steps, block: Block, seed: int) -> float:
    steps.begin_epoch(RATE, seed)
    return float(steps.run(block)) / len(block.order)


def measure(bench: Bench, way: Way, batch_size: int) -> dict[str, object]:
    """Rows per second of whole epochs, and the parity of one."""
    rows = bench.size.eager_rows if way.is_slow else bench.size.rows
    block = bench.some(rows)
    with torch.backends.cudnn.flags(enabled=way.cudnn):
        steps = way.kind(bench.classifier(), batch_size, MOMENTUM)
        losses: list[float] = []
        times = [
            bench.seconds(lambda seed=epoch: losses.append(visit(steps, block, seed)))  # type: ignore[misc]
            for epoch in range(bench.size.epochs + 1)
        ]
        typical = statistics.median(times[1:])
        return {
            "way": way.name,
            "batch_size": batch_size,
            "rows_per_s": rows / typical,
            "step_us": 1e6 * typical / (rows / batch_size),
            "first_epoch_more_s": times[0] - typical,
            "epochs_s": times,
            "train_loss": losses,
            "repeats": repeats(bench, way, batch_size),
            "parity": parity(bench, way, batch_size),
        }


def repeats(bench: Bench, way: Way, batch_size: int) -> bool:
    """Whether the same seed gives the same bytes, dropout included, from two recordings."""
    block = bench.some(min(bench.size.parity_rows, bench.size.rows))
    found = []
    for _ in range(2):
        classifier = bench.classifier()
        visit(way.kind(classifier, batch_size, MOMENTUM), block, 5)
        found.append(classifier.hidden.weight.detach().clone())
    return torch.equal(*found)


def parity(bench: Bench, way: Way, batch_size: int) -> dict[str, object]:
    """One epoch without dropout, in one order, from one start, beside a plain loop; and a second one for momentum."""
    block = bench.some(min(bench.size.parity_rows, bench.size.rows))
    start = bench.classifier(dropout=0.0)
    ours, plain = copy.deepcopy(start), copy.deepcopy(start)
    steps = way.kind(ours, batch_size, MOMENTUM)
    loss = [visit(steps, block, epoch) for epoch in range(2)]
    optimizer = torch.optim.SGD(plain.parameters(), lr=RATE, momentum=MOMENTUM)
    plain_loss = [plain_epoch(plain, optimizer, block, batch_size) for _ in range(2)]
    return {
        "rows": len(block.order),
        "train_loss": {"ours": loss, "plain": plain_loss},
        "first_weights_relative_to_their_change": _ratio(
            ours.hidden.weight, plain.hidden.weight, start.hidden.weight
        ),
        "largest_difference": {
            name: float((value.double() - plain.state_dict()[name].double()).abs().max())
            for name, value in ours.state_dict().items()
        },
    }


def _ratio(ours: torch.Tensor, plain: torch.Tensor, start: torch.Tensor) -> float:
    return float(((ours - plain).norm() / (start - plain).norm()).detach())


def plain_epoch(classifier: Classifier, optimizer: torch.optim.SGD, block: Block, batch_size: int) -> float:
    total = torch.zeros(1, dtype=torch.float64, device=block.matrix.device)
    classifier.train()
    for batch in block.order.split(batch_size):
        if len(batch) < 2:
            continue
        optimizer.zero_grad()
        loss = F.cross_entropy(classifier(block.matrix[batch]), block.labels[batch])
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(batch)
    return float(total) / len(block.order)


def kernels_of(bench: Bench, way: Way, batch_size: int) -> list[str]:
    """Time on the device by kernel, of one gather and the steps of one graph."""
    if bench.device.type != "cuda":
        return []
    with torch.backends.cudnn.flags(enabled=way.cudnn):
        steps = way.kind(bench.classifier(), batch_size, MOMENTUM)
        rows = len(steps._rows) if isinstance(steps, TorchSteps) else 128 * batch_size
        block = bench.some(rows)
        visit(steps, block, 0)
        bench.wait()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            visit(steps, block, 1)
            bench.wait()
    per = rows / batch_size
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    return [
        f"{event.self_device_time_total / per:8.2f} us a step, {event.count / per:5.2f} times  {event.key[:110]}"
        for event in events
        if event.self_device_time_total > 0
    ]


@contextlib.contextmanager
def told(what: str, failures: list[str]) -> Iterator[None]:
    """One way that fails does not end the others."""
    try:
        yield
    except Exception:  # noqa: BLE001
        failures.append(f"{what}: {traceback.format_exc(limit=-4)}")
        print(failures[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], metavar="WAY")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    size = TINY if arguments.tiny else FULL
    ways = [way for way in WAYS if not arguments.ways or way.name in arguments.ways]
    if device.type != "cuda":
        ways = [
            way for way in ways if way.kind not in (FusedSteps, Compiled)
        ]  # these need a GPU and a compiler
    result: dict[str, object] = {
        "what": "steps of the classifier, whole epochs",
        "rows": size.rows,
        "width": size.width,
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "nucpro": nucpro.__version__,
    }
    bench = make_bench(size, device)
    found: list[dict[str, object]] = []
    failures: list[str] = []
    profiles: dict[str, list[str]] = {}
    result |= {"ways": found, "kernels_at_32": profiles, "failures": failures}
    for way in ways:
        for batch_size in size.batch_sizes:
            if batch_size <= way.most_rows:
                with told(f"{way.name} at {batch_size}", failures):
                    found.append(measure(bench, way, batch_size))
                    print(json.dumps(found[-1]), flush=True)
                save(arguments.output, result)
        with told(f"kernels of {way.name}", failures):
            profiles[way.name] = kernels_of(bench, way, 32)
            print(f"{way.name}:", *profiles[way.name], sep="\n  ", flush=True)
    print("rows/s:")
    for one in found:
        print(
            f"  {one['batch_size']:>5} {one['rows_per_s']:>12,.0f}  {one['way']}, repeats: {one['repeats']}"
        )
    at_32 = [one["rows_per_s"] for one in found if one["way"] == "graph" and one["batch_size"] == 32]
    if at_32:
        result["decision"] = "graph everywhere" if at_32[0] >= DECISIVE else "kernels below 64, graph above"  # type: ignore[operator]
        print(f"decision: {result['decision']}")
    save(arguments.output, result)


def save(path: Path | None, result: dict[str, object]) -> None:
    if path:  # after each part, so that a stopped run leaves what it has measured
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
