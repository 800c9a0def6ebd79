"""What all records of a folder are made of: stamps of files, and journals of JSON lines.

The checkpoint and the history of runs are written with these, and whoever asks whether a file has changed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, Self

from nucpro.formats import parsed

__all__ = ["Journal", "Stamp", "StateFiles", "journal_entries"]

_CRC_LENGTH = 8


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


class StateFiles(Protocol):
    """Where the records of a folder lie."""

    @property
    def root(self) -> Path:
        """The folder."""
        ...

    @property
    def checkpoint(self) -> Path:
        """The checkpoint."""
        ...

    @property
    def journal(self) -> Path:
        """The journal of the checkpoint."""
        ...

    @property
    def history(self) -> Path:
        """The history of runs."""
        ...

    def vectors_key(self, key: str) -> str:
        """Name under which a file is listed as completed: that of its vectors, also for a FASTA."""
        ...

    def free_checkpoint_copy(self) -> Path:
        """Where a checkpoint of another program is kept."""
        ...


class Journal:
    """Appends JSON objects to a file, one a line; opened by the first.

    Parameters
    ----------
    path : Path
        The file.
    checked : bool
        Begin each line with the CRC-32 of its object, so that damage is told from content.
    """

    def __init__(self, path: Path, *, checked: bool) -> None:
        self._path = path
        self._checked = checked
        self._file: FileIO | None = None

    def append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        """Write lines; handed to the system at once, so that a killed process loses nothing that it recorded.

        Returns
        -------
        int
            Bytes that were written.

        Raises
        ------
        OSError
            The file cannot be opened or written.
        """
        lines = b"".join(self._line(entry) for entry in entries)
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
            # The last line of a killed run may be cut: it must not swallow the first of this one.
            if self._file.tell() and not _ends_with_a_line(self._path):
                lines = b"\n" + lines
        rest = lines
        while rest:
            rest = rest[self._file.write(rest) :]
        return len(lines)

    def close(self) -> None:
        """Close the file; what was written stays."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _line(self, entry: Mapping[str, Any]) -> bytes:
        body = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()
        return b"%08x %s\n" % (zlib.crc32(body), body) if self._checked else body + b"\n"


def journal_entries(raw: bytes, *, checked: bool) -> Iterator[dict[str, Any]]:
    """Objects of a journal, in order; lines that are cut or damaged are left out."""
    for line in raw.split(b"\n"):
        body = line[_CRC_LENGTH + 1 :] if checked else line
        is_whole = not checked or line[:_CRC_LENGTH] == b"%08x" % zlib.crc32(body)
        if is_whole and (entry := parsed(body)):
            yield entry


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
