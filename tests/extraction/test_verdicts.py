"""The verdict on one file pair: every fault has its message, and a good pair has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nucpro.extraction.merging import merge
from nucpro.extraction.validation import (
    FileVerdict,
    ValidationTask,
    expected_width,
    mixed_models,
    outside_outputs,
    validate_file,
    validate_vectors,
    width_outside,
)
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats import read_merged, write_merged, write_vectors
from nucpro.formats.sequences import DNA_WIDTH, PROTEIN_WIDTH, SequenceType
from pairs import NAMES, WIDTH, make_pair, numbered, write_side

MERGED = DNA_WIDTH + WIDTH


@pytest.fixture
def pair(tmp_path: Path) -> FilePair:
    return make_pair(tmp_path / "data")


def verdict(pair: FilePair) -> FileVerdict:
    return validate_file(ValidationTask(pair, WIDTH))


def dna_verdict(pair: FilePair) -> FileVerdict:
    return validate_vectors(ValidationTask(pair, DNA_WIDTH))


def rewrite_merged(pair: FilePair, *, ids: list[str], vectors: np.ndarray, label: int = 1) -> None:
    write_merged(pair.merged, ids, vectors, None, label)


def test_a_good_pair_has_no_problems(pair: FilePair) -> None:
    assert verdict(pair) == FileVerdict(pair, 3, {SequenceType.DNA: "w", SequenceType.PROTEIN: "w"}, ())
    assert dna_verdict(pair) == FileVerdict(pair, 3, {SequenceType.DNA: "w"}, ())


def test_a_pair_of_one_record_is_good(tmp_path: Path) -> None:
    assert verdict(make_pair(tmp_path, names=["only"])) == FileVerdict(
        make_pair(tmp_path, names=["only"]), 1, {SequenceType.DNA: "w", SequenceType.PROTEIN: "w"}, ()
    )


def test_files_that_do_not_say_how_they_were_made_are_good(pair: FilePair) -> None:
    write_vectors(pair.dna_vectors, list(NAMES), numbered(3, DNA_WIDTH), None, SequenceType.DNA)
    write_vectors(
        pair.protein_vectors, list(NAMES[::-1]), numbered(3, WIDTH, -3.0), None, SequenceType.PROTEIN
    )
    assert verdict(pair) == FileVerdict(pair, 3, {}, ())
    assert dna_verdict(pair) == FileVerdict(pair, 3, {}, ())


@pytest.mark.parametrize(
    "name", ["nucleotide_fasta", "protein_fasta", "dna_vectors", "protein_vectors", "merged"]
)
def test_a_missing_file_is_the_one_problem(pair: FilePair, name: str) -> None:
    path: Path = getattr(pair, name)
    path.unlink()
    found = verdict(pair)
    assert (found.pair, found.records, found.models, len(found.problems)) == (pair, 0, {}, 1)
    assert str(path) in found.problems[0]
    found = dna_verdict(pair)
    assert len(found.problems) == (name in {"nucleotide_fasta", "dna_vectors"})
    if found.problems:
        assert (found.pair, found.records, found.models) == (pair, 0, {})
        assert str(path) in found.problems[0]


def test_another_width_than_that_of_the_model(pair: FilePair) -> None:
    assert validate_file(ValidationTask(pair, WIDTH + 1)).problems == (
        f"{pair.protein_vectors}: shape of the vectors: expected (3, 7), found (3, 6)",
        f"{pair.merged}: shape of the vectors: expected (3, 775), found (3, 774)",
    )
    assert validate_vectors(ValidationTask(pair, 700)).problems == (
        f"{pair.dna_vectors}: shape of the vectors: expected (3, 700), found (3, 768)",
    )


def test_rows_of_zeros(pair: FilePair) -> None:
    rows = numbered(3, WIDTH)
    rows[1:] = 0
    write_side(pair, SequenceType.PROTEIN, rows, NAMES)
    (problem, *_) = verdict(pair).problems
    assert problem == (
        f"{pair.protein_vectors}: 2 vectors of zeros, first b_frame2; remove the file and run again"
    )


def test_a_row_with_one_number_is_not_zero(pair: FilePair) -> None:
    rows = np.zeros((3, DNA_WIDTH), np.float32)
    rows[[0, 1, 2], [0, 5, 767]] = 1
    write_side(pair, SequenceType.DNA, rows, NAMES)
    assert dna_verdict(pair).problems == ()


def test_vectors_that_are_all_the_same(pair: FilePair) -> None:
    write_side(pair, SequenceType.DNA, np.ones((3, DNA_WIDTH), np.float32), NAMES)
    assert dna_verdict(pair).problems == (
        f"{pair.dna_vectors}: all 3 vectors are the same; remove the file and run again",
    )


def test_vectors_of_which_some_are_the_same_are_good(pair: FilePair) -> None:
    rows = np.ones((3, DNA_WIDTH), np.float32)
    rows[2, 3] = 2
    write_side(pair, SequenceType.DNA, rows, NAMES)
    assert dna_verdict(pair).problems == ()


def test_other_ids(pair: FilePair) -> None:
    write_side(pair, SequenceType.DNA, numbered(3, DNA_WIDTH), ("a_frame1", "x", "y"))
    expected = (
        f"{pair.dna_vectors}: expected the 3 ids of its FASTA, found 3: "
        "2 missing (first ['b_frame2', 'c_frame3']), 2 surplus (first ['x', 'y'])"
    )
    assert dna_verdict(pair).problems == (expected,)
    assert verdict(pair).problems == (expected,)


def test_at_most_three_ids_are_shown(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, names=list("abcdefgh"))
    write_side(pair, SequenceType.DNA, numbered(4, DNA_WIDTH), list("stuv"))
    (problem,) = dna_verdict(pair).problems
    assert problem == (
        f"{pair.dna_vectors}: expected the 8 ids of its FASTA, found 4: "
        "8 missing (first ['a', 'b', 'c']), 4 surplus (first ['s', 't', 'u'])"
    )


@pytest.mark.parametrize("names", [NAMES[:2], (*NAMES, "d")], ids=["fewer", "more"])
def test_another_number_of_ids(pair: FilePair, names: tuple[str, ...]) -> None:
    write_side(pair, SequenceType.DNA, numbered(len(names), DNA_WIDTH), names)
    (problem,) = dna_verdict(pair).problems
    assert f"expected the 3 ids of its FASTA, found {len(names)}: " in problem


def test_a_fasta_with_one_id_twice_is_not_what_the_vectors_hold(pair: FilePair) -> None:
    write_vectors(pair.dna_vectors, list(NAMES), numbered(3, DNA_WIDTH), None, SequenceType.DNA)
    pair.nucleotide_fasta.write_text(pair.nucleotide_fasta.read_text() + ">a_frame1\nACGTGG\n")
    (problem,) = dna_verdict(pair).problems
    assert problem.endswith(
        "expected the 4 ids of its FASTA, found 3: 0 missing (first []), 0 surplus (first [])"
    )


@pytest.mark.parametrize("sequence_type", SequenceType)
def test_another_version_of_a_fasta(pair: FilePair, sequence_type: SequenceType) -> None:
    fasta = pair.fasta(sequence_type)
    fasta.write_text(fasta.read_text().replace("G", "A").replace("K", "R"))
    expected = (f"{pair.vectors(sequence_type)}: made from another version of its FASTA; recompute it",)
    assert verdict(pair).problems == expected
    assert dna_verdict(pair).problems == (expected if sequence_type is SequenceType.DNA else ())


def test_a_label_of_the_other_class(pair: FilePair, tmp_path: Path) -> None:
    rewrite_merged(pair, ids=list(NAMES), vectors=read_merged(pair.merged).vectors, label=0)
    assert verdict(pair).problems == (f"{pair.merged}: label 0, but viral files have label 1",)
    host = make_pair(tmp_path / "data", "plant.1.1")
    assert verdict(host).problems == ()
    rewrite_merged(host, ids=list(NAMES), vectors=read_merged(host.merged).vectors, label=1)
    assert verdict(host).problems == (f"{host.merged}: label 1, but plant files have label 0",)


@pytest.mark.parametrize(("column", "name"), [(0, "dna"), (DNA_WIDTH - 1, "dna"), (DNA_WIDTH, "protein")])
def test_one_bit_in_the_merged_columns(pair: FilePair, column: int, name: str) -> None:
    rows = read_merged(pair.merged).vectors.copy()
    rows.view(np.uint32)[1:, column] ^= 1
    rewrite_merged(pair, ids=list(NAMES), vectors=rows)
    source = pair.dna_vectors if name == "dna" else pair.protein_vectors
    assert verdict(pair).problems == (
        f"{pair.merged}: 2 rows unlike {source.name}, first b_frame2; run again, which merges it again",
    )


def test_the_sign_of_a_zero_counts(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    rows = read_merged(pair.merged).vectors.copy()
    place = np.argwhere(rows == 0)[0]
    rows[tuple(place)] = -0.0
    rewrite_merged(pair, ids=list(NAMES), vectors=rows)
    (problem,) = verdict(pair).problems
    assert "1 row unlike output_1_ESM.pt" in problem


def test_faults_of_both_sequence_types_are_reported_at_once(pair: FilePair) -> None:
    rows = read_merged(pair.merged).vectors + np.float32(1)
    rewrite_merged(pair, ids=list(NAMES), vectors=rows)
    assert [problem.split("unlike ")[1] for problem in verdict(pair).problems] == [
        "output_1_DNABERT_S.pt, first a_frame1; run again, which merges it again",
        "output_1_ESM.pt, first a_frame1; run again, which merges it again",
    ]


def test_files_of_which_one_lacks_the_ids_of_the_other(pair: FilePair) -> None:
    """Both sides agree with their own FASTA, and these do not agree with each other."""
    text = pair.nucleotide_fasta.read_text()
    pair.nucleotide_fasta.write_text(text.replace("a_frame1", "x").replace("c_frame3", "y"))
    write_side(pair, SequenceType.DNA, numbered(3, DNA_WIDTH), ("x", "b_frame2", "y"))
    assert verdict(pair).problems == (
        f"{pair.dna_vectors}: lacks 2 ids of output_1_merged.pt, first a_frame1",
    )


def judged(pair: FilePair, dna: str | None, protein: str | None = "w") -> FileVerdict:
    found = {SequenceType.DNA: dna, SequenceType.PROTEIN: protein}
    return FileVerdict(
        pair, 1, {sequence_type: digest for sequence_type, digest in found.items() if digest}, ()
    )


def test_files_of_two_models(pair: FilePair) -> None:
    one, two, three = pair.source.pair(1), pair.source.pair(2), pair.source.pair(3)
    old, new = "0123456789abcdef", "fedcba9876543210"
    verdicts = [judged(one, None), judged(two, old), judged(three, new), judged(one, old)]
    assert mixed_models(verdicts, SequenceType.DNA) == [
        f"{three.dna_vectors}: made with weights fedcba987654…, "
        f"but {two.dna_vectors} with 0123456789ab…; "
        "run nucpro embed-dna DATA again with the one model to use, then extract"
    ]
    assert mixed_models(verdicts, SequenceType.PROTEIN) == []
    (problem,) = mixed_models([judged(one, old), judged(two, old, "x")], SequenceType.PROTEIN)
    assert str(two.protein_vectors) in problem
    assert problem.endswith("extract all again")
    assert mixed_models([judged(one, old), judged(two, None), judged(three, old)], SequenceType.DNA) == []
    assert mixed_models([], SequenceType.DNA) == []


def test_the_width_is_that_of_the_first_file_that_says_how_it_was_made(pair: FilePair) -> None:
    missing, damaged, silent = (pair.source.pair(number) for number in (7, 8, 9))
    damaged.protein_vectors.write_bytes(b"damaged")
    write_vectors(silent.protein_vectors, ["a"], numbered(1, 5), None, SequenceType.PROTEIN)
    assert expected_width([missing, damaged, silent, pair]) == WIDTH
    assert expected_width([missing, damaged, silent]) == PROTEIN_WIDTH
    assert expected_width([]) == PROTEIN_WIDTH


def test_outputs_outside_the_selection(pair: FilePair) -> None:
    source, folder = pair.source, DataFolder(pair.source.data_dir)
    strangers = [source.pair(9).protein_vectors, source.pair(2).merged, source.pair(10).protein_vectors]
    foreign = folder.merge_root / "old" / "x_merged" / "output_1_merged.pt"
    for path in [*strangers, foreign, source.protein_folder / "notes_ESM.pt", folder.merge_root / "a.pt"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = outside_outputs(folder, [source], [pair])
    assert found == sorted([*strangers, foreign])
    assert outside_outputs(folder, [], [pair]) == sorted([source.pair(2).merged, foreign])


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(b"damaged"), lambda path: path.unlink()],
    ids=["damaged", "missing"],
)
def test_the_width_of_a_file_outside(pair: FilePair, spoil: Callable[[Path], object]) -> None:
    assert width_outside(pair.protein_vectors) == (pair.protein_vectors, WIDTH)
    assert width_outside(pair.merged) == (pair.merged, MERGED)
    spoil(pair.merged)
    assert width_outside(pair.merged) == (pair.merged, None)


@pytest.mark.parametrize("name", ["protein_vectors", "merged"])
def test_other_ids_in_each_file(pair: FilePair, name: str) -> None:
    names = ["a_frame1", "b_frame2", "x"]
    if name == "merged":
        rewrite_merged(pair, ids=names, vectors=read_merged(pair.merged).vectors)
    else:
        write_side(pair, SequenceType.PROTEIN, numbered(3, WIDTH), names)
    assert verdict(pair).problems == (
        f"{getattr(pair, name)}: expected the 3 ids of its FASTA, found 3: "
        "1 missing (first ['c_frame3']), 1 surplus (first ['x'])",
    )


def test_two_vectors_that_are_the_same(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, names=["a", "b"])
    write_side(pair, SequenceType.DNA, np.ones((2, DNA_WIDTH), np.float32), ["a", "b"])
    assert dna_verdict(pair).problems == (
        f"{pair.dna_vectors}: all 2 vectors are the same; remove the file and run again",
    )


def test_a_surplus_id_beside_one_that_the_fasta_has_twice(pair: FilePair) -> None:
    write_vectors(
        pair.dna_vectors, ["a_frame1", "b_frame2", "x"], numbered(3, DNA_WIDTH), None, SequenceType.DNA
    )
    text = pair.nucleotide_fasta.read_text().replace("c_frame3", "a_frame1")
    pair.nucleotide_fasta.write_text(text)
    (problem,) = dna_verdict(pair).problems
    assert problem.endswith("found 3: 0 missing (first []), 1 surplus (first ['x'])")


def test_a_faulty_dna_file_does_not_hide_the_protein_file(pair: FilePair) -> None:
    text = pair.nucleotide_fasta.read_text()
    pair.nucleotide_fasta.write_text(text.replace("a_frame1", "x"))
    write_side(pair, SequenceType.DNA, numbered(3, DNA_WIDTH), ("x", "b_frame2", "c_frame3"))
    rows = read_merged(pair.merged).vectors.copy()
    rows[0, DNA_WIDTH] += 1
    rewrite_merged(pair, ids=list(NAMES), vectors=rows)
    assert [problem.split(": ")[1] for problem in verdict(pair).problems] == [
        "lacks 1 id of output_1_merged.pt, first a_frame1",
        "1 row unlike output_1_ESM.pt, first a_frame1; run again, which merges it again",
    ]


def test_widths_may_be_odd(pair: FilePair) -> None:
    write_side(pair, SequenceType.PROTEIN, numbered(3, 5), NAMES)
    merge(pair.dna_vectors, pair.protein_vectors, pair.merged, "viral")
    assert validate_file(ValidationTask(pair, 5)).problems == ()
