"""A named device or precision is used or refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from nucpro.embedding.device import (
    CPU_SLOWER,
    _report_bf16,
    choose_device,
    cpu_threads,
    multiplies_bf16,
    settled,
    use_processors,
)
from nucpro.embedding.identification import precision_of
from nucpro.errors import PreflightError, UsageError
from nucpro.options import Options
from nucpro.state.recipe import Recipe

WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
WITH_CUDA = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch"
)


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CUDA", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UsageError, match=f"device '{name}' is unknown; allowed are cpu, cuda and cuda:N"):
        choose_device(name)


@WITHOUT_CUDA
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_is_never_replaced_by_the_cpu(name):
    with pytest.raises(
        PreflightError, match=rf"device '{name}' was asked for, but torch .* finds no CUDA device here"
    ):
        choose_device(name)


@WITH_CUDA
def test_cuda_devices_are_counted():
    assert choose_device("cuda").index is not None
    with pytest.raises(
        PreflightError, match=r"device 'cuda:999' was asked for, but this machine has \d+ CUDA"
    ):
        choose_device("cuda:999")


@WITHOUT_CUDA
def test_auto_is_the_cpu_where_there_is_no_gpu_and_says_what_that_costs(caplog):
    with caplog.at_level(logging.INFO):
        assert settled(Options(device="auto")) == Options(device="cpu")
    assert f"No GPU found: computing on the CPU, about {CPU_SLOWER} times slower" in caplog.text


@WITH_CUDA
def test_auto_is_a_gpu_where_there_is_one():
    assert settled(Options(device="auto")) == Options(device="cuda")


def test_auto_leaves_other_devices_alone_and_asks_a_cluster_for_gpus(caplog):
    for options in (Options(device="cpu"), Options(device="cuda:3")):
        assert settled(options) is options
    assert settled(Options(device="auto", engine="ray")).device == "cuda"
    assert not caplog.records


def test_how_much_slower_a_cpu_is_was_measured():
    results = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
    gpu = json.loads((results / "gpu_extract_h100.json").read_text())["speed"]["100"]["sequences_per_s"]
    cpu = json.loads((results / "cpu_bf16_xeon_amx.json").read_text())["100 residues, 16 threads"]
    of_all_layers = cpu["fp32, sequences/s"] * 6 / 33
    assert gpu / of_all_layers == pytest.approx(CPU_SLOWER, rel=0.1)


def recorded(precision):
    return Recipe("protein", {"precision": precision}, 1280)


@pytest.mark.parametrize(
    ("device", "asked", "files", "expected"),
    [
        ("cpu", "auto", None, "fp32"),
        ("cuda", "auto", None, "fp16"),
        ("cuda:1", "auto", None, "fp16"),
        ("cpu", "bf16", None, "bf16"),
        ("cpu", "auto", "fp16", "fp16"),
        ("cuda", "auto", "fp32", "fp32"),
        ("cuda", "bf16", "fp16", "bf16"),
        ("cpu", "auto", "unheard of", "fp32"),
    ],
)
def test_precision_is_what_is_asked_for_else_what_files_have_else_that_of_the_device(
    device, asked, files, expected
):
    options = Options(device=device, precision=asked)
    assert precision_of(options, recorded(files) if files else None) == expected


def test_fp16_on_a_cpu_is_refused_with_the_reason():
    with pytest.raises(
        UsageError, match="fp16 was asked for on a CPU, where it takes two to five times as long"
    ):
        Options(precision="fp16", device="cpu")


def test_threads_are_no_more_than_processors_that_may_be_used(monkeypatch):
    monkeypatch.setattr("nucpro.embedding.device.cores", lambda: 1)
    assert cpu_threads() == 1
    monkeypatch.setattr("nucpro.embedding.device.cores", lambda: 10**6)
    assert cpu_threads() == torch.get_num_threads()


@pytest.mark.parametrize(
    ("facts", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_int8\n", True),
        ("flags\t\t: fpu amx_tile amx_bf16\n", True),
        ("Features\t: fp asimd bf16 sve\n", True),
        ("model name\t: bf16\nflags\t\t: fpu avx2\n", False),
    ],
)
def test_knows_which_processors_multiply_in_bfloat16(tmp_path, facts, has):
    (tmp_path / "cpuinfo").write_text(facts)
    assert multiplies_bf16(tmp_path / "cpuinfo") is has
    assert not multiplies_bf16(tmp_path / "missing")


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_on_a_cpu_is_reported_and_where_it_is_slow(monkeypatch, caplog, has):
    monkeypatch.setattr("nucpro.embedding.device.multiplies_bf16", lambda: has)
    _report_bf16.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in ("dna", "protein"):
            use_processors(torch.bfloat16)
    assert caplog.messages.count("Matrix products are computed in bfloat16, the rest in float32") == 1
    slow = [record for record in caplog.records if "neither AMX nor AVX512-BF16" in record.getMessage()]
    assert len(slow) == (not has)


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="--precision is int8; allowed: one of auto, fp16, bf16, fp32"):
        Options(precision="int8")
