"""Which rows are kept from training: whole genomes, both classes, the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucpro.classifier.options import SplitBy, TrainingOptions
from nucpro.classifier.splits import Grouping, genomes_of, group, read_families, split
from nucpro.errors import DataError, UsageError, ValidationError

BY_GENOME = TrainingOptions()
BY_ROW = TrainingOptions(split_by=SplitBy.ROW)


def rows_of(sizes: list[int], label: int, prefix: str) -> tuple[list[str], list[int]]:
    ids = [f"{prefix}{g}.1_chunk_{row + 1}F1" for g, size in enumerate(sizes) for row in range(size)]
    return ids, [label] * len(ids)


def both_classes(viral: list[int], host: list[int]) -> tuple[list[str], np.ndarray]:
    viral_ids, viral_labels = rows_of(viral, 1, "NC_V")
    host_ids, host_labels = rows_of(host, 0, "NC_H")
    return viral_ids + host_ids, np.array(viral_labels + host_labels)


SIZES = st.lists(st.integers(1, 60), min_size=3, max_size=12)


@settings(max_examples=60)
@given(viral=SIZES, host=SIZES, seed=st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_part_and_every_genome_too(viral: list[int], host: list[int], seed: int) -> None:
    ids, labels = both_classes(viral, host)
    genomes = genomes_of(ids)
    found = split(genomes, labels, genomes, TrainingOptions(seed=seed))
    together = np.concatenate(found.rows)
    assert sorted(together.tolist()) == list(range(len(ids)))
    parts = [set(genomes.codes[rows].tolist()) for rows in found.rows]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    for rows in found.rows:
        assert set(labels[rows].tolist()) == {0, 1}
    assert found.leak is None


def test_parts_have_the_sizes_that_were_asked_for() -> None:
    ids, labels = both_classes([40] * 50, [7] * 300)
    genomes = genomes_of(ids)
    found = split(genomes, labels, genomes, TrainingOptions(validation=0.2, test=0.1))
    for label, total in ((1, 2000), (0, 2100)):
        sizes = [int((labels[rows] == label).sum()) for rows in found.rows]
        assert sizes == pytest.approx([0.7 * total, 0.2 * total, 0.1 * total], rel=0.01)
    assert found.summary["test"] == {"rows": {"host": 210, "viral": 200}, "groups": 35}


def test_a_seed_decides_the_split() -> None:
    ids, labels = both_classes([5] * 20, [5] * 20)
    genomes = genomes_of(ids)
    tests = [
        split(genomes, labels, genomes, TrainingOptions(seed=seed)).rows[2].tolist() for seed in (1, 1, 2)
    ]
    assert tests[0] == tests[1] != tests[2]


def test_a_split_of_rows_says_what_it_leaks() -> None:
    ids, labels = both_classes([100, 100, 100], [100, 100, 100])
    names = ("viral.pt", "host.pt")
    groups = group(ids, np.repeat([0, 1], 300).astype(np.int32), names, BY_ROW)
    found = split(groups, labels, genomes_of(ids), BY_ROW)
    assert [len(rows) for rows in found.rows] == [480, 60, 60]
    assert found.leak == (
        "60 of 60 test rows (100%) are of genomes that were also trained on, often from overlapping chunks: the "
        "metrics show how well known genomes are recognised, not how well unknown ones are classified"
    )


def test_files_may_share_a_genome_and_then_it_is_said() -> None:
    ids, labels = both_classes([30, 30, 30, 30], [30, 30, 30, 30])
    options = TrainingOptions(split_by=SplitBy.FILE)
    files = (np.arange(240) // 20).astype(np.int32)
    groups = group(ids, files, [f"output_{k}" for k in range(12)], options)
    found = split(groups, labels, genomes_of(ids), options)
    assert not set(files[found.rows[0]]) & set(files[found.rows[2]])
    assert found.leak is not None
    assert "test rows" in found.leak
    unknown = split(groups, labels, None, options)
    assert unknown.leak is not None
    assert unknown.leak.startswith("the ids do not contain the genomes of the rows")


def test_families_keep_their_genomes_together(tmp_path: Path) -> None:
    ids, labels = both_classes([4] * 8, [4] * 8)
    table = tmp_path / "families.tsv"
    lines = [f"NC_{c}{g}.1\tfamily {c}{g // 2}\tmore" for c in "VH" for g in range(8)]
    table.write_text("\n".join(["# record\tfamily", "", *lines]))
    options = TrainingOptions(split_by=SplitBy.FAMILY, families=table)
    groups = group(ids, np.zeros(len(ids), np.int32), ("one",), options)
    assert groups.names[0] == "family H0"
    assert len(groups.names) == 8
    found = split(groups, labels, genomes_of(ids), options)
    assert not set(groups.codes[found.rows[0]]) & set(groups.codes[found.rows[2]])
    table.write_text("\n".join(lines[:-2]))
    with pytest.raises(
        ValidationError,
        match=r"2 of 16 records have no family there \(first NC_H6\.1, NC_H7\.1\)",
    ):
        group(ids, np.zeros(len(ids), np.int32), ("one",), options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NC_1.1", "line 1: 'NC_1.1', expected a record, a tab and its family"),
        ("a\tb\n\t c", r"line 2: '\\t c', expected a record"),
        ("a\tb\na\tc", "line 2: a is of b and of c; keep one of the lines"),
    ],
)
def test_a_table_of_families_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "families.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_families(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_families(tmp_path / "absent.tsv")


def test_a_table_of_families_from_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "families.tsv"
    path.write_text("NC_1.1\tone\n", encoding="utf-8-sig")
    assert read_families(path) == {"NC_1.1": "one"}


def test_too_few_genomes() -> None:
    ids, labels = both_classes([50, 50], [5, 5, 5])
    genomes = genomes_of(ids)
    with pytest.raises(
        ValidationError, match="too few groups to split by genome: 2 with viral rows, and each of"
    ):
        split(genomes, labels, genomes, BY_GENOME)


def test_a_genome_of_both_classes() -> None:
    ids, labels = both_classes([5] * 3, [5] * 3)
    labels[0] = 0
    genomes = genomes_of(ids)
    with pytest.raises(
        ValidationError, match=r"1 group with rows of both classes when split by genome: NC_V0\.1;"
    ):
        split(genomes, labels, genomes, BY_GENOME)


def test_ids_without_a_genome() -> None:
    with pytest.raises(
        ValidationError, match=r"2 ids not of the form RECORD_chunk_NF1 \(first seq1, x_chunk_1F4\)"
    ):
        genomes_of(["a.1_chunk_12R3", "seq1", "x_chunk_1F4"])
    assert genomes_of(["odd_chunk_1_chunk_2F1"]).names == ("odd_chunk_1",)


def test_groups_are_numbered_by_sorted_names() -> None:
    found = Grouping.of(["b", "a", "b"])
    assert found.names == ("a", "b")
    assert found.codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, "--validation is 0.0; allowed: more than 0 and less than 1"),
        ({"test": 0.6, "validation": 0.4}, "together is 1.0; allowed: less than 1"),
        ({"batch_size": 1}, "--batch-size is 1; allowed: 2 .batch norm needs two rows. to"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan; allowed: more than 0"),
        ({"learning_rate": 1e308}, r"--learning-rate is 1e\+308; allowed: more than 0, at most 1000"),
        ({"decay_every": 0}, "--decay-every is 0; allowed: 1 or more"),
        ({"seed": -1}, "--seed is -1"),
        ({"split_by": SplitBy.FAMILY}, "--split-by family needs a table: --families FILE.tsv"),
        ({"families": Path("x.tsv")}, "--families is for --split-by family, which is genome here"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingOptions(**options)


def test_the_recipe_is_the_originals_and_larger_batches_scale_it() -> None:
    assert [TrainingOptions().rate_at(epoch) for epoch in (0, 9, 10, 25)] == pytest.approx(
        [2e-4, 2e-4, 2e-4 * 0.85, 2e-4 * 0.85**2]
    )
    assert TrainingOptions(batch_size=1024).base_rate == pytest.approx(2e-4 * 32)
    assert TrainingOptions(batch_size=1024, learning_rate=0.1).base_rate == 0.1


TABLE = "NC_1.1\tone\nNC_2.1\ttwo\n"
TABLES = {
    "byte order mark": b"\xef\xbb\xbf" + TABLE.encode(),
    "UTF-16": TABLE.encode("utf-16"),
    "Windows line ends": TABLE.replace("\n", "\r\n").encode(),
    "old Macintosh line ends": TABLE.replace("\n", "\r").encode(),
    "quoted cells": b'"NC_1.1"\t"one"\n"NC_2.1"\t"two"\n',
    "blanks": b"  NC_1.1 \t one\t\n\n\nNC_2.1\ttwo   \n\n",
    "further columns": b"NC_1.1\tone\t1\t\t\nNC_2.1\ttwo\tx\n",
    "comments": b"# made by hand\nNC_1.1\tone\n#NC_3.1\tthree\nNC_2.1\ttwo",
    "equal lines": (TABLE * 2).encode(),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_families_as_programs_save_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / "families.tsv"
    path.write_bytes(TABLES[name])
    assert read_families(path) == {"NC_1.1": "one", "NC_2.1": "two"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"NC_1.1,one\n", "line 1: 'NC_1.1,one', expected a record, a tab and its family"),
        (b"NC_1.1;one\n", "expected a record, a tab"),
        (b"NC_1.1    one\n", "expected a record, a tab"),
        (b'NC_1.1\t""\n', "expected a record, a tab"),
        (b"NC_1.1\tone\nNC_1.1\ttwo\n", "line 2: NC_1.1 is of one and of two; keep one of the lines"),
        (b"PK\x03\x04xl/workbook", "is a spreadsheet or a ZIP archive; save it as text with tabs"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is a spreadsheet"),
        (b"\x1f\x8b\x08", "is packed with gzip"),
        (b"NC_1.1\tone\nNC_2.1\tM\xfcller\n", "line 2: is not UTF-8; save it as UTF-8"),
        (b"NC_1.1\to\0ne\n", "holds binary data"),
        (b"\xff\xfeN", "is not UTF-8"),
    ],
)
def test_tables_of_families_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "families.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_families(path)


def test_odd_separators_of_lines_in_a_name_are_no_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "families.tsv"
    path.write_text("NC_1.1\tone\x0cmore\x85\n")
    assert read_families(path) == {"NC_1.1": "one\x0cmore"}
