"""What went through encoders: counted by each, added up by engines, shown at the end of a run."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["Counting", "Totals"]


class Totals(NamedTuple):
    """Counts of one encoder, or of several together.

    Parameters
    ----------
    splits : int
        Batches that were split after running out of memory.
    tokens, unknown : int
        All tokens, special ones included, and those that the model does not know.
    """

    splits: int = 0
    tokens: int = 0
    unknown: int = 0


class Counting(Protocol):
    """Something loaded that counts what goes through it."""

    @property
    def totals(self) -> Totals:
        """Counts since it was loaded."""
        ...
