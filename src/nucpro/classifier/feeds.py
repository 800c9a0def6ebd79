"""How rows get to the classifier's device: they are there, or are brought block by block while others are visited.

Features come from :mod:`nucpro.classifier.features`; blocks go to the optimisation steps and to evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from nucpro.classifier.model import Classifier
from nucpro.classifier.steps import Block

__all__ = ["Feed", "ResidentFeed", "StreamedFeed", "feed_of", "viral_margins"]

_BLOCK_ROWS = 16_384
"""Rows of a streamed block: 134 MB at 2,048 columns, some milliseconds of work for a GPU."""
_EVALUATED_ROWS = 8192
"""Rows that are scored at a time."""


class Feed(Protocol):
    """Rows by their numbers."""

    def blocks(self, order: torch.Tensor) -> Iterator[Block]:
        """Yield the rows of `order` (int64, on the CPU), in that order; a block may be overwritten by the next one."""
        ...


def feed_of(matrix: torch.Tensor, labels: torch.Tensor, device: torch.device, batch_size: int) -> Feed:
    """Give the feed for where a matrix lies.

    Parameters
    ----------
    matrix : torch.Tensor
        float32 ``[N, D]``; its rows may be a part of wider ones.
    labels : torch.Tensor
        int64 ``[N]``, on the CPU.
    device : torch.device
        Of the classifier.
    batch_size : int
        Streamed blocks hold whole batches, so that streaming changes no batch.
    """
    if matrix.device == device:
        return ResidentFeed(matrix, labels.to(device))
    return StreamedFeed(matrix, labels, device, max(1, _BLOCK_ROWS // batch_size) * batch_size)


class ResidentFeed:
    """All rows lie on the device: one block is a whole epoch.

    Parameters
    ----------
    matrix, labels : torch.Tensor
        float32 ``[N, D]`` and int64 ``[N]``, on one device.
    """

    def __init__(self, matrix: torch.Tensor, labels: torch.Tensor) -> None:
        self._matrix = matrix
        self._labels = labels
        # One buffer for all epochs, since captured graphs keep its address.
        self._order = torch.empty(len(labels), dtype=torch.int64, device=matrix.device)

    def blocks(self, order: torch.Tensor) -> Iterator[Block]:
        """Yield all rows as one block."""
        here = self._order[: len(order)]
        here.copy_(order)
        yield Block(self._matrix, self._labels, here)


class StreamedFeed:
    """Rows lie in host memory or on disk: a thread gathers the next block while the device visits the last one.

    Parameters
    ----------
    matrix, labels : torch.Tensor
        float32 ``[N, D]`` and int64 ``[N]``, on the CPU.
    device : torch.device
        Where they are needed.
    rows : int
        Rows of a block.
    """

    def __init__(self, matrix: torch.Tensor, labels: torch.Tensor, device: torch.device, rows: int) -> None:
        self._matrix = matrix
        self._labels = labels
        pin = device.type == "cuda"
        self._staged = [torch.empty(rows, matrix.shape[1], pin_memory=pin) for _ in range(2)]
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._rows = torch.empty(rows, matrix.shape[1], device=device)
        self._row_labels = torch.empty(rows, dtype=torch.int64, device=device)
        self._order = torch.arange(rows, device=device)

    def blocks(self, order: torch.Tensor) -> Iterator[Block]:
        """Yield blocks of at most the number of rows that this feed was made for."""
        pieces = torch.split(order, len(self._rows))
        with ThreadPoolExecutor(1) as gatherer:
            pending = gatherer.submit(self._gather, pieces[0], 0)
            for number, piece in enumerate(pieces):
                pending.result()
                self._bring(piece, number % 2)
                if number + 1 < len(pieces):
                    pending = gatherer.submit(self._gather, pieces[number + 1], (number + 1) % 2)
                count = len(piece)
                yield Block(self._rows, self._row_labels, self._order[:count])

    def _gather(self, piece: torch.Tensor, slot: int) -> None:
        copied = self._copied[slot]
        if copied is not None:
            copied.synchronize()  # the device may still read what lay in this slot before
        torch.index_select(self._matrix, 0, piece, out=self._staged[slot][: len(piece)])

    def _bring(self, piece: torch.Tensor, slot: int) -> None:
        count = len(piece)
        self._rows[:count].copy_(self._staged[slot][:count], non_blocking=True)
        self._row_labels[:count].copy_(self._labels.index_select(0, piece))
        if self._rows.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copied[slot] = event


@torch.inference_mode()
def viral_margins(classifier: Classifier, feed: Feed, rows: torch.Tensor) -> torch.Tensor:
    """Viral score less host score, before softmax, for rows in their order.

    Parameters
    ----------
    classifier : Classifier
        Put into evaluation mode.
    feed : Feed
        Where the rows come from.
    rows : torch.Tensor
        int64 ``[K]``, on the CPU.

    Returns
    -------
    torch.Tensor
        float64 ``[K]``, on the CPU.
    """
    classifier.eval()
    parts = [
        classifier(block.matrix.index_select(0, some))
        for block in feed.blocks(rows)
        for some in torch.split(block.order, _EVALUATED_ROWS)
    ]
    scores = torch.cat(parts).double()
    return (scores[:, 1] - scores[:, 0]).cpu()
