"""The one decoder of compressed text: all streams of a gzip, bzip2, xz or zstd file, or an error and its position.

Files come from :func:`nucpro.formats.opening.open_input`; text goes to :mod:`nucpro.formats.fasta` and the
readers of genomes. Programs that compress in parallel or append write many streams. Python's own readers stop
silently at a damaged second stream (bzip2, xz), or do not report what follows the last (gzip).

Formats: RFC 1952 (gzip), the BGZF section of the SAM specification, the .xz file format 1.2, and RFC 8878 (zstd), which
Python reads from 3.14 on, and earlier with the extra ``zstd``.
"""

from __future__ import annotations

import bz2
import importlib
import io
import lzma
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from nucpro.errors import DataError, NucproError
from nucpro.formats.opening import looks_like, open_input, problem_of

__all__ = ["TextStream", "open_text"]

_READ_SIZE = 1 << 18
_MOST_MEMORY = 512 << 20
"""Memory in bytes for decompressing an xz stream; ``xz -9`` asks for 65 MiB."""
_COPY_AGAIN = "copy or download the file again"
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class _Packing:
    """One format: its name, the first bytes of a stream, its decoder, and the errors that it raises."""

    name: str
    magic: bytes
    engine: Callable[[], Any]
    damage: tuple[type[Exception], ...]


_PACKINGS = (
    _Packing("gzip", b"\x1f\x8b", lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), (zlib.error,)),
    _Packing("bzip2", b"BZh", bz2.BZ2Decompressor, (OSError, ValueError)),
    _Packing(
        "xz",
        b"\xfd7zXZ\0",
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY),
        (lzma.LZMAError,),
    ),
)


@cache
def _zstd() -> _Packing | None:
    """The format zstd, by Python's own reader or its backport; None if there is neither."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            reader = importlib.import_module(name)
        except ImportError:
            continue
        return _Packing("zstd", _ZSTD, reader.ZstdDecompressor, (reader.ZstdError,))
    return None


def _packing_of(start: bytes) -> _Packing | None:
    """Format of a file that starts with these bytes; None if it is not compressed, or its format is not read."""
    if start.startswith(_ZSTD):
        return _zstd()
    return next((packing for packing in _PACKINGS if start.startswith(packing.magic)), None)


_UNPACKED_BY = {
    "a zstd file": "zstd -d",
    "an lz4 file": "lz4 -d",
    "an lzma file": "xz -d",
    "an lzip file": "lzip -d",
    "a file packed by compress (.Z)": "gzip -d",
    "a zip archive": "unzip",
    "an empty zip archive": "unzip",
    "a tar archive": "tar -x",
    "a RAR archive": "unrar",
    "a 7z archive": "7z x",
}
"""Unsupported formats, and the programs that decompress them."""
_INSTEAD = {"a zstd file": "install what reads it: pip install 'nucpro[zstd]'"}
"""Another remedy for a format, if there is a better one than compressing with gzip."""


def open_text(path: Path, error: type[NucproError] = DataError, *, allow_pipe: bool = False) -> TextStream:
    """Open a text file that may be compressed; see :func:`nucpro.formats.opening.open_input`.

    Raises
    ------
    NucproError
        Of the type `error`: the file cannot be opened, has an unsupported compression, or is compressed
        twice.
    """
    with ExitStack() as opened:
        stream = TextStream(opened.enter_context(open_input(path, error, allow_pipe=allow_pipe)), path, error)
        opened.pop_all()
        return stream


class TextStream(io.RawIOBase):
    """Decompressed bytes of a file, from its first stream to its last.

    Parameters
    ----------
    file : binary file
        Gives the bytes as they are on disk; closed with the stream.
    path : Path
        Names it in errors.
    error : type of NucproError
        What is raised for damage.

    Raises
    ------
    NucproError
        See :func:`open_text`.
    """

    def __init__(self, file: BinaryIO, path: Path, error: type[NucproError]) -> None:
        self._file = file
        self._path = path
        self._error = error
        self._read = 0
        self._input = b""
        self._engine: Any = None
        self._streams = 0
        self._start = 0
        self._is_block = False
        self._is_empty = True
        self._fill(_READ_SIZE)
        self._packing = _packing_of(self._input)
        if self._packing is None:
            self._refuse_unread(self._input)
        self._head = self._unpacked(_READ_SIZE)
        if self._packing is not None and self._head:
            self._refuse_packed_twice()

    @property
    def is_packed(self) -> bool:
        """Whether the file is compressed."""
        return self._packing is not None

    def readable(self) -> bool:
        """True: bytes can be read."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def read(self, size: int = -1, /) -> bytes:
        """Give some bytes, at most `size`; none at the end.

        Raises
        ------
        NucproError
            A stream is damaged or truncated, or followed by other data.
        """
        if size < 0:
            return self.readall()
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._unpacked(size)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; see :meth:`read`."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _unpacked(self, size: int) -> bytes:
        if self._packing is None:
            data, self._input = self._input, b""
            return data or self._from_disk(size)
        while self._engine is not None or self._begin(self._packing):
            data = self._step(self._packing, size)
            if self._engine.eof:
                self._engine = None
            elif not data and not self._input and not self._fill(_READ_SIZE):
                self._fail("is truncated")
            if data:
                self._is_empty = False
                return data
        return b""

    def _step(self, packing: _Packing, size: int) -> bytes:
        engine = self._engine
        try:
            if packing.name == "gzip":
                data: bytes = engine.decompress(self._input, size)
                self._input = engine.unused_data if engine.eof else engine.unconsumed_tail
                return data
            packed, self._input = (self._input, b"") if engine.needs_input else (b"", self._input)
            data = engine.decompress(packed, size)
        except packing.damage as failure:
            self._fail(f"is damaged ({failure})")
        if engine.eof:
            self._input = engine.unused_data + self._input
        return data

    def _begin(self, packing: _Packing) -> bool:
        """Start with the next stream; False at the end of the file."""
        self._skip_zeros()
        while len(self._input) < 20 and self._fill(_READ_SIZE):
            pass
        if not self._input:
            self._require_whole_blocks()
            return False
        start = self._read - len(self._input)
        if not self._input.startswith(packing.magic):
            raise self._error(
                f"{self._path}: what follows byte {start:,}, where {packing.name} stream {self._streams} ends, is no "
                f"{packing.name} stream ({looks_like(self._input)}); {_COPY_AGAIN}, or cut it off there if it "
                f"does not belong to it"
            )
        self._streams += 1
        self._start = start
        self._is_block = _is_block(self._input)
        self._is_empty = True
        self._engine = packing.engine()
        return True

    def _skip_zeros(self) -> None:
        """Padding between streams and after the last, as on tapes and in xz files."""
        if not self._streams:
            return
        self._input = self._input.lstrip(b"\0")
        while not self._input and self._fill(_READ_SIZE):
            self._input = self._input.lstrip(b"\0")

    def _require_whole_blocks(self) -> None:
        """Bgzip files end with an empty block: without it, blocks are missing."""
        if self._is_block and not self._is_empty:
            raise self._error(
                f"{self._path}: lacks the empty block at the end of every bgzip file, so it is probably truncated; "
                f"{_COPY_AGAIN}, or pack it again (gzip -dc FILE | bgzip) if you know that it is whole"
            )

    def _fill(self, size: int) -> bool:
        data = self._from_disk(size)
        self._input += data
        return bool(data)

    def _from_disk(self, size: int) -> bytes:
        """Read the requested number of bytes, even from a pipe that returns less at a time."""
        data = b""
        try:
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        except OSError as failure:
            raise self._error(f"{self._path}: {problem_of(self._path, failure)}") from failure
        self._read += len(data)
        return data

    def _refuse_unread(self, start: bytes) -> None:
        looks = looks_like(start)
        if looks in _UNPACKED_BY:
            raise self._error(
                f"{self._path}: is {looks}; unpack it ({_UNPACKED_BY[looks]}) and name the file that comes out, "
                f"or {_INSTEAD.get(looks, 'pack that with gzip')}"
            )

    def _refuse_packed_twice(self) -> None:
        if _packing_of(self._head):
            raise self._error(f"{self._path}: is packed twice; unpack it once")
        self._refuse_unread(self._head)

    def _fail(self, what: str) -> NoReturn:
        packing = self._packing
        assert packing is not None
        raise self._error(
            f"{self._path}: {packing.name} stream {self._streams}, which starts at byte {self._start:,} of "
            f"{self._read:,}, {what}; {_COPY_AGAIN}"
        )


def _is_block(start: bytes) -> bool:
    """Whether a gzip stream is a block of bgzip: it has an extra field BC of two bytes."""
    return len(start) >= 18 and bool(start[3] & 4) and start[12:16] == b"BC\x02\x00"
