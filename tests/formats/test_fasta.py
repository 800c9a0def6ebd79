"""FASTA as users have it: wrapped, compressed, with any line ends, and broken in every usual way."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import needletail
import pytest

from folders import Frame
from nucpro.errors import FastaError
from nucpro.formats.fasta import count, difference, inspect, read, require_usable, split, stream
from nucpro.formats.sequences import NUCLEOTIDES, RESIDUES

PLAIN = b">a first\nMKV\n>b\nACDEF\n"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return tmp_path / "x.fa"


SAME = {
    "plain": PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "no newline at the end": PLAIN.rstrip(),
    "wrapped": b">a first\nMK\nV\n>b\nACD\nEF\n",
    "lower case": b">a first\nmkv\n>b\nacdEF\n",
    "other description": b">a\tsecond\nMKV\n>b x y\nACDEF\n",
    "blank lines between": b">a first\nMKV\n\n>b\nACDEF\n\n",
    "gzip": gzip.compress(PLAIN),
    "gzip in two members": gzip.compress(PLAIN[:14]) + gzip.compress(PLAIN[14:]),
    "byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "carriage returns alone": PLAIN.replace(b"\n", b"\r"),
    "carriage returns twice": PLAIN.replace(b"\n", b"\r\r\n"),
    "blank lines first": b"\n\r\n\n" + PLAIN,
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME.keys())
def test_the_same_records_in_any_form(fasta: Path, content: bytes) -> None:
    fasta.write_bytes(content)
    records = read(fasta)
    assert (records.ids, records.sequences) == (["a", "b"], [b"MKV", b"ACDEF"])
    expected = fasta.with_name("expected.fa")
    expected.write_bytes(PLAIN)
    assert records.digest() == read(expected).digest()
    assert count(fasta) == 2


BROKEN = {
    "empty file": (b"", "the file is empty"),
    "no header": (b"MKV\n", "must start with '>'"),
    "only a header mark": (b">", "cannot be read as FASTA"),
    "cut inside a header": (b">a\nMKV\n>b", "cannot be read as FASTA"),
    "FASTQ": (b"@a\nMKV\n+\nIII\n", "record 1 is FASTQ"),
    "no id": (b">a\nMKV\n> b\nMKV\n", "the id of record 2 is missing"),
    "id not UTF-8": (b">\xffa\nMKV\n", "the id of record 1 is not valid UTF-8"),
    "gzip cut short": (gzip.compress(PLAIN * 50)[:-30], "gzip stream 1, .*, is truncated"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_named_with_what_is_wrong(fasta: Path, content: bytes, message: str) -> None:
    fasta.write_bytes(content)
    with pytest.raises(FastaError, match=message) as caught:
        read(fasta)
    assert str(fasta) in str(caught.value)


def test_a_missing_file_is_an_error(fasta: Path) -> None:
    with pytest.raises(FastaError, match="No such file"):
        read(fasta)


UNUSABLE = {
    "empty sequence": (b">a\n\n>b\nMKV\n", "1 record without a sequence: a"),
    "duplicate": (b">a\nMKV\n>b\nMKV\n>a x\nMKV\n", "1 duplicate id: a"),
    "stop": (b">a\nMKV\n>b\nMK*V\n", "b has '\\*' at position 3"),
    "gap": (b">a\nM-V\n", "a has '-' at position 2"),
    "NUL": (b">a\nM\0V\n", "a has '\\\\x00' at position 2"),
    "space": (b">a\nMK V\n", "a has ' ' at position 3"),
}


@pytest.mark.parametrize(("content", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unusable_record_is_named_with_its_position(fasta: Path, content: bytes, message: str) -> None:
    fasta.write_bytes(content)
    with pytest.raises(FastaError, match=message):
        require_usable(read(fasta), RESIDUES)


def test_all_kinds_of_problems_are_reported_at_once(fasta: Path) -> None:
    fasta.write_bytes(b">a\n\n>a\nMK1\n")
    problems = inspect(fasta, RESIDUES).problems
    assert len(problems) == 3
    assert all(str(fasta) in problem for problem in problems)


def test_alphabets(fasta: Path) -> None:
    fasta.write_bytes(b">a\nACGTURYSWKMBDHVNacgtn\n")
    assert inspect(fasta, NUCLEOTIDES).problems == ()
    fasta.write_bytes(b">a\nACDEFGHIKLMNPQRSTVWYXBUZOx\n")
    assert inspect(fasta, RESIDUES).problems == ()
    assert "J" not in RESIDUES


def test_facts_count_what_is_cut(fasta: Path) -> None:
    fasta.write_bytes(b">a\nMKVA\n>b\nMK\n")
    facts = inspect(fasta, RESIDUES, limit=3)
    assert (facts.records, facts.letters, facts.letters_read, facts.over_limit) == (2, 6, 5, 1)


def test_the_ids_digest_ignores_order_the_digest_does_not(fasta: Path) -> None:
    fasta.write_bytes(b">a\nMK\n>b\nVV\n")
    one = inspect(fasta, RESIDUES)
    fasta.write_bytes(b">b\nVV\n>a\nMK\n")
    other = inspect(fasta, RESIDUES)
    assert one.ids_digest == other.ids_digest
    assert one.digest != other.digest


def test_a_split_keeps_every_record_in_order(tmp_path: Path, frames: dict[str, list[Frame]]) -> None:
    records = frames["viral.1.1"]
    whole, parts = tmp_path / "whole.fa", tmp_path / "parts"
    whole.write_text("".join(f">{f.name} text\n{f.bases[:70]}\n{f.bases[70:]}\n" for f in records))
    parts.mkdir()
    assert split(whole, parts, 50) == -(-len(records) // 50)
    again = [read(parts / f"output_{number}.fa") for number in range(1, len(list(parts.iterdir())) + 1)]
    assert [len(part) for part in again[:-1]] == [50] * (len(again) - 1)
    assert [name for part in again for name in part.ids] == [frame.name for frame in records]
    assert [s.decode() for part in again for s in part.sequences] == [frame.bases for frame in records]
    assert (parts / "output_1.fa").read_text().count("\n") == 100


def test_difference_keeps_order() -> None:
    assert difference("dabc", "cxa") == (["d", "b"], ["x"])


def test_characters_outside_ascii_are_never_taken_for_others(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_text(">one\nACß\n", encoding="utf-8")
    assert read(path).sequences == [b"AC?"]
    with pytest.raises(FastaError, match=r"characters outside ACGTURYSWKMBDHVN: one has '\?' at position 3"):
        require_usable(read(path), NUCLEOTIDES)


def test_a_stream_takes_fastq_where_it_may(tmp_path: Path) -> None:
    path = tmp_path / "reads.fq.gz"
    path.write_bytes(gzip.compress(b"@r1 first\nacgt\n+\nIIII\n@r2\nNN\n+\n!!\n"))
    assert list(stream(path, fastq=True)) == [("r1", b"ACGT"), ("r2", b"NN")]
    with pytest.raises(FastaError, match="record 1 is FASTQ"):
        list(stream(path))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(FastaError, match=r"cannot be read as FASTA or FASTQ: .*must start with '>' or '@'"):
        list(stream(path, fastq=True))


def test_what_is_no_file_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        FastaError, match=r"no\.fa: cannot be read: No such file or directory; check the path"
    ):
        read(tmp_path / "no.fa")
    with pytest.raises(FastaError, match="is a folder, not a regular file; name a file"):
        list(stream(tmp_path, fastq=True))


@pytest.mark.parametrize("length", [1, 7, 60, 70, 1 << 20])
def test_records_are_those_of_another_parser(length: int, tmp_path: Path) -> None:
    """Lines of every length, at every place of the blocks in which a file is read."""
    draw = random.Random(length)
    path = tmp_path / "x.fa"
    with path.open("w", encoding="utf-8") as file:
        for number in range(3000):
            sequence = "".join(draw.choices("ACGTacgtN", k=draw.randrange(1, 2000)))
            lines = (sequence[at : at + length] for at in range(0, len(sequence), length))
            file.write(
                f">r{number} é >{'x' * draw.randrange(50)}\n" + "\n".join(lines) + "\n" * draw.randrange(1, 3)
            )
    expected = [
        (record.name, record.seq.upper().encode()) for record in needletail.parse_fastx_file(str(path))
    ]
    assert list(stream(path)) == expected
    assert count(path) == 3000
    reads = tmp_path / "x.fq"
    reads.write_bytes(b"".join(b"@%b x\n%b\n+\n%b\n" % (n.encode(), s, b"@" * len(s)) for n, s in expected))
    assert list(stream(reads, fastq=True)) == expected
