"""Where the chunks of a record lie.

Lengths of records come in from the FASTA side, positions of chunks go to :mod:`nucpro.dataset.frames`.
Chunks of one record overlap so that all of them have the full size, as far as the record allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Chunks", "chunk_blocks", "chunks_of"]

_BLOCK_BASES = 1 << 20

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunks:
    """Chunks of one record, in its order.

    Parameters
    ----------
    numbers : ndarray of int64, shape (chunks,)
        Number of each chunk within its record, counted from 0 (ids count from 1).
    starts, ends : ndarray of int64, shape (chunks,)
        Positions in the record, counted from 0, ends exclusive.
    """

    numbers: Positions
    starts: Positions
    ends: Positions

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, which: slice | npt.NDArray[np.bool_]) -> Chunks:
        """Only the chunks that a slice or a mask names."""
        return Chunks(self.numbers[which], self.starts[which], self.ends[which])


def chunks_of(length: int, size: int) -> Chunks:
    """All chunks of a record.

    For a record of ``L`` bases and chunks of ``s``, ``n = ceil(L / s)`` chunks would be
    ``r = n * s - L`` bases too long together. With ``q = r // n`` and ``u = r - q * (n - 1)``, each of the
    first ``min(u, n - 1)`` steps from a chunk to the next goes back by ``q + 1`` bases and each later one
    by ``q``; the last chunk is clipped at the record's end. This is how VirNucPro's training data was cut.

    Parameters
    ----------
    length : int
        Bases of the record; 0 gives no chunk.
    size : int
        Bases of a full chunk, at least 1.

    Examples
    --------
    >>> chunks = chunks_of(1234, 500)
    >>> (chunks.ends - chunks.starts).tolist()
    [500, 500, 412]
    """
    count = -(-length // size)
    surplus = count * size - length
    back = surplus // max(count, 1)
    longer_steps = surplus - back * (count - 1)
    numbers = np.arange(count, dtype=np.int64)
    starts = numbers * (size - back) - np.minimum(numbers, longer_steps)
    return Chunks(numbers, starts, np.minimum(starts + size, length))


def chunk_blocks(length: int, size: int) -> Iterator[Chunks]:
    """Yield the chunks of a record in runs of about a million bases, whatever the length of the record."""
    chunks = chunks_of(length, size)
    step = max(1, _BLOCK_BASES // size)
    for first in range(0, len(chunks), step):
        yield chunks.take(slice(first, first + step))
