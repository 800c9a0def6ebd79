"""The zip container of a ``.pt`` file: stored members under one folder name, storages aligned to 64 bytes.

Bytes come from a file that is read whole (with its digest) or in parts, and go as checked members to
:mod:`nucpro.formats.pickles` (``data.pkl``) and :mod:`nucpro.formats.vectors` (``data/N``). In the other
direction, a pickle and one storage become an archive whose bytes depend only on those two.

The layout is that of PyTorch's ``inline_container.h`` on top of PKWARE's APPNOTE 6.3: no compression, no
encryption, at most 4 GiB, little-endian. Files from other zip programs are read if they follow it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from nucpro.errors import StoreError
from nucpro.formats.opening import looks_like, open_input, problem_of

__all__ = ["REMEDY", "SIZE_LIMIT", "Archive", "archive_pieces", "load_archive", "look_at_archive"]

Fetch = Callable[[int, int], memoryview]
"""Gives ``length`` bytes from ``offset``; both are inside the file."""

_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ONES = 0xFFFFFFFF

SIZE_LIMIT = _ONES - 0xFFFF
"""Bytes of pickle and storage that an archive can hold; the rest of 4 GiB is for its headers."""

_ENCRYPTED = 0x0041
_DESCRIPTOR = 0x0008
_UTF_8 = 0x0800
_ALIGNMENT = 64
_NEWEST_VERSION = 10
"""Highest format version that torch.load accepts; torch.save writes 3."""
_DOS_DATE = 0x21
"""1980-01-01, the first day that the format can express."""
_PREFIX = "archive"

REMEDY = "delete the file, or restore it from a copy, and run again"
"""Closes every message about a damaged file."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry of the archive's directory.

    ``path`` is the whole stored name, ``start`` the offset of the local header, ``limit`` the offset that the
    member's bytes may not pass: the next member or the directory.
    """

    path: bytes
    start: int
    limit: int
    size: int
    crc: int


class Archive:
    """A ``.pt`` file whose directory has been checked.

    Parameters
    ----------
    path : Path
        Names the file in errors.
    size : int
        Bytes in the file.
    fetch : callable
        Gives ``length`` bytes from ``offset``.

    Raises
    ------
    StoreError
        The file is not an archive as ``torch.save`` writes it, or its directory is inconsistent.
    """

    def __init__(self, path: Path, size: int, fetch: Fetch) -> None:
        self.path = path
        self.size = size
        self._fetch = fetch
        self._members = self._read_directory()
        self._check_form()

    @property
    def storage_sizes(self) -> dict[str, int]:
        """Bytes of each storage, by its key (``"0"`` for ``data/0``)."""
        return {
            name.removeprefix("data/"): member.size
            for name, member in self._members.items()
            if name.startswith("data/")
        }

    def read(self, name: str) -> memoryview:
        """Bytes of one member, after its local header and its CRC-32 have been checked.

        Parameters
        ----------
        name : str
            Name below the archive's folder: ``data.pkl``, or ``data/N`` for N of `storage_sizes`.

        Raises
        ------
        StoreError
            The member's header does not agree with the directory, or its bytes are damaged.
        """
        member = self._members[name]
        start = self._start_of(member)
        data = self._fetch(start, member.size)
        crc = zlib.crc32(data)
        if crc != member.crc:
            self._fail(f"member {name!r} is damaged: CRC-32 {crc:08x}, expected {member.crc:08x}")
        return data

    def piece(self, name: str, offset: int, length: int) -> memoryview:
        """Some bytes of one member, read without a check of its CRC-32.

        Parameters
        ----------
        name : str
            As in :meth:`read`.
        offset, length : int
            Which bytes; they are inside the member.

        Raises
        ------
        StoreError
            The member's header does not agree with the directory.
        """
        member = self._members[name]
        assert 0 <= offset <= offset + length <= member.size
        return self._fetch(self._start_of(member) + offset, length)

    def _start_of(self, member: _Member) -> int:
        """Offset of a member's bytes; its local header must agree with the directory."""
        length = _LOCAL.size + len(member.path)
        head = self._fetch(member.start, length)
        magic, _, flags, method, _, _, crc, packed, size, name_length, extra = _LOCAL.unpack_from(head)
        if magic != b"PK\x03\x04" or name_length != len(member.path) or head[_LOCAL.size :] != member.path:
            self._fail(f"no local header of {_shown(member.path)} at byte {member.start}, where it must be")
        self._check_flags(member.path, flags, method)
        told = (crc, packed, size)
        # Writers that stream leave zeros here and describe the member behind its bytes.
        if told != (member.crc, member.size, member.size) and not (flags & _DESCRIPTOR and not any(told)):
            self._fail(
                f"local header of {_shown(member.path)} claims {size} bytes, the directory {member.size}"
            )
        start: int = member.start + length + extra
        if start + member.size > member.limit:
            self._fail(
                f"member {_shown(member.path)} runs {start + member.size - member.limit} bytes too far"
            )
        return start

    def _read_directory(self) -> dict[str, _Member]:
        start, size, count = self._find_directory()
        directory = self._fetch(start, size)
        entries = sorted(self._entries(directory, count))
        if not entries or entries[0][0] != 0:
            self._fail("does not start with its first member")
        limits = [entry[0] for entry in entries[1:]] + [start]
        members: dict[str, _Member] = {}
        prefixes: set[str] = set()
        for (offset, path, length, crc), limit in zip(entries, limits, strict=True):
            if offset + _LOCAL.size + len(path) + length > limit:
                self._fail(
                    f"member {_shown(path)}: {length} bytes at byte {offset} overlap what starts at {limit}"
                )
            prefix, name = self._split_name(path)
            prefixes.add(prefix)
            if name in members or len(prefixes) > 1:
                self._fail(f"member {_shown(path)} is a duplicate, or has a second folder name")
            members[name] = _Member(path, offset, limit, length, crc)
        return members

    def _find_directory(self) -> tuple[int, int, int]:
        """Offset, bytes and entries of the central directory, from the records at the file's end."""
        end = self.size - _END.size
        if end < 0 or self._fetch(end, 4).tobytes() != b"PK\x05\x06":
            self._fail_foreign()
        _, disk, first_disk, here, count, size, start, comment = _END.unpack(self._fetch(end, _END.size))
        if (disk, first_disk, comment) != (0, 0, 0) or here != count:
            self._fail("is one volume of several, or carries a comment")
        locator = end - _LOCATOR_64.size
        if locator >= _END_64.size and self._fetch(locator, 4).tobytes() == b"PK\x06\x07":
            end = locator - _END_64.size
            start, size, count = self._wide_end(end, (start, size, count))
        if start + size != end or count * _ENTRY.size > size:
            self._fail(
                f"directory of {count} members in {size} bytes at byte {start} "
                f"does not fit the file's {self.size} bytes"
            )
        return start, size, count

    def _wide_end(self, end: int, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
        """Read the three numbers from the 64-bit record, which must not contradict the 32-bit one."""
        magic, length, *_, here, count, size, start = _END_64.unpack(self._fetch(end, _END_64.size))
        wide = (start, size, count)
        fits = all(
            short in (value, ones)
            for short, value, ones in zip(narrow, wide, (_ONES, _ONES, 0xFFFF), strict=True)
        )
        if magic != b"PK\x06\x06" or length != _END_64.size - 12 or here != count or not fits:
            self._fail(f"its two directory records disagree: {narrow} and {wide} (offset, bytes, members)")
        return wide

    def _entries(self, directory: memoryview, count: int) -> Iterator[tuple[int, bytes, int, int]]:
        """Local header's offset, stored name, size and CRC-32 of every member, in the directory's order."""
        position = 0
        for number in range(count):
            if position + _ENTRY.size > len(directory):
                self._fail(f"directory ends within member {number + 1} of {count}")
            magic, _, _, flags, method, _, _, crc, packed, size, *lengths, _, _, attributes, offset = (
                _ENTRY.unpack_from(directory, position)
            )
            start = position + _ENTRY.size
            path = bytes(directory[start : start + lengths[0]])
            position = start + sum(lengths)
            if magic != b"PK\x01\x02" or position > len(directory):
                self._fail(f"directory is damaged at member {number + 1} of {count}")
            self._check_flags(path, flags, method)
            if packed != size or stat.S_ISLNK(attributes >> 16) or _ONES in (size, offset):
                self._fail(
                    f"member {_shown(path)} is a link, has 4 GiB or more, or has two sizes ({packed}, {size})"
                )
            yield offset, path, size, crc
        if position != len(directory):
            self._fail(f"directory holds {len(directory) - position} bytes after its {count} members")

    def _check_flags(self, path: bytes, flags: int, method: int) -> None:
        if flags & _ENCRYPTED:
            self._fail(f"member {_shown(path)} is encrypted")
        if method != 0 or flags & ~(_DESCRIPTOR | _UTF_8):
            self._fail(
                f"member {_shown(path)} has method {method} and flags {flags:#x}, expected stored bytes"
            )

    def _split_name(self, path: bytes) -> tuple[str, str]:
        """Folder and name of a member; names that would lead out of a folder are refused."""
        try:
            prefix, _, name = path.decode().partition("/")
        except UnicodeDecodeError:
            self._fail(f"member name {_shown(path)} is not UTF-8")
        parts = [prefix, *name.split("/")]
        if "\\" in name or "\0" in name or any(part in {"", ".", ".."} for part in parts):
            self._fail(f"member name {_shown(path)} does not have the form FOLDER/NAME")
        return prefix, name

    def _check_form(self) -> None:
        if "data.pkl" not in self._members:
            self._fail(
                f"is a zip archive without data.pkl ({', '.join(map(ascii, sorted(self._members)[:3]))})"[
                    :300
                ]
            )
        version = bytes(self.read("version")[:8]).strip() if "version" in self._members else b"3"
        if not version.isdigit() or not 1 <= int(version) <= _NEWEST_VERSION:
            self._fail(f"format version is {version!r}, the versions known are 1 to {_NEWEST_VERSION}")
        order = bytes(self.read("byteorder")[:8]) if "byteorder" in self._members else b"little"
        if order != b"little":
            self._fail(
                f"byte order is {order!r}, only little-endian files are read: save it again on such a machine"
            )

    def _fail_foreign(self) -> NoReturn:
        start = bytes(self._fetch(0, min(self.size, 512)))
        looks = looks_like(start)
        if start.startswith(b"PK\x03\x04"):
            looks += " that is truncated, or has data after its directory"
        self._fail(f"is no archive of torch.save: {self.size} bytes that look like {looks}")

    def _fail(self, problem: str) -> NoReturn:
        raise StoreError(f"{self.path}: {problem}; {REMEDY}")


def _shown(path: bytes) -> str:
    """Name from a file, safe to show in a message."""
    return ascii(path[:100])[1:]


def load_archive(path: Path) -> tuple[Archive, str]:
    """Read a whole ``.pt`` file into memory, once.

    Members are views of one writable buffer, so a storage can be used without copying it, and a file that is
    replaced or truncated later does no harm.

    Returns
    -------
    tuple of Archive and str
        The archive and the SHA-256 of the file's bytes, in hexadecimal.

    Raises
    ------
    StoreError
        The file cannot be read, or is no archive of ``torch.save``.
    """
    with _opened(path) as (descriptor, size):
        # NumPy's large buffers come in huge pages, which halves the time of reading into them.
        buffer = np.empty(size, np.uint8).data
        done = 0
        while count := os.readv(descriptor, [buffer[done:]]) if done < size else 0:
            done += count
    if done != size:
        raise StoreError(f"{path}: ended after {done} of {size} bytes while it was read; {REMEDY}")
    archive = Archive(path, size, lambda offset, length: buffer[offset : offset + length])
    return archive, hashlib.sha256(buffer).hexdigest()


@contextmanager
def look_at_archive(path: Path) -> Iterator[Archive]:
    """Open a ``.pt`` file and read only the parts that are asked for.

    Yields
    ------
    Archive
        Usable inside the ``with`` block.

    Raises
    ------
    StoreError
        The file cannot be read, or is no archive of ``torch.save``.
    """
    with _opened(path) as (descriptor, size):

        def fetch(offset: int, length: int) -> memoryview:
            data = os.pread(descriptor, length, offset)
            if len(data) != length:
                raise StoreError(f"{path}: shrank while it was read; {REMEDY}")
            return memoryview(data)

        yield Archive(path, size, fetch)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a regular file; a pipe or device is refused before it can block."""
    try:
        with open_input(path, StoreError) as file:
            yield file.fileno(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StoreError(f"{path}: {problem_of(path, error)}") from error


def archive_pieces(pickle: bytes, storage: memoryview) -> list[bytes | memoryview]:
    """Give the bytes of a ``.pt`` file with one storage, in order; equal arguments give equal bytes.

    Members come in torch's own order, so that torch can also compute the offset of the storage.

    Parameters
    ----------
    pickle : bytes
        Becomes ``data.pkl``; may refer to the storage ``"0"``.
    storage : memoryview
        Bytes of the storage, little-endian; passed on as they are, without a copy. Both together must stay
        under `SIZE_LIMIT`.
    """
    members: list[tuple[str, bytes | memoryview]] = [
        ("data.pkl", pickle),
        (".format_version", b"1"),
        (".storage_alignment", b"%d" % _ALIGNMENT),
        ("byteorder", b"little"),
        ("data/0", storage),
        ("version", b"3\n"),
    ]
    pieces: list[bytes | memoryview] = []
    directory = b""
    position = 0
    for name, data in members:
        path = f"{_PREFIX}/{name}".encode()
        header, entry = _headers(path, zlib.crc32(data), len(data), position)
        pieces += [header, data]
        directory += entry
        position += len(header) + len(data)
    end = _END.pack(b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), position, 0)
    return [*pieces, directory + end]


def _headers(path: bytes, crc: int, size: int, position: int) -> tuple[bytes, bytes]:
    """Local header, padded so that the member's bytes are aligned, and directory entry of one member."""
    # Torch pads in the same way: an extra field called FB, filled with Z.
    padding = -(position + _LOCAL.size + len(path) + 4) % _ALIGNMENT
    extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    shared = (0, _UTF_8, 0, 0, _DOS_DATE, crc, size, size, len(path))
    local = _LOCAL.pack(b"PK\x03\x04", *shared, len(extra))
    entry = _ENTRY.pack(b"PK\x01\x02", 0, *shared, 0, 0, 0, 0, 0, position)
    return local + path + extra, entry + path
