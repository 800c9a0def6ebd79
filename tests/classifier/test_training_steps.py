"""Optimisation steps and how rows get to them: plain torch, kernels, blocks brought from elsewhere."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nucpro.classifier.fitting import (
    ResidentFeed,
    StreamedFeed,
    TorchSteps,
    batch_ends,
    feed_of,
    steps_for,
    viral_margins,
)
from nucpro.classifier.model import Classifier
from nucpro.classifier.options import TrainingOptions

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def rows_and_labels(count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(1))
    return rows, (rows[:, 0] > 0).long()


def started(width: int, dropout: float = 0.5) -> Classifier:
    torch.manual_seed(2)
    return Classifier(width, 32, dropout)


def test_kernels_equal_torch_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    # Triton decides at import whether it interprets, so this needs a process of its own.
    options = ["-q", "-p", "no:cacheprovider", str(HERE / "interpreted_steps.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_an_epoch_is_that_of_a_plain_loop_bit_by_bit() -> None:
    rows, labels = rows_and_labels(300, 40)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    ours, plain = started(40), started(40)
    steps = TorchSteps(ours, 32, 0.9)
    steps.begin_epoch(2e-4, 7)
    total = sum(steps.run(block) for block in ResidentFeed(rows, labels).blocks(order))

    torch.manual_seed(7)
    optimizer = torch.optim.SGD(plain.parameters(), lr=2e-4, momentum=0.9)
    plain.train()
    expected = 0.0
    for batch in order.split(32):
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(rows[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        expected += loss.item() * len(batch)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_running_sums_can_be_taken_over() -> None:
    rows, labels = rows_and_labels(64, 10)
    order = torch.arange(64)
    whole, first = started(10, 0.0), started(10, 0.0)
    whole_steps, first_steps = TorchSteps(whole, 32, 0.9), TorchSteps(first, 32, 0.9)
    for steps, epochs in ((whole_steps, 2), (first_steps, 1)):
        for epoch in range(epochs):
            steps.begin_epoch(0.1, epoch)
            steps.run(next(ResidentFeed(rows, labels).blocks(order)))
    second = copy.deepcopy(first)
    steps = TorchSteps(second, 32, 0.9)
    assert all(not total.any() for total in steps.momentum().values())
    steps.restore_momentum(first_steps.momentum())
    steps.begin_epoch(0.1, 1)
    steps.run(next(ResidentFeed(rows, labels).blocks(order)))
    assert torch.equal(second.hidden.weight, whole.hidden.weight)


@pytest.mark.parametrize(("rows", "ends"), [(64, [32, 64]), (65, [32, 64]), (66, [32, 64, 66]), (1, [])])
def test_a_last_batch_of_one_row_is_left_out(rows: int, ends: list[int]) -> None:
    assert [end for _, end in batch_ends(rows, 32)] == ends


@pytest.mark.parametrize("count", [5, 64, 65, 200])
def test_streamed_rows_are_those_of_the_file(count: int) -> None:
    rows, labels = rows_and_labels(200, 12)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))[:count]
    got = [
        (block.matrix[block.order].clone(), block.labels[block.order].clone())
        for block in StreamedFeed(rows, labels, CPU, 64).blocks(order)
    ]
    assert torch.equal(torch.cat([some for some, _ in got]), rows[order])
    assert torch.equal(torch.cat([some for _, some in got]), labels[order])


def test_streaming_changes_no_weight() -> None:
    rows, labels = rows_and_labels(300, 24)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    results = []
    for feed in (ResidentFeed(rows, labels), StreamedFeed(rows, labels, CPU, 96)):
        classifier = started(24)
        steps = TorchSteps(classifier, 32, 0.9)
        steps.begin_epoch(0.01, 1)
        for block in feed.blocks(order):
            steps.run(block)
        results.append((classifier.state_dict(), viral_margins(classifier, feed, torch.arange(300))))
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-6, atol=1e-7)
    for name, value in results[0][0].items():
        assert torch.equal(results[1][0][name], value), name


def test_margins_are_those_of_single_rows() -> None:
    rows, labels = rows_and_labels(40, 16)
    classifier = started(16)
    feed = feed_of(rows, labels, CPU, 32)
    assert isinstance(feed, ResidentFeed)
    margins = viral_margins(classifier, feed, torch.tensor([7, 3, 30]))
    assert margins.dtype == torch.float64
    alone = torch.cat([classifier.probabilities(rows[row : row + 1])[:, 1] for row in (7, 3, 30)])
    torch.testing.assert_close(torch.sigmoid(margins), alone.double(), rtol=1e-5, atol=1e-7)


def test_the_choice_of_steps_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="nucpro")
    assert isinstance(steps_for(started(8), TrainingOptions(device="cpu"), CPU), TorchSteps)
    assert "Steps: plain torch, in float32 (no fused kernels: cpu is not an NVIDIA GPU)" in caplog.messages
    large = TrainingOptions(batch_size=64)
    assert isinstance(steps_for(started(8), large, torch.device("cuda", 0)), TorchSteps)
    assert "batches of 64 are faster without them; they take at most 32" in caplog.messages[-1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_recorded_epoch_is_that_of_single_steps(dropout: float) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    rows, labels = rows_and_labels(20_000, 40)
    order = torch.randperm(20_000, generator=torch.Generator().manual_seed(3))
    results = []
    for records in (True, False):
        classifier = started(40, dropout).to(device)
        steps = TorchSteps(classifier, 32, 0.9)
        steps._records = records
        for epoch in range(2):
            steps.begin_epoch(0.01, epoch)
            losses = [
                steps.run(block) for block in feed_of(rows.to(device), labels, device, 32).blocks(order)
            ]
        results.append((classifier.state_dict(), torch.cat(losses)))
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-4)
    for name, value in results[1][0].items():
        torch.testing.assert_close(results[0][0][name], value, rtol=1e-4, atol=1e-5, msg=name)
