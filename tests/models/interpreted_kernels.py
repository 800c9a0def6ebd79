"""The kernels against torch; run by test_kernels.py in Triton's interpreter, which computes them on a CPU."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import random_esm
from nucpro.models.config import ALL_TOKENS, POOLINGS, RESIDUES_ONLY
from nucpro.models.esm2 import Esm2, rotary_tables, rotate
from nucpro.models.fused import FusedEsm2
from nucpro.models.kernels import finish, pool
from nucpro.models.kernels.attention import attend, attention_tiles
from nucpro.models.kernels.finish import Rotary
from nucpro.models.kernels.norm import layer_norm
from nucpro.models.kernels.product import Blocks, linear_gelu, linear_rotated
from nucpro.models.tensors import pool_states

BLOCKS = Blocks(rows=32, columns=128, depth=32, programs=2)
HALF = torch.float16
PRODUCTS = ["hopper", "cublas"]
LENGTHS = (1, 2, 63, 64, 65, 129)
# The interpreter computes with numpy, which warns of the NaN that a test puts in.
puts_in_nan = pytest.mark.filterwarnings("ignore:(invalid value|All-NaN):RuntimeWarning")


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative_error(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def with_gelu(products, *operands):
    """The product with GELU of either way; here torch stands for cuBLAS."""
    return finish.linear_gelu(*operands) if products == "cublas" else linear_gelu(*operands, BLOCKS)


def rotated(products, *operands, rotary):
    if products == "cublas":
        return finish.linear_rotated(*operands, rotary)
    return linear_rotated(*operands, BLOCKS, rotary)


def gelu_of(values):
    """The kernel's GELU of any number of values, through a product with the identity matrix."""
    rows = values.reshape(-1, 32)
    return linear_gelu(
        rows, torch.eye(32, dtype=rows.dtype), torch.zeros(32, dtype=rows.dtype), BLOCKS
    ).flatten()


def test_gelu_is_within_its_stated_error_over_the_whole_range():
    values = torch.linspace(-12, 12, 32 * 400)
    exact = F.gelu(values.double())
    error = (gelu_of(values).double() - exact).abs()
    normal = exact.abs() >= 2**-14
    assert (error[normal] / exact[normal].abs()).max() <= 1.2e-4
    assert error[~normal].max() <= 1e-8


@puts_in_nan
def test_gelu_keeps_infinity_and_nan_visible():
    values = torch.zeros(32)
    for bad in (math.inf, -math.inf, math.nan):
        values[0] = bad
        # The identity product spreads a bad value over its row, as any product would.
        assert not gelu_of(values).isfinite().any()


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize(
    ("rows", "width", "columns"), [(1, 8, 32), (33, 40, 96), (70, 64, 128), (64, 96, 256)]
)
def test_product_with_gelu_equals_torch(rows, width, columns, products):
    inputs, weight, bias = drawn(rows, width), drawn(columns, width, seed=1), drawn(columns, seed=2)
    expected = F.gelu(F.linear(inputs, weight, bias))
    assert relative_error(with_gelu(products, inputs, weight, bias), expected) <= 5e-5


def test_product_with_gelu_in_half_precision_rounds_once():
    inputs, weight, bias = (drawn(*shape, dtype=HALF) for shape in ((40, 64), (128, 64), (128,)))
    exact = F.gelu(F.linear(inputs.double(), weight.double(), bias.double()))
    result = linear_gelu(inputs, weight, bias, BLOCKS)
    assert result.dtype == HALF
    assert relative_error(result, exact) <= 1.1 * relative_error(exact.to(HALF), exact)


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize(("heads", "head_width"), [(2, 16), (4, 16), (6, 32), (2, 64), (2, 128)])
def test_rotated_product_equals_torch(heads, head_width, products):
    rows, width, columns = 37, 40, heads * head_width
    inputs, weight, bias = drawn(rows, width), drawn(3 * columns, width, seed=1), drawn(3 * columns, seed=2)
    tables = rotary_tables(200, 10_000.0 ** -(torch.arange(0, head_width, 2) / head_width))
    positions = torch.randint(200, (rows,), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    rotary = Rotary(*tables, positions, head_width)
    mixed = rotated(products, inputs, weight, bias, rotary=rotary)
    query, key, value = mixed.view(rows, 3, -1).unbind(1)
    plain = F.linear(inputs, weight, bias).view(rows, 3, heads, head_width)
    turned = rotate(plain, *(table[positions.long(), None, None] for table in tables))
    scale = math.log2(math.e) * head_width**-0.5
    assert relative_error(query, turned[:, 0].flatten(1) * scale) <= 1e-6
    assert relative_error(key, turned[:, 1].flatten(1)) <= 1e-6
    assert relative_error(value, plain[:, 2].flatten(1)) <= 1e-6


def attention_in_float64(mixed, lengths, heads):
    contexts = []
    for part in mixed.double().split(list(lengths)):
        query, key, value = part.view(len(part), 3, heads, -1).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) * math.log(2)).softmax(-1)
        contexts.append((weights @ value).transpose(0, 1).flatten(1))
    return torch.cat(contexts)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (HALF, 6e-4)])
@pytest.mark.parametrize("head_width", [16, 64])
def test_attention_equals_torch_at_the_edges_of_tiles(head_width, dtype, most):
    mixed = drawn(sum(LENGTHS), 3 * 2 * head_width, dtype=dtype)
    context = attend(mixed, attention_tiles(LENGTHS), heads=2)
    assert context.isfinite().all()
    assert relative_error(context, attention_in_float64(mixed, LENGTHS, heads=2)) <= most


@pytest.mark.parametrize("size", [1e-3, 30.0])
def test_attention_survives_scores_of_any_size(size):
    lengths = (5, 100)
    mixed = drawn(105, 96)
    mixed[:, :64] *= size
    context = attend(mixed, attention_tiles(lengths), heads=2)
    assert relative_error(context, attention_in_float64(mixed, lengths, heads=2)) <= 1e-5


@puts_in_nan
def test_attention_does_not_see_neighbours():
    lengths = (70, 3, 40)
    mixed = drawn(sum(lengths), 96, dtype=HALF)
    clean = attend(mixed, attention_tiles(lengths), heads=2)
    mixed[70:73] = math.nan
    spoiled = attend(mixed, attention_tiles(lengths), heads=2)
    assert spoiled[70:73].isnan().all()
    assert torch.equal(spoiled[:70], clean[:70])
    assert torch.equal(spoiled[73:], clean[73:])


@pytest.mark.parametrize("width", [8, 40, 320])
@pytest.mark.parametrize("offset", [0.0, 2000.0])
def test_norm_equals_torch_for_rows_of_any_size(width, offset):
    hidden = (drawn(5, width) * 3 + offset).to(HALF)
    weight, bias, shift = (
        drawn(width, dtype=HALF),
        drawn(width, dtype=HALF, seed=1),
        drawn(width, seed=2) * 50,
    )
    shifted = hidden.double() + shift.double()
    expected = F.layer_norm(shifted, (width,), weight.double(), bias.double(), 1e-5)
    assert relative_error(layer_norm(hidden, weight, bias, shift, 1e-5), expected) <= 4e-4


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("width", [8, 256, 320])
@pytest.mark.parametrize("span", [ALL_TOKENS, RESIDUES_ONLY], ids=["all tokens", "residues"])
def test_means_equal_torch(span, width, dtype):
    lengths = (3, 16, 17, 18, 100)
    hidden = (drawn(sum(lengths), width) + 5).to(dtype)
    means = pool.pool_states(hidden, lengths, span)
    assert means.dtype == torch.float32
    assert relative_error(means, pool_states(hidden, lengths, span)) <= 1e-6
    for poolings in (POOLINGS, ("std",), ("cls", "min")):
        found = pool.pool_states(hidden, lengths, span, poolings)
        assert relative_error(found, pool_states(hidden, lengths, span, poolings)) <= 1e-5
    # With others beside it or not, the mean is the same to the bit.
    assert torch.equal(pool.pool_states(hidden, lengths, span, POOLINGS)[:, :width], means)


@puts_in_nan
def test_means_do_not_see_neighbours():
    hidden = drawn(20, 8)
    clean = pool.pool_states(hidden, (5, 10, 5), RESIDUES_ONLY)
    hidden[5:15] = math.nan
    spoiled = pool.pool_states(hidden, (5, 10, 5), RESIDUES_ONLY)
    assert spoiled[1].isnan().all()
    others = pool.pool_states(hidden, (5, 10, 5), RESIDUES_ONLY, POOLINGS)
    assert others[1].isnan().all()
    assert others[::2].isfinite().all()
    assert torch.equal(spoiled[::2], clean[::2])


@torch.inference_mode()
def both(model, sequences, products):
    """Hidden states by the plain forward and by kernels."""
    tokens, lengths = random_esm.packed(sequences)
    blocks = BLOCKS if products == "hopper" else None
    return model(tokens, lengths), FusedEsm2(model, blocks)(tokens, lengths)


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 64, "num_attention_heads": 4},
        {"hidden_size": 72, "num_attention_heads": 3, "intermediate_size": 96},
        {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1},
    ],
    ids=["heads of 16", "odd count of heads of 24", "heads of 8"],
)
def test_forward_by_kernels_equals_the_plain_one(shape, products):
    model = Esm2.from_huggingface(random_esm.model(**({"num_hidden_layers": 2} | shape)))
    plain, fused = both(model, random_esm.proteins((1, 7, 62, 63)), products)
    difference = (fused - plain).abs()
    message = f"difference at most {difference.max():.3g}, in the mean {difference.mean():.3g}"
    assert difference.max() <= 3e-4, message
    assert difference.mean() <= 3e-5, message


@torch.inference_mode()
def test_states_of_every_layer_equal_those_without_kernels():
    model = Esm2.from_huggingface(random_esm.model())
    tokens, lengths = random_esm.packed(random_esm.proteins((1, 62)))
    for layers in ((0,), (1, 2), (0, 1, 2, 3)):
        fused = FusedEsm2(model, None).states(tokens, lengths, layers)
        for ours, plain in zip(fused, model.states(tokens, lengths, layers), strict=True):
            assert (ours - plain).abs().max() <= 3e-4 * plain.abs().max()


def test_forward_around_cublas_products_takes_any_width():
    changes = {"hidden_size": 60, "num_attention_heads": 3, "intermediate_size": 52, "num_hidden_layers": 2}
    plain, fused = both(
        Esm2.from_huggingface(random_esm.model(**changes)), random_esm.proteins((1, 62)), "cublas"
    )
    assert (fused - plain).abs().max() <= 3e-4


@pytest.mark.parametrize("products", PRODUCTS)
def test_large_hidden_states_stay_accurate_in_half_precision(products):
    esm = random_esm.model(num_hidden_layers=2)
    with torch.no_grad():
        # A few channels of trained models carry values of thousands through all layers.
        esm.embeddings.word_embeddings.weight[:, :3] *= 3000
    sequences = random_esm.proteins((30, 62))
    tokens, lengths = random_esm.packed(sequences)
    exactly = Esm2.from_huggingface(esm)
    blocks = BLOCKS if products == "hopper" else None
    fused = FusedEsm2(Esm2.from_huggingface(esm, dtype=HALF), blocks)
    with torch.inference_mode():
        exact = pool_states(exactly(tokens, lengths), lengths, RESIDUES_ONLY)
        hidden = fused(tokens, lengths)
    assert hidden.dtype == HALF
    assert torch.cosine_similarity(pool_states(hidden, lengths, RESIDUES_ONLY), exact).min() >= 0.9999
