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
from nucpro.inspection.speed import DNABERT_S
from nucpro.models.architectures import use_kernels, way_of
from nucpro.models.config import Esm2Config
from nucpro.models.esm2 import Esm2
from nucpro.models.kernels import Choice, Way, choose_way
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


def card(monkeypatch, capability):
    """Let torch report a GPU of a compute capability."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def choice_of(config, device=CUDA, dtype=torch.float16):
    return way_of(config, device, dtype)


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        (torch.device("cpu"), torch.float16, "cpu is not an NVIDIA GPU"),
        (CUDA, torch.float32, "kernels compute in float16 and bfloat16, not in float32"),
    ],
)
def test_says_why_kernels_cannot_run(device, dtype, words):
    assert choice_of(shape(), device, dtype) == Choice(Way.PLAIN, words)


def test_gpus_before_ampere_take_the_plain_path(monkeypatch):
    card(monkeypatch, (7, 5))
    words = "kernels need compute capability 8.0, and cuda:0 has 7.5"
    assert choice_of(shape()) == Choice(Way.PLAIN, words)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 7), (8, 9), (10, 0), (12, 0), (12, 1)])
def test_all_other_gpus_take_cublas_products_and_say_why(monkeypatch, capability):
    card(monkeypatch, capability)
    assert str(choice_of(shape())) == (
        "fused kernels around cuBLAS products: the Hopper product is for compute capability 9.0, and cuda:0 has "
        f"{capability[0]}.{capability[1]}"
    )
    assert choice_of(DNABERT_S) == Choice(Way.CUBLAS)


def test_hopper_takes_its_own_product(monkeypatch):
    card(monkeypatch, (9, 0))
    assert choice_of(shape()) == Choice(Way.HOPPER)
    assert choice_of(DNABERT_S) == Choice(Way.CUBLAS)


def test_shapes_that_its_blocks_cannot_hold_take_cublas_products_on_hopper(monkeypatch):
    card(monkeypatch, (9, 0))
    words = "hidden size 64 is not a multiple of 8, or intermediate size 24 not one of 32"
    assert choice_of(shape(intermediate_size=24)) == Choice(Way.CUBLAS, words)


def test_heads_that_no_shared_memory_holds_take_the_plain_path():
    words = "heads have 256 columns, and kernels hold at most 128"
    assert choice_of(shape(hidden_size=512, num_attention_heads=2)) == Choice(Way.PLAIN, words)


def test_an_encoder_without_kernels_takes_the_plain_path():
    words = "this kind of encoder has no kernels"
    assert choose_way(None, shape(), CUDA, torch.float16) == Choice(Way.PLAIN, words)


def test_needs_a_c_compiler(monkeypatch):
    card(monkeypatch, (9, 0))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    words = "Triton needs a C compiler, and neither gcc nor clang is on the path"
    assert choice_of(shape()) == Choice(Way.PLAIN, words)


def test_log_says_what_an_encoder_runs(caplog):
    encoder = Esm2.from_huggingface(random_esm.model())
    with caplog.at_level(logging.INFO):
        use_kernels(encoder)
    assert encoder.fused is None
    assert "ESM-2 on cpu runs plain torch: cpu is not an NVIDIA GPU" in caplog.messages


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
    if (choice := use_kernels(encoder)).way is Way.PLAIN:
        pytest.skip(f"kernels cannot run: {choice.reason}")
    assert encoder.fused is not None
    plain = Esm2.from_huggingface(esm)
    tokens, lengths = random_esm.packed(random_esm.proteins((1_000, 300, 166, 100, 99, 62, 30, 1)))
    with torch.inference_mode():
        vectors = encoder.pool(encoder(tokens.to(CUDA), lengths), lengths)
        exact = plain.pool(plain(tokens, lengths), lengths)
    cosines = torch.cosine_similarity(vectors.cpu(), exact)
    assert cosines.min() >= least, f"cosine {cosines.min():.6f} at worst, {cosines.mean():.6f} in the mean"
