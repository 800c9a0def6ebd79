"""The frames that are scored, against plain translation and against Biopython."""

from __future__ import annotations

import pytest
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st
from predictions import GENOMES, read_contigs

from frame_reference import cut, frames
from nucpro.prediction.contigs import Unit, UnitFrames, frames_of, units_of

AMBIGUOUS = "ACGTURYSWKMBDHVN"


def only_unit(records: list[tuple[str, str]], size: int) -> Unit:
    (unit,) = units_of([(name, bases.upper().encode()) for name, bases in records], size, 1 << 20)
    return unit


def shown(found: UnitFrames) -> list[tuple[str, str, str]]:
    rows = zip(found.ids, found.nucleotides, found.proteins, strict=True)
    return [(name, bases.decode(), protein.decode()) for name, bases, protein in rows]


@given(
    st.lists(
        st.text(AMBIGUOUS + AMBIGUOUS.lower(), min_size=1, max_size=200) | st.text("ACGT", min_size=1),
        min_size=1,
        max_size=5,
    ),
    st.integers(3, 100),
)
def test_frames_are_those_of_plain_translation(sequences: list[str], size: int) -> None:
    records = [(f"contig{number}", sequence) for number, sequence in enumerate(sequences)]
    every = [
        (f"{record}_chunk_{number}{name}", nucleotides, protein)
        for record, sequence in records
        for number, (start, end) in enumerate(cut(len(sequence), size), start=1)
        for name, (nucleotides, protein) in frames(sequence[start:end].upper().replace("U", "T")).items()
        if protein and "*" not in protein
    ]
    found = frames_of(only_unit(records, size))
    assert shown(found) == [row for row in every if row[2].count("X") * 2 <= len(row[2])]
    assert found.unknown == len(every) - len(found)


@pytest.mark.parametrize("size", [300, 500])
@pytest.mark.parametrize("source", ["viral.1.1", "plant.1.1"])
def test_six_frames_of_real_genomes_are_those_of_biopython(source: str, size: int) -> None:
    contigs = read_contigs(GENOMES / f"{source}.genomic.fna.gz")
    expected = []
    for contig in contigs:
        for number, (start, end) in enumerate(cut(len(contig.bases), size), start=1):
            chunk = Seq(contig.bases[start:end])
            strands = {"F": chunk, "R": chunk.reverse_complement()}
            for letter, strand in strands.items():
                for shift in range(3):
                    whole = strand[shift : shift + 3 * ((len(strand) - shift) // 3)]
                    protein = str(whole.translate())
                    if protein and "*" not in protein:
                        expected.append((f"{contig.name}_chunk_{number}{letter}{shift + 1}", protein))
    found = frames_of(only_unit([(contig.name, contig.bases) for contig in contigs], size))
    assert [(name, protein) for name, _, protein in shown(found)] == expected
    assert len(expected) > 20
    assert found.unknown == 0


def test_chunks_of_a_record_in_many_units_keep_their_numbers() -> None:
    bases = read_contigs(GENOMES / "viral.1.1.genomic.fna.gz")[1].bases.encode()
    whole = frames_of(next(units_of([("phi", bases)], 300, 1000)))
    parts = [frames_of(unit) for unit in units_of([("phi", bases)], 300, 4)]
    assert [row for part in parts for row in shown(part)] == shown(whole)


def test_an_ambiguous_codon_is_x() -> None:
    rows = {
        name: (bases, protein)
        for name, bases, protein in shown(frames_of(only_unit([("c", "atgNNNaaa")], 300)))
    }
    assert rows["c_chunk_1F1"] == ("ATGNNNAAA", "MXK")
    assert rows["c_chunk_1R1"] == ("TTTNNNCAT", "FXH")


def test_u_counts_as_t() -> None:
    records = [shown(frames_of(only_unit([("c", bases)], 300))) for bases in ("AUGGCUGCU", "ATGGCTGCT")]
    assert records[0] == records[1]
    assert records[0][0][1] == "ATGGCTGCT"


def test_a_run_of_n_is_no_frame() -> None:
    """Scaffolds have them, and they translate to a frame without a stop."""
    found = frames_of(only_unit([("gap", "N" * 600), ("half", "GCT" * 2 + "NNN" * 2)], 300))
    assert [name for name in found.ids if name.startswith("gap")] == []
    assert found.proteins[0] == b"AAXX"
    assert found.unknown >= 12


def test_a_contig_shorter_than_a_codon_has_no_frame() -> None:
    assert shown(frames_of(only_unit([("two", "AC"), ("none", "")], 300))) == []
    assert shown(frames_of(only_unit([("three", "ACG")], 300)))[0] == ("three_chunk_1F1", "ACG", "T")
