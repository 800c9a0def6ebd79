"""Facts about files, by name: the schema of each kind, and where a checkpoint keeps them.

A checkpoint has one fact per line. The lines stay in the file until a fact is asked for, because those of 10,000 files
would take 20 MB of memory; facts of this run and of the journal are in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nucpro.formats import replace_file
from nucpro.formats.records import Count, Digest, Name, checked, parsed

__all__ = [
    "DIGEST",
    "RECIPE",
    "SPLIT",
    "Document",
    "Facts",
    "dumped",
    "is_sound",
    "read_document",
    "write_document",
]

DIGEST = "digest"
RECIPE = "recipe"
SPLIT = "split"

_Stamps = list[tuple[int, int, int] | None]
_SCHEMAS: dict[str, dict[str, Any]] = {
    "fasta": {
        **dict.fromkeys(("records", "letters", "letters_read", "over_limit"), Count),
        **dict.fromkeys(("digest", "ids_digest"), Digest),
        "side": Name,
        "nucleotide": bool,
        "problems": list[str],
    },
    "count": {"records": Count},
    "dna": {"input": Digest},
    "vectors": {"recipe": Digest, "input": Digest, "trusted": bool, "verified": dict[str, Any]},
    "merged": {"sources": _Stamps},
    "valid": {"of": _Stamps, "records": Count, "models": dict[Literal["dna", "protein"], Digest | None]},
    DIGEST: {"sha256": Digest},
    SPLIT: {"sequences_per_file": Count},
    RECIPE: {"kind": Name, "made_by": dict[str, Any], "width": Count, "source": dict[str, Any]},
}
"""Schema of the entries of each kind of fact; a fact that does not follow it is ignored."""
_NEEDED = {
    "count": {"records"},
    "valid": {"records", "models"},
    DIGEST: {"sha256"},
    RECIPE: {"made_by", "width"},
}
_NAMES = ("id", "revision", "weights_sha256", "precision")


def is_sound(kind: str, entry: Mapping[str, Any]) -> bool:
    """Whether a fact follows its schema: its checksum only excludes accidental changes."""
    if not _NEEDED.get(kind, set()) <= entry.keys():
        return False
    try:
        for name, of in _SCHEMAS.get(kind, {}).items():
            if name in entry:
                checked(of, entry[name], name)
        for name in _NAMES if kind == RECIPE else ():
            checked(Name | None, entry["made_by"].get(name), name)
    except ValueError:
        return False
    return True


_START = b'"facts":{\n'
"""End of the line before the first fact."""
_SEAL = b'{"sha256":"%s",'
"""Start of a checkpoint; the digest is that of the document without it."""
_SEAL_LENGTH = len(_SEAL % bytes(64))
_BITS = 32
_MASK = (1 << _BITS) - 1


class Facts:
    """Facts by name: those in the lines of a checkpoint, and in memory those that were added since.

    Parameters
    ----------
    file : FileIO, optional
        The checkpoint, open for reading. It stays open, so it may be replaced by a new file.
    """

    def __init__(self, file: FileIO | None = None) -> None:
        self._newer: dict[str, bytes] = {}
        self._starts, self._lengths, self._checksums = array("Q"), array("I"), array("I")
        # Checksum of the name, then number of the line: an index of 8 bytes per fact.
        self._index = array("Q")
        if file is not None:
            self._descriptor = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._descriptor)

    def get(self, name: str) -> dict[str, Any]:
        """Fact of a name; empty if there is none."""
        if name in self._newer:
            return parsed(self._newer[name])
        return self._found(name)[1]

    @property
    def added(self) -> Collection[str]:
        """Names of the facts that are in memory."""
        return self._newer.keys()

    def put(self, name: str, fact: Mapping[str, Any]) -> None:
        """Add or replace a fact."""
        self._newer[name] = dumped(fact)

    def lines(self) -> Iterator[bytes]:
        """Each name with its fact, as a member of a JSON object."""
        replaced = {self._found(name)[0] for name in self._newer}
        for number in range(len(self._starts)):
            if number not in replaced and (line := self._line(number)):
                yield line
        for name, fact in self._newer.items():
            yield b"%s:%s" % (dumped(name), fact)

    def note(self, lines: Iterable[bytes], start: int) -> None:
        """Note the lines of the checkpoint from a position on; those that hold no fact are left out."""
        index = []
        for line in lines:
            name, fact = _member(_bare(line))
            if fact:
                index.append(_checksum(name) << _BITS | len(self._starts))
                self._starts.append(start)
                self._lengths.append(len(line))
                self._checksums.append(zlib.crc32(line))
            start += len(line)
        self._index = array("Q", sorted(index))

    def _found(self, name: str) -> tuple[int | None, dict[str, Any]]:
        """Number of the line of a name, and the fact in it; None if there is none."""
        checksum, index = _checksum(name), self._index
        for place in range(bisect_left(index, checksum << _BITS), len(index)):
            number = index[place] & _MASK
            if index[place] >> _BITS != checksum:
                break
            found, fact = _member(self._line(number))
            if found == name:
                return number, fact
        return None, {}

    def _line(self, number: int) -> bytes:
        """A line without its comma; empty if it is not as it was noted."""
        line = os.pread(self._descriptor, self._lengths[number], self._starts[number])
        return _bare(line) if zlib.crc32(line) == self._checksums[number] else b""


class Document(NamedTuple):
    """Content of a checkpoint.

    Parameters
    ----------
    content : dict
        All but the facts; empty if it is no JSON object.
    facts : Facts
        The facts.
    is_sound : bool
        Whether the digest in it is that of the document.
    """

    content: dict[str, Any]
    facts: Facts
    is_sound: bool


def read_document(file: FileIO) -> Document:
    """Read a checkpoint, and verify its digest.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with BufferedReader(file) as lines:
        first = lines.readline()
        digest = hashlib.sha256(b"{" + first[_SEAL_LENGTH:])

        def hashed() -> Iterator[bytes]:
            for line in lines:
                digest.update(line)
                yield line

        if first.endswith(_START):
            facts = Facts(file)
            facts.note(hashed(), len(first))
            content = parsed(first + b"}}")
        else:
            # Earlier versions wrote one line.
            facts = Facts()
            content = parsed(first + b"".join(hashed()))
            known = content.pop("facts", {})
            for name, fact in known.items() if isinstance(known, dict) else ():
                if isinstance(fact, dict):
                    facts.put(name, fact)
    return Document(content, facts, content.get("sha256") == digest.hexdigest())


def write_document(path: Path, content: Mapping[str, Any], facts: Facts) -> None:
    """Write a checkpoint in pieces, atomically: as a whole, it would be in memory several times.

    Raises
    ------
    StoreError
        It cannot be written.
    """

    def pieces() -> Iterator[bytes]:
        yield dumped(content)[1:-1] + b"," + _START
        for number, line in enumerate(facts.lines()):
            yield b"%s%s" % (b",\n" if number else b"", line)
        yield b"\n}}\n"

    digest, size = hashlib.sha256(b"{"), _SEAL_LENGTH
    for piece in pieces():
        digest.update(piece)
        size += len(piece)
    with replace_file(path, size) as target:
        target.write(_SEAL % digest.hexdigest().encode())
        for piece in pieces():
            target.write(piece)


def _member(line: bytes) -> tuple[str, dict[str, Any]]:
    """Name and fact of a line; both empty if it holds none."""
    found = parsed(b"{%s}" % line)
    name, fact = next(iter(found.items()), ("", {}))
    return (name, fact) if len(found) == 1 and isinstance(fact, dict) else ("", {})


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b",")


def _checksum(name: str) -> int:
    return zlib.crc32(name.encode(errors="surrogatepass"))


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dumped(value: object) -> bytes:
    """Compact JSON."""
    return _ENCODER.encode(value).encode()
