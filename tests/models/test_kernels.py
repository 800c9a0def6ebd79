"""Where kernels may run, and that they compute what torch computes."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import random_esm
from nucpro.models.config import Esm2Config
from nucpro.models.esm2 import Esm2
from nucpro.models.kernels import obstacle
from nucpro.models.kernels.attention import attention_tiles

CUDA = torch.device("cuda:0")
HERE = Path(__file__).parent


def shape(**changes):
    return Esm2Config.from_dict(random_esm.config(**changes).to_dict())


@pytest.mark.parametrize("file", ["interpreted_kernels.py", "interpreted_mosaic_bert.py"])
def test_kernels_equal_torch_in_tritons_interpreter(file):
    # Triton decides at import whether it interprets, so this needs a process of its own.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        str(HERE / file),
    ]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_tiles_cover_every_token_once():
    lengths = (64, 1, 130, 63, 65)
    tiles = attention_tiles(lengths).tolist()
    covered = [
        start + token for start, length, query in tiles for token in range(query, min(query + 64, length))
    ]
    assert covered == list(range(sum(lengths)))
    assert {tuple(tile[:2]) for tile in tiles} == {(0, 64), (64, 1), (65, 130), (195, 63), (258, 65)}


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        (torch.device("cpu"), torch.float16, "cpu is not an NVIDIA GPU"),
        (CUDA, torch.float32, "they compute in float16 and bfloat16, not in float32"),
    ],
)
def test_says_why_kernels_cannot_run(device, dtype, words):
    assert obstacle(shape(), device, dtype) == words


@pytest.fixture
def hopper(monkeypatch):
    """Let torch report a GPU that kernels can use."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_refuses_older_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    words = "cuda:0 has compute capability 8.6, and they need 9.0 (Hopper)"
    assert obstacle(shape(), CUDA, torch.float16) == words


@pytest.mark.usefixtures("hopper")
def test_refuses_shapes_that_blocks_cannot_hold():
    narrow = shape(intermediate_size=24)
    words = "hidden size 64 is not a multiple of 8, or intermediate size 24 not one of 32"
    assert obstacle(narrow, CUDA, torch.float16) == words


@pytest.mark.usefixtures("hopper")
def test_needs_a_c_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    words = "Triton needs a C compiler, and neither gcc nor clang is on the path"
    assert obstacle(shape(), CUDA, torch.float16) == words


def test_encoder_says_that_it_runs_without_kernels(caplog):
    with caplog.at_level(logging.INFO):
        encoder = Esm2.from_huggingface(random_esm.model())
    assert encoder.fused is None
    assert "ESM-2 on cpu runs without kernels: cpu is not an NVIDIA GPU" in caplog.messages


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch")
@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.99999), (torch.bfloat16, 0.999)])
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 320, "num_attention_heads": 20, "intermediate_size": 1280},
        {"hidden_size": 72, "num_attention_heads": 3, "intermediate_size": 96},
        {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
        {"hidden_size": 256, "num_attention_heads": 2, "intermediate_size": 1024},
    ],
    ids=["heads of 16", "odd count of heads of 24", "heads of 64", "heads of 128"],
)
def test_vectors_on_cuda_equal_those_of_the_cpu(changes, dtype, least):
    esm = random_esm.model(**changes)
    encoder = Esm2.from_huggingface(esm, device=CUDA, dtype=dtype)
    if reason := obstacle(encoder.config, CUDA, dtype):
        pytest.skip(f"kernels cannot run: {reason}")
    assert encoder.fused is not None
    plain = Esm2.from_huggingface(esm)
    tokens, lengths = random_esm.packed(random_esm.proteins((1_000, 300, 166, 100, 99, 62, 30, 1)))
    with torch.inference_mode():
        vectors = encoder.pool(encoder(tokens.to(CUDA), lengths), lengths)
        exact = plain.pool(plain(tokens, lengths), lengths)
    cosines = torch.cosine_similarity(vectors.cpu(), exact)
    assert cosines.min() >= least, f"cosine {cosines.min():.6f} at worst, {cosines.mean():.6f} in the mean"
