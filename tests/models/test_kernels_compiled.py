"""Kernels are compiled ahead, without a GPU, for every card that they may run on, and fit into its shared memory.

Triton asks its driver which card there is. With a driver that names one, and launches that end where they are compiled,
the forwards by kernels run on a CPU: each launch is compiled as it would be on that card, and results mean nothing.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from nucpro.models import fused, mosaic_bert_fused
from nucpro.models.config import MEAN, POOLINGS, RESIDUES_ONLY, Esm2Config, MosaicBertConfig
from nucpro.models.esm2 import Esm2
from nucpro.models.kernels import pool
from nucpro.models.kernels.product import Blocks
from nucpro.models.mosaic_bert import MosaicBert

KIB = 1024
CARDS = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99, 121: 99}
"""Shared memory that a block may have, in KiB, by compute capability (CUDA C++ Programming Guide, technical
specifications; 12.1 is a GB10)."""
CPU = torch.device("cpu")
LENGTHS = (102, 7)


def esm2(width, heads, feed_forward):
    config = Esm2Config(33, width, 1, heads, feed_forward, 1e-5, 10_000.0, token_dropout=True)
    return Esm2.drawn(config, device=CPU, dtype=torch.float16)


def mosaic_bert():
    config = MosaicBertConfig(64, 2, 768, 1, 12, 3072, 1e-12)
    return MosaicBert.drawn(config, device=CPU, dtype=torch.float16)


def in_type(model, dtype):
    """The model with all its weights in an element type; tables stay float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


@pytest.fixture
def launches(monkeypatch, tmp_path):
    """Function that lets Triton compile for a card; what it gives fills with names and bytes of shared memory."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    run = JITFunction.run

    def on(capability):
        device = SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: capability,
            get_current_stream=lambda device: 0,
        )
        compiled = defaultdict(list)

        def compile_only(self, *arguments, grid, warmup, **options):
            made = run(self, *arguments, grid=grid, warmup=True, **options)
            compiled[self.fn.__name__].append(made.metadata.shared)

        monkeypatch.setattr(driver, "_active", device)
        monkeypatch.setattr(JITFunction, "run", compile_only)
        return compiled

    return on


@torch.inference_mode()
def compile_forward(forward, width):
    tokens = torch.zeros(sum(LENGTHS), dtype=torch.int64)
    forward(tokens, LENGTHS)
    for poolings in ((MEAN,), POOLINGS):
        pool.pool_states(
            torch.zeros(len(tokens), width, dtype=torch.float16), LENGTHS, RESIDUES_ONLY, poolings
        )


@pytest.mark.parametrize(
    ("capability", "dtype"), [*((card, torch.float16) for card in CARDS), (80, torch.bfloat16)]
)
def test_kernels_around_cublas_products_fit_every_card(launches, capability, dtype):
    compiled = launches(capability)
    # Heads of 64 columns as in ESM-2 650M, and the widest ones that kernels hold.
    for width, heads in ((1280, 20), (256, 2)):
        compile_forward(fused.FusedEsm2(in_type(esm2(width, heads, 4 * width), dtype), None), width)
    compile_forward(mosaic_bert_fused.FusedMosaicBert(in_type(mosaic_bert(), dtype)), 768)
    names = {
        "_attention_kernel",
        "_norm_kernel",
        "_gelu_kernel",
        "_rotary_kernel",
        "_gate_kernel",
        "_pool_kernel",
    }
    assert set(compiled) == names
    assert all(max(shared) <= CARDS[capability] * KIB for shared in compiled.values()), compiled


@pytest.mark.parametrize(
    ("width", "heads", "dtype"),
    [
        (1280, 20, torch.float16),
        (1280, 20, torch.bfloat16),
        (320, 20, torch.float16),
        (256, 2, torch.float16),
    ],
)
def test_the_hopper_product_fits_hopper(launches, width, heads, dtype):
    compiled = launches(90)
    blocks = Blocks(128, 256, 64, programs=132)
    compile_forward(fused.FusedEsm2(in_type(esm2(width, heads, 4 * width), dtype), blocks), width)
    assert 0 < max(compiled["_product_kernel"]) <= CARDS[90] * KIB, compiled
