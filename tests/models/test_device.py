"""A named device or precision is used or refused."""

from __future__ import annotations

import logging

import pytest
import torch

from nucpro.errors import UsageError
from nucpro.models.device import choose_device, choose_precision, cpu_threads, multiplies_bf16, use_processors
from nucpro.options import Options

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
        UsageError, match=rf"device '{name}' was asked for, but torch .* finds no CUDA device here"
    ):
        choose_device(name)


@WITH_CUDA
def test_cuda_devices_are_counted():
    assert choose_device("cuda").index is not None
    with pytest.raises(UsageError, match=r"device 'cuda:999' was asked for, but this machine has \d+ CUDA"):
        choose_device("cuda:999")


def test_the_default_precision_follows_the_device():
    assert choose_precision("auto", torch.device("cpu")) == torch.float32
    assert choose_precision("auto", torch.device("cuda", 0)) == torch.float16
    assert choose_precision("bf16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("of", [choose_precision, lambda name, device: Options(precision=name, device="cpu")])
def test_fp16_on_a_cpu_is_refused_with_the_reason(of):
    with pytest.raises(
        UsageError, match="fp16 was asked for on a CPU, where it takes two to five times as long"
    ):
        of("fp16", torch.device("cpu"))


def test_threads_are_no_more_than_processors_that_may_be_used(monkeypatch):
    monkeypatch.setattr("nucpro.models.device.cores", lambda: 1)
    assert cpu_threads() == 1
    monkeypatch.setattr("nucpro.models.device.cores", lambda: 10**6)
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
def test_bfloat16_on_a_cpu_is_told_and_where_it_is_slow(monkeypatch, caplog, has):
    monkeypatch.setattr("nucpro.models.device.multiplies_bf16", lambda: has)
    with caplog.at_level(logging.INFO):
        use_processors(torch.bfloat16)
    assert "Matrix products are computed in bfloat16, the rest in float32" in caplog.messages
    slow = [record for record in caplog.records if "neither AMX nor AVX512-BF16" in record.getMessage()]
    assert bool(slow) is not has


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision 'int8' is unknown; allowed are auto, fp16, bf16, fp32"):
        choose_precision("int8", torch.device("cpu"))
