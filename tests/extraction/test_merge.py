"""Joining two sides by id, and the check of DNABERT-S files before their turn comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nucpro.errors import DimensionError, MergeError, StoreError
from nucpro.extraction.merging import join_rows, merge, verify_dna
from nucpro.folder.paths import FilePair
from nucpro.formats import read_merged, read_vectors, write_vectors
from nucpro.formats.fasta import inspect
from nucpro.formats.sequences import DNA_WIDTH, NUCLEOTIDES, SequenceType
from nucpro.state.checkpoint import Fingerprint
from pairs import NAMES, WIDTH, make_pair, numbered, write_side


@pytest.fixture
def pair(tmp_path: Path) -> FilePair:
    return make_pair(tmp_path / "data")


def merged_again(pair: FilePair, class_name: str = "viral") -> None:
    merge(pair.dna_vectors, pair.protein_vectors, pair.merged, class_name)


def verified(pair: FilePair) -> Fingerprint | None:
    facts = inspect(pair.nucleotide_fasta, NUCLEOTIDES)
    return verify_dna(pair.dna_vectors, pair.nucleotide_fasta, facts.ids_digest, facts.digest)


def test_rows_are_matched_by_id_in_the_order_of_the_dna_file(pair: FilePair) -> None:
    found = read_merged(pair.merged)
    assert found.ids == list(NAMES)
    assert found.vectors[:, :DNA_WIDTH].tobytes() == numbered(3, DNA_WIDTH).tobytes()
    assert found.vectors[:, DNA_WIDTH:].tobytes() == numbered(3, WIDTH, -3.0)[::-1].tobytes()


def test_files_of_one_order_are_joined_as_they_are(pair: FilePair) -> None:
    write_side(pair, SequenceType.PROTEIN, numbered(3, WIDTH), NAMES)
    merged_again(pair)
    assert read_merged(pair.merged).vectors[:, DNA_WIDTH:].tobytes() == numbered(3, WIDTH).tobytes()


def test_a_merged_file_says_what_it_was_made_of(pair: FilePair) -> None:
    dna, protein = (
        read_vectors(pair.dna_vectors, SequenceType.DNA),
        read_vectors(pair.protein_vectors, SequenceType.PROTEIN),
    )
    found = read_merged(pair.merged)
    assert found.meta == {
        "format": 1,
        "kind": "merged",
        "sources": {"dna_sha256": dna.digest, "protein_sha256": protein.digest},
        "label": 1,
        "width": DNA_WIDTH + WIDTH,
    }
    assert found.label == 1


def test_hosts_have_the_label_0(pair: FilePair) -> None:
    merged_again(pair, "host")
    found = read_merged(pair.merged)
    assert (found.label, found.meta and found.meta["label"]) == (0, 0)


def test_the_folder_of_the_merged_file_is_made(tmp_path: Path, pair: FilePair) -> None:
    target = tmp_path / "not" / "there" / "output_1_merged.pt"
    written = merge(pair.dna_vectors, pair.protein_vectors, target, "viral")
    assert written.digest == read_merged(target).digest == read_merged(pair.merged).digest


def test_a_matrix_of_both_sequence_types() -> None:
    dna, protein = numbered(2, 3), numbered(2, 2, 50)
    assert join_rows(dna, protein, None).tolist() == [[1, 2, 3, 50, 51], [4, 5, 6, 52, 53]]
    assert join_rows(dna, protein, (1, 0)).tolist() == [[1, 2, 3, 52, 53], [4, 5, 6, 50, 51]]
    assert join_rows(dna, protein, None).dtype == np.float32


def test_ids_in_one_file_only_are_listed_and_nothing_is_written(pair: FilePair) -> None:
    pair.merged.unlink()
    write_side(pair, SequenceType.PROTEIN, numbered(3, WIDTH), ("a_frame1", "x", "y"))
    with pytest.raises(MergeError) as caught:
        merged_again(pair)
    assert str(caught.value) == (
        f"{pair.dna_vectors} and {pair.protein_vectors} do not fit together, {pair.merged} was not written: "
        "2 ids (b_frame2, c_frame3) only in the DNA file, 2 ids (x, y) only in the protein file; "
        "recompute the file that is out of date from its FASTA file"
    )
    assert not pair.merged.exists()


@pytest.mark.parametrize(
    ("count", "listed"),
    [
        (13, "10 ids (n3, n4, n5, n6, n7, n8, n9, n10, n11, n12)"),
        (14, "11 ids (n3, n4, n5, n6, n7, n8, n9, n10, n11, n12 and 1 more)"),
    ],
)
def test_at_most_ten_ids_are_listed(tmp_path: Path, count: int, listed: str) -> None:
    names = [f"n{number}" for number in range(count)]
    pair = make_pair(tmp_path / "data", names=names)
    write_side(pair, SequenceType.PROTEIN, numbered(3, WIDTH), names[:3])
    with pytest.raises(MergeError) as caught:
        merged_again(pair)
    assert f"{listed} only in the DNA file, no ids only in the protein file; recompute the file" in str(
        caught.value
    )


def test_an_id_in_the_protein_file_only_is_an_error_too(pair: FilePair) -> None:
    write_side(pair, SequenceType.PROTEIN, numbered(4, WIDTH), (*NAMES, "x"))
    with pytest.raises(MergeError, match=r"no ids only in the DNA file, 1 id \(x\) only in the protein file"):
        merged_again(pair)


def test_a_dna_file_of_another_width_is_not_merged(pair: FilePair) -> None:
    write_side(pair, SequenceType.DNA, numbered(3, 767), NAMES)
    with pytest.raises(DimensionError) as caught:
        merged_again(pair)
    assert str(caught.value) == (
        f"{pair.dna_vectors}: width of the DNABERT-S vectors: expected 768, found 767"
    )
    assert (caught.value.expected_dim, caught.value.actual_dim) == (768, 767)


@pytest.mark.parametrize("sequence_type", SequenceType)
def test_files_are_distinguished(pair: FilePair, sequence_type: SequenceType) -> None:
    other = SequenceType.PROTEIN if sequence_type is SequenceType.DNA else SequenceType.DNA
    pair.vectors(sequence_type).write_bytes(pair.vectors(other).read_bytes())
    with pytest.raises(StoreError, match="has the keys"):
        merged_again(pair)


def test_a_good_dna_file_is_known_by_its_stamp(pair: FilePair) -> None:
    assert verified(pair) == Fingerprint.of(pair.dna_vectors)


def test_a_dna_file_that_does_not_say_its_input_is_good_by_its_ids(pair: FilePair) -> None:
    write_vectors(pair.dna_vectors, list(NAMES[::-1]), numbered(3, DNA_WIDTH), None, SequenceType.DNA)
    assert verified(pair) == Fingerprint.of(pair.dna_vectors)


def test_a_dna_file_of_another_width_is_found_before_it_is_merged(pair: FilePair) -> None:
    write_side(pair, SequenceType.DNA, numbered(3, 769), NAMES)
    with pytest.raises(DimensionError) as caught:
        verified(pair)
    assert str(caught.value) == (
        f"{pair.dna_vectors}: width of the DNABERT-S vectors: expected 768, found 769"
    )


def test_a_dna_file_of_other_ids_is_found_before_it_is_merged(pair: FilePair) -> None:
    write_side(pair, SequenceType.DNA, numbered(3, DNA_WIDTH), ("a_frame1", "x", "c_frame3"))
    with pytest.raises(MergeError) as caught:
        verified(pair)
    assert str(caught.value) == (
        f"{pair.dna_vectors} does not belong to {pair.nucleotide_fasta}: 1 id (x) only in the vectors, "
        "1 id (b_frame2) only in the FASTA; recompute the vectors"
    )


def test_a_dna_file_of_another_version_of_its_fasta_is_found(pair: FilePair) -> None:
    pair.nucleotide_fasta.write_text(pair.nucleotide_fasta.read_text().replace("GG", "GA"))
    with pytest.raises(MergeError) as caught:
        verified(pair)
    assert str(caught.value) == (
        f"{pair.dna_vectors} was made from another version of {pair.nucleotide_fasta}; recompute the vectors"
    )


def test_a_protein_file_is_no_dna_file(pair: FilePair) -> None:
    pair.dna_vectors.write_bytes(pair.protein_vectors.read_bytes())
    with pytest.raises(StoreError, match="expected 'data' and 'nucleotide'"):
        verified(pair)
