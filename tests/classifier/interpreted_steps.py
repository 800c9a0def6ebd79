"""The kernels of training against torch; run by test_steps.py in Triton's interpreter, which computes on a CPU."""

from __future__ import annotations

import copy

import pytest
import torch
import triton
import triton.language as tl

from nucpro.classifier.fitting import Block, TorchSteps
from nucpro.classifier.fused import FusedSteps
from nucpro.classifier.model import Classifier


def block(rows: int, width: int, columns: slice = slice(None)) -> Block:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(rows, width, generator=generator)
    labels = (matrix[:, :4].sum(1) > 0).long()
    return Block(matrix[:, columns], labels, torch.randperm(rows, generator=generator))


def trained(kind, data: Block, size: int, *, hidden: int = 20, dropout: float = 0.0, epochs: int = 2):
    torch.manual_seed(1)
    classifier = Classifier(data.matrix.shape[1], hidden, dropout)
    steps = kind(classifier, size, 0.9)
    losses = []
    for epoch in range(epochs):
        steps.begin_epoch(0.01 / (1 + epoch), epoch + 5)
        losses.append(float(steps.run(data)))
    return classifier, steps, losses


@pytest.mark.parametrize(
    ("rows", "width", "size"),
    [(64, 66, 32), (43, 70, 32), (17, 40, 16), (60, 40, 24)],
    ids=["whole", "rest of 11", "rest of 1 left out", "size no power of two"],
)
def test_two_visits_give_the_weights_that_plain_torch_gives(rows: int, width: int, size: int) -> None:
    data = block(rows, width)
    plain, plain_steps, plain_losses = trained(TorchSteps, data, size)
    fused, fused_steps, fused_losses = trained(FusedSteps, data, size)
    assert fused_losses == pytest.approx(plain_losses, rel=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-4, atol=2e-6, msg=name)
    for name, value in plain_steps.momentum().items():
        torch.testing.assert_close(fused_steps.momentum()[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_part_of_the_columns_is_read_where_it_lies() -> None:
    data = block(64, 96, slice(32, 96))
    assert not data.matrix.is_contiguous()
    plain, _, _ = trained(TorchSteps, data, 32, epochs=1)
    fused, _, _ = trained(FusedSteps, data, 32, epochs=1)
    torch.testing.assert_close(fused.hidden.weight, plain.hidden.weight, rtol=1e-4, atol=1e-6)


@triton.jit
def _draws(target, seed, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    tl.store(target + place, tl.rand(seed, place))


def test_dropout_keeps_what_its_generator_says_and_scales_it() -> None:
    data, hidden, seed = block(32, 64), 32, 9
    torch.manual_seed(1)
    classifier = Classifier(64, hidden, 0.5)
    reference = copy.deepcopy(classifier)
    steps = FusedSteps(classifier, 32, 0.9)
    steps.begin_epoch(0.01, seed)
    loss = steps.run(data)
    drawn = torch.empty(32 * hidden)
    _draws[(1,)](drawn, seed << 31, COUNT=32 * hidden)
    kept = (drawn.reshape(32, hidden) >= 0.5).float()
    assert 0.4 < float(kept.mean()) < 0.6
    inner = torch.relu(reference.norm(reference.hidden(data.matrix[data.order]))) * kept * 2
    expected = torch.nn.functional.cross_entropy(reference.output(inner), data.labels[data.order])
    assert float(loss) / 32 == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    moved = reference.hidden.weight - 0.01 * reference.hidden.weight.grad
    torch.testing.assert_close(classifier.hidden.weight, moved, rtol=1e-4, atol=1e-6)


def test_dropout_differs_from_step_to_step_and_repeats_with_its_seed() -> None:
    one_batch_twice = block(32, 64)
    data = Block(one_batch_twice.matrix, one_batch_twice.labels, one_batch_twice.order.repeat(2))
    torch.manual_seed(1)
    start = Classifier(64, 32, 0.5)

    def losses(seed: int) -> list[float]:
        steps = FusedSteps(copy.deepcopy(start), 32, 0.0)
        steps.begin_epoch(0.0, seed)
        steps.run(data)
        return steps._state.losses.tolist()

    first, second = losses(1)
    assert first != second
    assert losses(1) == [first, second]
    assert losses(2) != [first, second]
