"""A named device or precision is used or refused."""

from __future__ import annotations

import pytest
import torch

from nucpro.errors import UsageError
from nucpro.models.device import choose_device, choose_precision

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


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision 'int8' is unknown; allowed are auto, fp32, fp16, bf16"):
        choose_precision("int8", torch.device("cpu"))
