"""state.records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Stamp"]


@dataclass(frozen=True)
class Stamp:
    """What tells cheaply that a file has not changed.

    Parameters
    ----------
    size, modified, inode : int
        Bytes, modification time in nanoseconds, and inode number.
    """

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Stamp of a file as it is now; None where it is not there."""
        try:
            facts = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ino)

    def as_list(self) -> list[int]:
        """Form in which stamps are stored."""
        return [self.size, self.modified, self.inode]
