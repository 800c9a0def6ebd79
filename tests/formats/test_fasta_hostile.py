"""FASTA files that somebody made on purpose, or a bad transfer left: refused or read, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nucpro.errors import FastaError, is_plain
from nucpro.formats.fasta import LONGEST_RECORD, count, inspect, read, split, stream
from nucpro.formats.sequences import NUCLEOTIDES

PEAK = 64 << 20
"""Bytes that refusing a file may take above what the interpreter and its modules have."""

REFUSED = {
    "nothing": (b"", "the file is empty; remove it or write it again"),
    "only a mark": (b">", "cannot be read as FASTA"),
    "only marks": (b">\n>\n>\n", "the id of record 1 is missing"),
    "mark and blank": (b"> \nACGT\n", "the id of record 1 is missing"),
    "only line feeds": (b"\n\n\n", "cannot be read as FASTA"),
    "UTF-16": (
        ">a\nACGT\n".encode("utf-16"),
        "it is UTF-16 text: save it as UTF-8; the file must start with '>'",
    ),
    "UTF-16 without a mark": (">a\nACGT\n".encode("utf-16-be"), "it is UTF-16 text"),
    "sequence first": (b"ACGT\n>a\nACGT\n", "the file must start with '>' and be complete"),
    "zeros": (bytes(5000), "the file must start with '>' and be complete"),
    "NUL in an id": (b">a\0b\nACGT\n", r"the id of record 1 holds control characters: 'a\x00b'"),
    "escape in an id": (
        b">ok\nA\n>\x1b[2J\nACGT\n",
        r"the id of record 2 holds control characters: '\x1b[2J'",
    ),
    "id that is no UTF-8": (b">a\xff\nACGT\n", "the id of record 1 is not valid UTF-8"),
    "gzip without an end": (
        gzip.compress(b">a\nACGT\n" * 999)[:-30],
        "gzip stream 1, which starts at byte 0 of ",
    ),
    "gzip of nothing": (gzip.compress(b""), "is empty when unpacked; remove it or write it again"),
    "start of gzip": (b"\x1f\x8b\x08", "gzip stream 1, which starts at byte 0 of 3, is truncated"),
    "mark at the end": (b">a\nACGT\n>b", "it ends after a header ('b'), without its sequence"),
    "header at the end": (
        b">a\nACGT\n>b c\n",
        "it ends after a header ('b c'), without its sequence",
    ),
    "one header": (b">a\n", "it ends after a header ('a'), without its sequence"),
    "lz4": (
        b"\x04\x22\x4d\x18" + bytes(20),
        "is an lz4 file; unpack it (lz4 -d) and name the file that comes",
    ),
    "long name": (b">" + b"\x1b" * 10_000 + b"\nA\n", r"\x1b'; remove them from its header"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(name: str, tmp_path: Path) -> None:
    content, text = REFUSED[name]
    path = tmp_path / "a.fa"
    path.write_bytes(content)
    with pytest.raises(FastaError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)
    assert is_plain(str(caught.value))
    assert len(str(caught.value)) < 1000


READ = {
    "no line feed at the end": (b">a\nAC\nGT", [b"ACGT"]),
    "mixed line ends": (b">a\r\nAC\nGT\r\n>b\nA\r\nC\n", [b"ACGT", b"AC"]),
    "empty lines": (b">a\n\nAC\n\n\nGT\n\n", [b"ACGT"]),
    "mark at the end of a line": (b">a>b\nAC>GT\n", [b"AC>GT"]),
    "NUL in a sequence": (b">a\nAC\0GT\n", [b"AC\0GT"]),
    "letters of other alphabets": (">a\nACGТ\n".encode(), [b"ACG?"]),
    "gzip in two parts": (gzip.compress(b">a\nAC") + gzip.compress(b"GT\n>b\nA\n"), [b"ACGT", b"A"]),
    "bzip2": (bz2.compress(b">a\nACGT\n"), [b"ACGT"]),
    "xz": (lzma.compress(b">a\nACGT\n"), [b"ACGT"]),
}


@pytest.mark.parametrize("name", READ)
def test_files_that_are_read(name: str, tmp_path: Path) -> None:
    content, sequences = READ[name]
    path = tmp_path / "a.fa"
    path.write_bytes(content)
    assert read(path).sequences == sequences
    assert count(path) == len(sequences)


@pytest.mark.parametrize(
    ("sequence", "found"),
    [
        (b"AC\0GT", r"'\x00' at position 3"),
        ("ACGТ".encode(), "'?' at position 4"),
        (b"A>C", "'>' at position 2"),
    ],
)
def test_foreign_characters_are_shown_as_text(sequence: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">a\n" + sequence + b"\n")
    (problem,) = inspect(path, NUCLEOTIDES).problems
    assert f"a has {found}; correct or remove these records" in problem
    assert is_plain(problem)


LIMITED = """
import resource, sys
from pathlib import Path
from nucpro.errors import FastaError
from nucpro.formats.fasta import count, read, split
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for work in (read, count, lambda path: split(path, path.parent, 5)):
    try:
        work(Path(sys.argv[2]))
    except FastaError as error:
        print(error)
"""


def refused_in_little_memory(path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(PEAK), path], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b">short\nACGT\n>long\n")
        file.truncate(10**9)


def packed(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b">short\nACGT\n>long\n")
        for _ in range(LONGEST_RECORD // 1_000_000 + 1):
            file.write(b"A" * 1_000_000)


@pytest.mark.parametrize("write", [sparse, packed], ids=["sparse", "gzip"])
def test_a_line_of_a_gigabyte_is_refused_in_little_memory(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.fa"
    write(path)
    text = "the record at byte 12 of its text has more than 100,000,000 bytes; split it into records of the "
    assert refused_in_little_memory(path) == [f"{path}: {text}intended length"] * 3
    assert list(tmp_path.iterdir()) == [path]


def test_many_lines_are_one_long_record_too(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">a\n" + b"ACGT\n" * (LONGEST_RECORD // 5 + 1))
    with pytest.raises(FastaError, match="the record at byte 0 of its text has more than 100,000,000 bytes"):
        count(path)


def test_a_large_file_of_short_records_is_read(tmp_path: Path) -> None:
    """Marks at every place of the blocks in which a file is looked through."""
    path = tmp_path / "a.fa"
    record = b">name\n" + b"A" * 99_991 + b"\n"
    path.write_bytes(record * (LONGEST_RECORD // len(record) + 3))
    assert count(path) == LONGEST_RECORD // len(record) + 3


def test_a_split_of_a_damaged_file_ends_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(gzip.compress(b">a\nACGT\n" * 9999)[:-9])
    with pytest.raises(FastaError, match=r"a\.fa: gzip stream 1, which starts at byte 0 of .*, is truncated"):
        split(path, tmp_path, 5)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n", b"\n\r", b"\n\r\r\r", b"\r"])
def test_all_readers_count_the_same_records_whatever_ends_lines(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(end.join([b">a x", b"MK", b"VL", b">b", b"TT", b""]))
    records = [(b"a", b"MKVL"), (b"b", b"TT")]
    assert [(name.encode(), sequence) for name, sequence in stream(path)] == records
    assert count(path) == inspect(path, "MKVLT").records == 2
    assert read(path).sequences == [b"MKVL", b"TT"]
