"""Bounds on a GenBank stream, checked before its parser sees the bytes.

Bytes come from a decompressed ``Y.genomic.gbff.gz`` and go on, unchanged, to gb-io
(:mod:`nucpro.dataset.genbank`). The parser keeps a whole line, and follows nested locations by recursion
that no error stops: a small file that was made on purpose could take all memory, or end the process.
"""

from __future__ import annotations

import io
from typing import BinaryIO

__all__ = ["LONGEST_LINE", "MOST_NESTED", "BoundedStream"]

LONGEST_LINE = 1 << 20
"""Bytes of a line; the format has lines of 80 columns, and some programs do not wrap qualifiers."""
MOST_NESTED = 100
"""Open brackets of a location; those of real records have at most three."""

_OPEN = ord("(")
# A location has brackets, and every qualifier begins with a slash: nothing else decides how deep it goes.
_OTHERS = bytes(set(range(256)) - set(b"()/"))


class BoundedStream(io.RawIOBase):
    """A stream that ends with an error where its lines or locations go beyond what records need.

    Parameters
    ----------
    file : binary file
        Gives the bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._line = 0
        self._open = 0

    def readable(self) -> bool:
        """Say that bytes can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the file.

        Raises
        ------
        OSError
            A line has more than :data:`LONGEST_LINE` bytes, or brackets are open :data:`MOST_NESTED` deep.
        """
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._check_line(data)
        self._check_nesting(data)
        return len(data)

    def _check_line(self, data: bytes) -> None:
        first = data.find(b"\n")
        self._line += len(data) if first < 0 else first
        if self._line > LONGEST_LINE:
            raise OSError(f"a line has more than {LONGEST_LINE:,} bytes")
        if first >= 0:
            self._line = len(data) - data.rindex(b"\n") - 1

    def _check_nesting(self, data: bytes) -> None:
        texts = data.translate(None, _OTHERS).split(b"/")
        for index, brackets in enumerate(texts):
            depth = self._open if index == 0 else 0
            # Nearly every text between two slashes has a few brackets, which cannot be too deep.
            if index in {0, len(texts) - 1} or len(brackets) > MOST_NESTED:
                for bracket in brackets:
                    depth = depth + 1 if bracket == _OPEN else max(0, depth - 1)
                    if depth > MOST_NESTED:
                        raise OSError(f"a location has more than {MOST_NESTED} brackets inside each other")
            self._open = depth
