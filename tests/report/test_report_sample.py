"""Which rows a report draws, and what it tells of the files that it reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folders import Frame
from nucpro.execution.workers import Workers
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats import read_merged, write_merged
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType
from nucpro.report import sample as sampling
from nucpro.report.sample import Sample, draw_rows, read_sample, shares
from nucpro.report.subject import Subject
from report_folders import add_files


def drawn(pairs: list[FilePair], points: int) -> Sample:
    with Workers(1) as workers:
        return read_sample(pairs, points, workers)


def pairs_of(subject: Subject) -> list[FilePair]:
    return [state.pair for state in subject.files]


def made_up(counts: dict[str, int]) -> list[FilePair]:
    """Pairs that need not exist."""
    pairs = []
    for category, files in counts.items():
        source = DataFolder(Path("d")).source_of(Path(f"d/{category}.1.1.identified_nucleotide.fa"))
        assert source is not None
        pairs += [source.pair(number) for number in range(1, files + 1)]
    return pairs


def test_rows_are_those_of_the_files_with_their_own_lengths(written: Subject) -> None:
    sample = drawn(pairs_of(written), 30)
    assert len(sample) == len(set(sample.ids)) == 30
    for row, name in enumerate(sample.ids):
        pair = sample.pairs[sample.files[row]]
        merged = read_merged(pair.merged)
        assert np.array_equal(sample.vectors[row], merged.vectors[merged.ids.index(name)])
        for sequence_type, lengths in (
            (SequenceType.DNA, sample.bases),
            (SequenceType.PROTEIN, sample.residues),
        ):
            records = read(pair.fasta(sequence_type))
            assert lengths[row] == len(records.sequences[records.ids.index(name)])


def test_the_same_folder_gives_the_same_sample_in_any_number_of_processes(written: Subject) -> None:
    once = drawn(pairs_of(written), 30)
    with Workers(2) as workers:
        workers.submit(len, "start the pool").result()
        again = read_sample(pairs_of(written), 30, workers)
    assert once.ids == again.ids
    assert np.array_equal(once.vectors, again.vectors)


def test_lengths_are_counted_over_all_records(written: Subject) -> None:
    sample = drawn(pairs_of(written), 14)
    for label in (0, 1):
        assert sum(sample.residue_lengths[label].values()) == written.records(label) > 14
    assert sum(length * n for length, n in sample.base_lengths[0].items()) == sum(
        len(sequence)
        for pair in pairs_of(written)
        if not pair.label
        for sequence in read(pair.nucleotide_fasta).sequences
    )


def test_what_made_the_files_is_reported_once(written: Subject) -> None:
    metas = drawn(pairs_of(written), 7).metas
    assert (SequenceType.DNA, None, 7) in metas  # files of the original program do not say
    assert [(sequence_type, n) for sequence_type, meta, n in metas if meta] == [(SequenceType.PROTEIN, 7)]


def test_classes_then_categories_then_files_have_equal_shares() -> None:
    pairs = made_up({"viral": 50, "bacteria": 30, "fungi": 2})
    wanted = draw_rows(pairs, 1000)
    by_category = Counter[str | None]()
    for pair, rows in wanted.items():
        by_category[pair.category] += rows
    assert by_category == {"viral": 500, "bacteria": 250, "fungi": 250}
    assert {rows for pair, rows in wanted.items() if pair.category == "viral"} == {10}
    assert {rows for pair, rows in wanted.items() if pair.category == "fungi"} == {125}


@given(st.integers(0, 10**6), st.integers(1, 500))
def test_shares_add_up_and_differ_by_one_at_most(total: int, parts: int) -> None:
    found = shares(total, parts)
    assert sum(found) == total
    assert max(found) - min(found) <= 1


def test_of_very_many_files_a_balanced_few_are_read() -> None:
    pairs = made_up({"viral": 5000, "bacteria": 3000, "fungi": 10})
    chosen = sampling._choose(pairs)
    counts = Counter(pair.category for pair in chosen)
    assert counts == {"viral": 200, "bacteria": 190, "fungi": 10}
    assert chosen == sorted(chosen, key=pairs.index)
    assert chosen == sampling._choose(pairs)


def test_files_that_cannot_be_used_are_named_and_left_out(
    tmp_path: Path, frames: dict[str, list[Frame]]
) -> None:
    pairs = add_files(tmp_path, "viral.1.1", frames["viral.1.1"][:40])
    pairs[0].merged.write_bytes(b"damaged")
    pairs[1].merged.unlink()
    wide = read_merged(pairs[2].merged)
    write_merged(pairs[2].merged, wide.ids, np.hstack([wide.vectors, wide.vectors]), None, 1)
    pairs += add_files(tmp_path, "plant.1.1", frames["bacteria.1.1"][:10])
    write_merged(pairs[4].merged, wide.ids, wide.vectors, None, 1)
    pairs += add_files(tmp_path, "fungi.1.1", frames["invertebrate.1.1"][:10])
    sample = drawn(pairs, 1000)
    assert sample.pairs == [pairs[3], pairs[5]]
    assert sample.available == 5
    assert len(sample.problems) == 3
    damaged, label, width = sample.problems
    assert damaged.startswith(f"{pairs[0].merged}: is no archive of torch.save")
    assert label == f"{pairs[4].merged}: label 1, expected 0"
    assert width == f"{pairs[2].merged}: 1600 wide, most files are 800"


@pytest.mark.parametrize("points", [0, 5])
def test_no_files_give_an_empty_sample(points: int) -> None:
    sample = drawn([], points)
    assert len(sample) == 0
    assert sample.labels.shape == (0,)


def test_a_file_whose_vectors_are_gone_is_named(tmp_path: Path, frames: dict[str, list[Frame]]) -> None:
    (pair,) = add_files(tmp_path, "viral.1.1", frames["viral.1.1"][:10])
    pair.protein_fasta.unlink()
    (problem,) = drawn([pair], 5).problems
    assert str(pair.protein_fasta) in problem
