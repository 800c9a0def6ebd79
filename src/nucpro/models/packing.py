"""Packed batches: sequences one after the other in one matrix, without padding.

Lengths come from :mod:`nucpro.embedding`, which sorts records by length, so neighbours of equal length form
few runs. A run is a dense block: encoders attend over it, and pooling averages it, without a mask.

Shape suffixes: t tokens of the whole batch, n sequences, l tokens of one sequence, d model width, x columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["ALL_TOKENS", "RESIDUES_ONLY", "PooledSpan", "Run", "equal_runs", "mean_pool", "to_device"]


@dataclass(frozen=True)
class PooledSpan:
    """Which tokens of a sequence its vector is the mean of.

    Parameters
    ----------
    name : str
        What is left, in words; part of every file's ``meta``.
    skip_start, skip_end : int
        Tokens left out at either end of every sequence.
    """

    name: str
    skip_start: int
    skip_end: int


RESIDUES_ONLY = PooledSpan("mean of residues", skip_start=1, skip_end=1)
"""Everything but the first and the last token, ``<cls>`` and ``<eos>``."""
ALL_TOKENS = PooledSpan("mean of all tokens", skip_start=0, skip_end=0)
"""Every token, special ones included."""


@dataclass(frozen=True)
class Run:
    """Neighbouring sequences of one length in a packed batch.

    Parameters
    ----------
    start : int
        First token of the run.
    count : int
        Sequences in the run.
    length : int
        Tokens of each of them.
    """

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """The token after the run."""
        return self.start + self.count * self.length

    def block(self, packed_tx: torch.Tensor) -> torch.Tensor:
        """View of the run's rows as ``[count, length, X]``."""
        return packed_tx[self.start : self.stop].view(self.count, self.length, -1)


def equal_runs(lengths: Sequence[int]) -> list[Run]:
    """Group neighbours of equal length.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence, in the order in which they are packed.

    Returns
    -------
    list of Run
        In packed order; together they cover all tokens.
    """
    runs: list[Run] = []
    start = 0
    for length, group in itertools.groupby(lengths):
        runs.append(Run(start, sum(1 for _ in group), length))
        start = runs[-1].stop
    return runs


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device from pinned memory: from any other, the host would wait for all work on a GPU."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def mean_pool(hidden_td: torch.Tensor, lengths: Sequence[int], span: PooledSpan) -> torch.Tensor:
    """Mean hidden state of each sequence, accumulated in float32.

    Each sum runs over a dense block in a fixed order (no atomic additions), so equal input gives equal bytes.

    Parameters
    ----------
    hidden_td : torch.Tensor
        ``[T, D]``, any float dtype.
    lengths : sequence of int
        Tokens of each sequence, summing to T; each longer than what the span leaves out.
    span : PooledSpan
        Tokens that count.

    Returns
    -------
    torch.Tensor
        float32 ``[N, D]``.
    """
    means = []
    for run in equal_runs(lengths):
        kept_nld = run.block(hidden_td)[:, span.skip_start : run.length - span.skip_end]
        means.append(kept_nld.mean(dim=1, dtype=torch.float32))
    return torch.cat(means)
