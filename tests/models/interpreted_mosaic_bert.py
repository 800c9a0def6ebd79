"""What MosaicBERT adds to the kernels, against torch; run by test_kernels.py in Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import random_mosaic_bert as mosaic
from nucpro.models.config import ALL_TOKENS
from nucpro.models.kernels.attention import attend, attention_tiles
from nucpro.models.kernels.finish import gated_gelu
from nucpro.models.mosaic_bert import alibi_slopes, load_mosaic_bert
from nucpro.models.mosaic_bert_fused import FusedMosaicBert
from nucpro.models.tensors import pool_states
from nucpro.models.weights import locate

HALF = torch.float16
LENGTHS = (1, 2, 63, 64, 65, 129)
FEW = (2, 66, 9)
"""The interpreter takes its time over a whole forward."""


def drawn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def relative_error(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("width", [80, 1024, 1030])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_gate_equals_torch_and_rounds_once(width, dtype):
    halves = drawn(7, 2 * width, dtype=dtype) * 3
    first, second = halves.double().chunk(2, dim=1)
    exact = F.gelu(first) * second
    result = gated_gelu(halves)
    assert result.dtype == dtype
    assert relative_error(result, exact) <= 2 * relative_error(exact.to(dtype), exact)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_gate_keeps_infinity_and_nan_visible():
    halves = drawn(3, 64)
    halves[0, 1], halves[1, 33] = math.nan, math.inf
    assert gated_gelu(halves).isfinite().all(dim=1).tolist() == [False, False, True]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (HALF, 6e-4)])
@pytest.mark.parametrize(("heads", "head_width"), [(1, 16), (3, 16), (12, 16), (2, 64)])
def test_attention_with_linear_biases_equals_the_reference(heads, head_width, dtype, most):
    mixed = drawn(sum(LENGTHS), 3 * heads * head_width, dtype=dtype)
    expected = torch.cat([mosaic.attention(part.double(), heads) for part in mixed.split(LENGTHS)])
    context = attend(mixed, attention_tiles(LENGTHS), heads, torch.tensor(alibi_slopes(heads)))
    assert relative_error(context, expected) <= most


def test_biases_are_not_rounded_in_half_precision():
    """A score of 212 that cancels a bias of -212.13, which float16 can hold as -212.125 only."""
    distance, slope = 300, 2**-0.5
    mixed = torch.zeros(distance + 1, 3 * 16, dtype=HALF)
    # Scores are divided by 4, the root of the head's width.
    mixed[0, 0], mixed[distance, 16], mixed[distance, 32] = 4.0, 212.0, 1.0
    share = float(attend(mixed, attention_tiles([distance + 1]), 1, torch.tensor([slope]))[0, 0])
    scores = -slope * torch.arange(distance + 1, dtype=torch.float64)
    scores[distance] += 212.0
    assert share == pytest.approx(float(scores.softmax(dim=0)[distance]), rel=torch.finfo(HALF).eps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mosaic.checkpoint(tmp_path_factory.mktemp("saved") / "tiny", width=48, heads=3)


def loaded(folder, dtype):
    return load_mosaic_bert(locate(str(folder)), device=torch.device("cpu"), dtype=dtype)


@torch.inference_mode()
def test_forward_by_kernels_equals_the_reference_and_leaves_weights_alone(folder):
    model = loaded(folder, torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens = mosaic.random_tokens(FEW)
    expected = mosaic.reference(folder, tokens, FEW, heads=3)
    difference = (FusedMosaicBert(model)(tokens, FEW) - expected).abs()
    assert difference.max() <= 2e-5, f"at most {difference.max():.3g}, in the mean {difference.mean():.3g}"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@torch.inference_mode()
def test_forward_by_kernels_in_half_precision_points_the_same_way(folder):
    tokens = mosaic.random_tokens(FEW)
    expected = mosaic.reference(folder, tokens, FEW, heads=3)
    hidden = FusedMosaicBert(loaded(folder, HALF))(tokens, FEW)
    assert hidden.dtype == HALF
    pooled = [pool_states(states, FEW, ALL_TOKENS) for states in (hidden, expected)]
    assert torch.cosine_similarity(*pooled).min() >= 0.9999
