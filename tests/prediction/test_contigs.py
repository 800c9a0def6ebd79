"""Inputs as users have them, and how they are cut into units of work."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from predictions import GENOMES, Contig, write_contigs

from folders import pairs_of
from frame_reference import cut
from held_out import write_held_out
from nucpro.errors import FastaError
from nucpro.formats.fasta import read, stream
from nucpro.prediction.contigs import inspect, units_of

bases = st.text("ACGTN", max_size=60).map(str.encode)


@given(st.lists(bases, min_size=1, max_size=12), st.integers(3, 20), st.integers(1, 7))
def test_units_hold_every_chunk_of_every_record_once(
    sequences: list[bytes], length: int, per_unit: int
) -> None:
    records = [(f"r{number}", sequence) for number, sequence in enumerate(sequences)]
    units = list(units_of(records, length, per_unit))
    expected = [
        (name, number, start, end, sequence[start:end])
        for name, sequence in records
        for number, (start, end) in enumerate(cut(len(sequence), length))
    ]
    found = [
        (piece.record, number, start, end, piece.bases[start - piece.chunks.starts[0] :][: end - start])
        for unit in units
        for piece in unit.pieces
        for number, start, end in zip(
            piece.chunks.numbers.tolist(),
            piece.chunks.starts.tolist(),
            piece.chunks.ends.tolist(),
            strict=True,
        )
    ]
    assert found == expected
    assert [unit.number for unit in units] == list(range(1, len(units) + 1))
    ends = (units[-1].pieces[0].record, units[-1].pieces[-1].record)
    assert str(units[-1]) == f"unit {len(units)} (records {ends[0]} to {ends[1]})"
    assert all(unit.chunks == per_unit for unit in units[:-1])
    # Records without bases are in the units too: they must not vanish from the tables.
    assert list(dict.fromkeys(p.record for u in units for p in u.pieces)) == [name for name, _ in records]


def test_facts_do_not_depend_on_how_the_input_is_written(tmp_path: Path, contigs: list[Contig]) -> None:
    lower = [Contig(contig.name, contig.bases.lower()) for contig in contigs]
    paths = [
        write_contigs(tmp_path / "a.fasta", contigs),
        write_contigs(tmp_path / "b.fna.gz", contigs),
        write_contigs(tmp_path / "c.fastq", contigs),
        write_contigs(tmp_path / "d.fastq.gz", lower),
    ]
    facts = [inspect([path], 300) for path in paths]
    assert facts == [facts[0]] * 4
    assert facts[0].records == 6
    assert facts[0].bases == sum(len(contig.bases) for contig in contigs)
    assert facts[0].chunks == sum(len(cut(len(contig.bases), 300)) for contig in contigs)
    assert facts[0].problems == ()


def test_another_base_is_another_input(tmp_path: Path, contigs: list[Contig]) -> None:
    changed = [Contig(contigs[0].name, contigs[0].bases[:-1]), *contigs[1:]]
    first = inspect([write_contigs(tmp_path / "a.fasta", contigs)], 300)
    assert first.digest != inspect([write_contigs(tmp_path / "b.fasta", changed)], 300).digest


def test_ids_that_come_twice_are_named(tmp_path: Path) -> None:
    names = ["a", "b", "a", "c", "b", "a"]
    path = write_contigs(tmp_path / "x.fasta", [Contig(name, "ACGT") for name in names])
    (problem,) = inspect([path], 300).problems
    assert problem == (
        f"{path}: 2 duplicate ids: a, b; scores are identified by id, which ends at the first space of a header: give "
        "every record its own (mates of a read pair: append /1 and /2)"
    )


def test_characters_of_no_nucleotide_are_named(tmp_path: Path) -> None:
    contigs = [Contig(f"protein{number}", "ACGTMKVL") for number in range(7)]
    (problem,) = inspect([write_contigs(tmp_path / "x.fasta", contigs)], 300).problems
    assert (
        f"{tmp_path / 'x.fasta'}: characters outside ACGTURYSWKMBDHVN: protein0 has 'L' at position 8,"
        in problem
    )
    assert "protein4 has 'L' at position 8 and more; correct or remove these records" in problem
    assert "protein5" not in problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b">only\n", "cannot be read as FASTA: it ends after a header"),
        (
            gzip.compress(b">a\n" + b"ACGT" * 5000)[:40],
            "gzip stream 1, which starts at byte 0 of 40, is truncated",
        ),
        (b"@a\nACGT\n+\nII\n", "cannot be read as FASTQ: record 1 has 4 bases and 2 qualities"),
        (b">\nACGT\n", "the id of record 1 is missing"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(FastaError, match=f"x.fa: {message}"):
        inspect([path], 300)


def test_contigs_of_the_demo_are_of_genomes_without_a_row(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)
    (merged,) = [pair for pair in pairs if pair.merged.exists()]
    used = {name.rpartition("_chunk_")[0] for name in read(merged.nucleotide_fasta).ids}
    names = write_held_out(GENOMES, pairs, tmp_path / "held_out.fna")
    every = {name for path in GENOMES.glob("*.fna.gz") for name, _ in stream(path)}
    assert used
    assert set(names) == every - used
    assert read(tmp_path / "held_out.fna").ids == names
