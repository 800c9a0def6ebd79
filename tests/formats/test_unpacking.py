"""Packed text as programs write it: in many streams, padded, cut off, damaged, or of a form that is not read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from nucpro.errors import DataError, FastaError, is_plain
from nucpro.formats.fasta import count, inspect, read, split, stream
from nucpro.formats.unpacking import open_text

RECORDS = [b">r%d\n%b\n" % (number, b"ACGT" * (number * 50)) for number in range(1, 8)]
TEXT = b"".join(RECORDS)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
with suppress(ImportError):
    from backports import zstd

    PACKERS["zstd"] = zstd.compress
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzf(text: bytes, size: int = 300) -> bytes:
    """Blocks as bgzip writes them, without the empty one at the end."""
    blocks = []
    for start in range(0, len(text), size):
        part = text[start : start + size]
        engine = zlib.compressobj(wbits=-15)
        packed = engine.compress(part) + engine.flush()
        head = struct.pack("<4BL2BH2sHH", 31, 139, 8, 4, 0, 0, 255, 6, b"BC", 2, len(packed) + 25)
        blocks.append(head + packed + struct.pack("<LL", zlib.crc32(part), len(part)))
    return b"".join(blocks)


def streams(pack: Callable[[bytes], bytes], padding: bytes = b"") -> bytes:
    """Streams that end inside records, headers and lines."""
    cuts = [0, 1, 40, 41, 300, 301, 1000, len(TEXT)]
    parts = (TEXT[left:right] for left, right in pairwise(cuts))
    return padding.join(map(pack, parts)) + padding


WHOLE = {
    **{f"{name}, many streams": streams(pack) for name, pack in PACKERS.items()},
    **{f"{name}, zeros behind": pack(TEXT) + bytes(512) for name, pack in PACKERS.items()},
    **{f"{name}, zeros between": streams(pack, bytes(8)) for name, pack in PACKERS.items()},
    **{f"{name}, empty streams": pack(b"") + streams(pack) + pack(b"") for name, pack in PACKERS.items()},
    **{
        f"{name}, a stream a byte": b"".join(pack(TEXT[i : i + 1]) for i in range(len(TEXT)))
        for name, pack in PACKERS.items()
    },
    "gzip, a megabyte of zeros behind": gzip.compress(TEXT) + bytes(1 << 20),
    "bgzip": bgzf(TEXT) + BGZF_END,
    "bgzip with empty blocks": BGZF_END + bgzf(TEXT[:900]) + BGZF_END + bgzf(TEXT[900:]) + BGZF_END,
    "bgzip, then gzip": bgzf(TEXT[:900]) + BGZF_END + gzip.compress(TEXT[900:]),
    "gzip with a name and a comment": b"\x1f\x8b\x08\x18"
    + bytes(6)
    + b"a.fa\0note\0"
    + gzip.compress(TEXT)[10:],
    "xz without a check": lzma.compress(TEXT, check=lzma.CHECK_NONE),
    "xz with CRC-32": lzma.compress(TEXT, check=lzma.CHECK_CRC32),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_stream_is_read_by_every_reader(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(WHOLE[name])
    with open_text(path) as text:
        assert text.read() == TEXT
    sequences = [b"ACGT" * (number * 50) for number in range(1, 8)]
    assert read(path).sequences == [sequence for _, sequence in stream(path, fastq=True)] == sequences
    facts = inspect(path, "ACGT")
    assert (facts.records, facts.letters, count(path)) == (7, sum(map(len, sequences)), 7)
    assert split(path, tmp_path, 4) == 2
    assert read(tmp_path / "output_2.fa").ids == ["r5", "r6", "r7"]


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_any_size_can_be_asked_for(name: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(streams(PACKERS[name]))
    with open_text(path) as text:
        assert b"".join(iter(lambda: text.read(size), b"")) == TEXT
    with open_text(path) as text, io.BufferedReader(text, 300) as buffered:
        assert buffered.read() == TEXT


def test_a_reader_of_zstd_is_imported_only_for_a_file_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_bytes(gzip.compress(TEXT))
    code = (
        "import pathlib, sys; from nucpro.formats.unpacking import open_text; open_text(pathlib.Path(sys.argv[1]));"
        "print([name for name in sys.modules if 'zstd' in name])"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.fa"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def damaged(packed: bytes) -> bytes:
    at = len(packed) // 2
    return packed[:at] + bytes([packed[at] ^ 0xFF]) + packed[at + 1 :]


def archive_of_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.fa")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    return buffer.getvalue()


def archive_of_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.fa", TEXT)
    return buffer.getvalue()


REFUSED = {
    **{
        f"{name}, second stream cut": (pack(TEXT) + pack(TEXT)[:-9], f"{name} stream 2, which starts at byte")
        for name, pack in PACKERS.items()
    },
    **{
        f"{name}, second stream damaged": (
            pack(TEXT) + damaged(pack(TEXT)),
            f"{name} stream 2, which starts at",
        )
        for name, pack in PACKERS.items()
    },
    **{
        f"{name}, other bytes behind": (
            pack(TEXT) + b"garbage",
            f"where {name} stream 1 ends, is no {name} stream (an unknown kind of file)",
        )
        for name, pack in PACKERS.items()
    },
    **{
        f"{name}, start of a second header": (pack(TEXT) + pack(TEXT)[:2], f"{name} stream")
        for name, pack in PACKERS.items()
    },
    **{f"{name} in gzip": (gzip.compress(pack(TEXT)), "is packed twice") for name, pack in PACKERS.items()},
    "gzip, then bzip2": (gzip.compress(TEXT) + bz2.compress(TEXT), "is no gzip stream (a bzip2 file)"),
    "gzip, then plain": (gzip.compress(TEXT) + TEXT, "is no gzip stream (a FASTA file)"),
    "gzip, zeros, then others": (gzip.compress(TEXT) + bytes(9) + b"x", "is no gzip stream"),
    "gzip with a wrong checksum": (gzip.compress(TEXT)[:-5] + b"\0" * 5, "is damaged (Error -3"),
    "bgzip cut between blocks": (bgzf(TEXT), "lacks the empty block at the end of every bgzip file"),
    "zstd after a frame of other data": (b"\x5e\x2a\x4d\x18" + bytes(20), "is a zstd file"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(20), "is an lz4 file; unpack it (lz4 -d)"),
    "lzma alone": (lzma.compress(TEXT, lzma.FORMAT_ALONE), "is an lzma file; unpack it (xz -d)"),
    "compress": (b"\x1f\x9d\x90" + bytes(20), "is a file packed by compress (.Z); unpack it (gzip -d)"),
    "zip": (archive_of_zip(), "is a zip archive; unpack it (unzip)"),
    "tar": (archive_of_tar(), "is a tar archive; unpack it (tar -x)"),
    "tar in gzip": (gzip.compress(archive_of_tar()), "is a tar archive; unpack it (tar -x)"),
    "zip in bzip2": (bz2.compress(archive_of_zip()), "is a zip archive; unpack it (unzip)"),
    "RAR": (b"Rar!\x1a\x07\x01\x00" + bytes(20), "is a RAR archive; unpack it (unrar)"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(20), "is a 7z archive; unpack it (7z x)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_whole_is_refused_by_every_reader(name: str, tmp_path: Path) -> None:
    content, text = REFUSED[name]
    path = tmp_path / "a.fa"
    path.write_bytes(content)
    for reader in (
        read,
        count,
        lambda path: list(stream(path, fastq=True)),
        lambda path: split(path, tmp_path, 2),
    ):
        with pytest.raises(FastaError) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert text in str(caught.value)
        assert is_plain(str(caught.value))


@pytest.mark.parametrize("name", PACKERS)
def test_no_cut_passes_for_the_whole(name: str, tmp_path: Path) -> None:
    """Wherever a file is cut, what was cut off is missed, or only an end of a whole stream is left."""
    path = tmp_path / "a"
    packed = PACKERS[name](TEXT[:900]) + PACKERS[name](TEXT[900:])
    first = len(PACKERS[name](TEXT[:900]))
    for length in range(1, len(packed)):
        path.write_bytes(packed[:length])
        try:
            with open_text(path) as text:
                found = text.read()
        except DataError:
            continue
        assert (length, found) == (first, TEXT[:900]) or length < 6


def test_a_bomb_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bz2.compress(bytes(200_000_000)))
    with open_text(path) as text:
        sizes = {len(data) for data in iter(lambda: text.read(1 << 20), b"")}
    assert max(sizes) <= 1 << 20
