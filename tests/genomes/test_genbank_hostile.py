"""GenBank files that somebody made on purpose: refused or read, never the end of the process."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from nucpro.errors import DataError, is_plain
from nucpro.genomes.flatfile import LONGEST_LINE
from nucpro.genomes.genbank import Annotation, read_annotations

PEAK = 64 << 20
"""Bytes that refusing a file may take above what the interpreter and its modules have."""
RECORD = b"""LOCUS       NC_1                60 bp    DNA     circular BCT 01-JAN-1970
DEFINITION  made for a test.
ACCESSION   NC_1
VERSION     NC_1.3
FEATURES             Location/Qualifiers
     CDS             %s
                     /note="%s"
                     /translation="MAAAAK"
ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
"""
GOOD = Annotation("NC_1.3", {1: ["MAAAAK"]}, cds=1)


def record(location: bytes = b"1..20", note: bytes = b"x") -> bytes:
    return RECORD % (location, note)


def nested(word: bytes, depth: int, *, wrapped: bool = False) -> bytes:
    text = (word + b"(") * depth + b"1..20" + b")" * depth
    if not wrapped:
        return text
    return (b"\n" + b" " * 21).join(text[start : start + 58] for start in range(0, len(text), 58))


def read(folder: Path, content: bytes, *, packed: bool = True) -> list[Annotation]:
    path = folder / "a.genomic.gbff.gz"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return list(read_annotations(path))


def refusal(folder: Path, content: bytes, *, packed: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, packed=packed)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'a.genomic.gbff.gz'}: ")
    assert is_plain(message)
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("word", [b"complement", b"join", b"order", b"one-of", b"bond", b"join(1..2,join"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_deeply_nested_locations_do_not_end_the_process(word: bytes, wrapped: bool, tmp_path: Path) -> None:
    """Reading them by recursion would overflow the stack."""
    content = record() + record(nested(word, 50_000, wrapped=wrapped))
    if word.count(b"(") == 0:
        assert read(tmp_path, content) == [GOOD, GOOD]
    else:
        assert "is not complete before this line" in refusal(tmp_path, content)


def test_brackets_in_notes_and_long_joins_are_no_nesting(tmp_path: Path) -> None:
    parts = b",".join(b"complement(%d..%d)" % (start, start) for start in range(1, 60))
    content = record(b"join(" + parts + b")", b"(" * 90) * 3000
    assert len(read(tmp_path, content)) == 3000


@pytest.mark.parametrize("place", ["in a note", "in front", "at the end"])
def test_a_line_without_an_end_is_refused(place: str, tmp_path: Path) -> None:
    line = b"A" * (LONGEST_LINE + 1)
    content = {
        "in a note": record(note=line),
        "in front": line + record(),
        "at the end": record() + line,
    }[place]
    assert "has more than 1,048,576 bytes; wrap it" in refusal(tmp_path, content)


def test_lines_of_a_long_qualifier_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, record(note=b"A" * 900_000) * 2) == [GOOD, GOOD]


LIMITED = """
import resource, sys
from pathlib import Path
from nucpro.genomes.genbank import read_annotations
from nucpro.errors import DataError
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    list(read_annotations(Path(sys.argv[2])))
except DataError as error:
    print(error)
"""


def test_a_line_of_a_gigabyte_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.genomic.gbff.gz"
    # Equal parts of gzip behind each other are one file: a gigabyte costs nothing to write.
    path.write_bytes(gzip.compress(record()[:-3]) + gzip.compress(b"A" * 10_000_000) * 100)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(PEAK), path], capture_output=True, text=True, check=True
    )
    assert "record 1 (NC_1.3), line 9: has more than 1,048,576 bytes" in done.stdout


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (record().replace(b"MAAAAK", b"\xff\xfe"), "which is no residue"),
        (record()[:200], "line 6: 'CDS' fits neither a feature"),
        (record()[:-20], "the file ends before // ended the record"),
        (bytes(1000), "holds binary data"),
        (b"", "is empty"),
    ],
    ids=["no UTF-8", "cut short in the table", "cut short in the sequence", "zeros", "empty"],
)
def test_files_that_are_refused(content: bytes, text: str, tmp_path: Path) -> None:
    assert text in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (record() + b"\n\n", 1),
        (record()[:-1], 1),
        (record(note=b"\x1b[2J"), 1),
        (record(b"1..99999999999999999999999"), 1),
    ],
    ids=[
        "empty lines at the end",
        "no line feed at the end",
        "escapes in a note",
        "position of 77 bits",
    ],
)
def test_files_that_are_read(content: bytes, count: int, tmp_path: Path) -> None:
    assert read(tmp_path, content) == [GOOD] * count


def test_windows_line_ends(tmp_path: Path) -> None:
    content = record().replace(b"\n", b"\r\n")
    assert read(tmp_path, content)[0].record == "NC_1.3"


@pytest.mark.parametrize("cut", [1, 5, 9, 20, 100])
def test_gzip_that_was_cut_short(cut: int, tmp_path: Path) -> None:
    packed = gzip.compress(record() * 99, 1)
    assert "is truncated; copy or download the file again" in refusal(tmp_path, packed[:-cut], packed=False)


def test_the_name_of_a_record_cannot_steer_a_terminal(tmp_path: Path) -> None:
    content = record().replace(b"NC_1.3", b"NC\x1b[2J.3")
    assert "record 1 has the name 'NC\\x1b[2J.3', which holds control characters" in refusal(
        tmp_path, content
    )
