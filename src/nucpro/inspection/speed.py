"""Speed of encoders of real shapes on this machine, compared with its rate of bare matrix products.

Random weights cost the time of real ones, so nothing is downloaded or read. What comes out goes to
``nucpro benchmark``.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F

from nucpro.embedding.batches import default_tokens_per_batch
from nucpro.errors import counted
from nucpro.models.architectures import use_kernels
from nucpro.models.config import Esm2Config, MosaicBertConfig
from nucpro.models.encoder import PackedEncoder
from nucpro.models.esm2 import Esm2
from nucpro.models.mosaic_bert import MosaicBert

__all__ = ["DNABERT_S", "ESM2_650M", "Machine", "Speed", "machine", "matrix_rate", "speeds"]

ESM2_650M = Esm2Config(33, 1280, 33, 20, 5120, 1e-5, 10_000.0, token_dropout=True)
DNABERT_S = MosaicBertConfig(4096, 2, 768, 12, 12, 3072, 1e-12)
"""Shapes of the models that a run takes where none are named."""

_PROTEIN_TOKENS = 102
"""Of 100 residues, with ``<cls>`` and ``<eos>``."""
_DNA_TOKENS = 63
"""Of 300 bases, in the mean over viral and bacterial genomes with the published tokenizer."""
_TERA = 1e12


@dataclass(frozen=True)
class Machine:
    """Result of the measurement.

    Parameters
    ----------
    device : str
        GPU or processor, with what its speed depends on.
    software : str
        Versions.
    """

    device: str
    software: str


@dataclass(frozen=True)
class Speed:
    """Speed of one encoder.

    Parameters
    ----------
    encoder, sequences : str
        What was run, and on what.
    runs : str
        How it computes, and why no faster way can run.
    sequences_per_s : float
        Median.
    teraflops : float
        Operations of its matrix products and attention in a second, in 10^12.
    """

    encoder: str
    sequences: str
    runs: str
    sequences_per_s: float
    teraflops: float


def machine(device: torch.device) -> Machine:
    """Describe a device and the software on it."""
    versions = [f"torch {torch.__version__}", f"Python {platform.python_version()}", platform.machine()]
    if device.type == "cpu":
        return Machine(f"{_processor()}, {counted(torch.get_num_threads(), 'thread')}", ", ".join(versions))
    facts = torch.cuda.get_device_properties(device)
    return Machine(
        f"{facts.name}, compute capability {facts.major}.{facts.minor}, {facts.multi_processor_count} "
        f"multiprocessors, {facts.total_memory / 2**30:.0f} GiB",
        ", ".join(versions),
    )


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Rate of the largest product of ESM-2 650M, by the libraries of torch, in 10^12 operations a second.

    Parameters
    ----------
    device, dtype : torch.device, torch.dtype
        Where, and in which element type.
    seconds : float
        How long it is measured.

    Returns
    -------
    float
        10^12 floating-point operations per second.
    """
    tokens, width, wide = default_tokens_per_batch(device), ESM2_650M.width, ESM2_650M.feed_forward_width
    inputs = torch.randn(tokens, width, device=device, dtype=dtype)
    weight = torch.randn(wide, width, device=device, dtype=dtype)
    taken = _median_seconds(lambda: F.linear(inputs, weight), device, seconds)
    return 2 * tokens * width * wide / taken / _TERA


def speeds(device: torch.device, dtype: torch.dtype, seconds: float) -> list[Speed]:
    """Measure both encoders.

    Parameters
    ----------
    device, dtype : torch.device, torch.dtype
        Where, and in which element type of products.
    seconds : float
        How long both are measured together, without the time to make them and to build kernels.

    Returns
    -------
    list of Speed
        One result per encoder and input.
    """
    protein = _speed_of(
        Esm2.drawn(ESM2_650M, device=device, dtype=dtype),
        ("ESM-2 650M", "100 residues", _PROTEIN_TOKENS),
        seconds * 0.6,
    )
    dna = _speed_of(
        MosaicBert.drawn(DNABERT_S, device=device, dtype=dtype),
        ("DNABERT-S", f"300 bases, {_DNA_TOKENS} tokens", _DNA_TOKENS),
        seconds * 0.4,
    )
    return [protein, dna]


def _speed_of(model: PackedEncoder, work: tuple[str, str, int], seconds: float) -> Speed:
    encoder, sequences, length = work
    runs = use_kernels(model)
    count = max(1, default_tokens_per_batch(model.device) // length)
    lengths = [length] * count
    highest = model.config.vocabulary_size - 1
    tokens_t = torch.randint(5, highest, (count * length,), device=model.device)

    @torch.inference_mode()
    def batch() -> None:
        model.pool(model(tokens_t, lengths), lengths)

    taken = _median_seconds(batch, model.device, seconds)
    return Speed(encoder, sequences, str(runs), count / taken, _operations(model, lengths) / taken / _TERA)


def _operations(model: PackedEncoder, lengths: list[int]) -> float:
    """Multiplications and additions that a batch cannot do without."""
    layers = cast(torch.nn.ModuleList, model.get_submodule("layers"))
    weights = sum(part.weight.numel() for part in model.modules() if isinstance(part, torch.nn.Linear))
    attention = 4 * model.width * sum(length**2 for length in lengths) * len(layers)
    return float(2 * weights * sum(lengths) + attention)


def _median_seconds(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median time of one call, over as many as fit into the time given; the first, which builds kernels, is extra."""
    first = _timed(run, device)
    if device.type == "cpu" and first > seconds:
        return first
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        taken.append(_timed(run, device))
    return statistics.median(taken)


def _timed(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    units = [name for name in ("amx_bf16", "avx512_bf16", "avx2") if any(name in line for line in lines)]
    return ", ".join([names[0] if names else platform.machine(), *units])
