"""The inventory of a data folder, and what killed splits leave in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from folders import PER_FILE, Frame, add_source, leftovers
from nucpro.errors import StoreError
from nucpro.execution.workers import Workers
from nucpro.folder.inventory import Inventory, take_inventory
from nucpro.folder.paths import DataFolder
from nucpro.folder.splitting import remove_unfinished, split_source
from nucpro.formats.atomic import temporary_start
from nucpro.state.checkpoint import Checkpoint


@pytest.fixture
def unsplit(tmp_path: Path, frames: dict[str, list[Frame]]) -> Path:
    data = tmp_path / "data"
    add_source(data, "viral.1.1", frames["viral.1.1"][:9], split=False)
    add_source(data, "bacteria.1.1", frames["bacteria.1.1"][:6], split=False)
    return data


def inventory(data: Path, per_file: int = PER_FILE) -> Inventory:
    folder = DataFolder(data)
    with Checkpoint(folder, read_only=True) as checkpoint, Workers(1) as workers:
        return take_inventory(folder.walk_sources(), checkpoint, workers, per_file)


@pytest.mark.parametrize("is_split", [True, False])
def test_files_of_a_split_to_come_are_those_that_a_split_makes(
    unsplit: Path, frames: dict[str, list[Frame]], is_split: bool
) -> None:
    if is_split:
        add_source(unsplit, "viral.1.1", frames["viral.1.1"][:9])
        add_source(unsplit, "bacteria.1.1", frames["bacteria.1.1"][:6])
    found = inventory(unsplit)
    assert {(pair.source.name, pair.number): count for pair, count in found.records.items()} == {
        ("viral.1.1", 1): 4,
        ("viral.1.1", 2): 4,
        ("viral.1.1", 3): 1,
        ("bacteria.1.1", 1): 4,
        ("bacteria.1.1", 2): 2,
    }
    assert found.problems == ()


def test_a_source_that_cannot_be_counted_is_a_problem_with_its_name(unsplit: Path) -> None:
    source = DataFolder(unsplit).walk_sources()[0]
    source.nucleotide_fasta.write_text("no FASTA\n")
    found = inventory(unsplit)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{source.nucleotide_fasta}: ")
    assert {state.source: state.records for state in found.sources}[source] == -1


@pytest.mark.parametrize(
    ("count", "named"),
    [(8, "output_3.fa"), (5, "output_2.fa to output_3.fa"), (4, "output_2.fa to output_3.fa")],
)
def test_files_beyond_the_last_record_are_named(
    unsplit: Path, frames: dict[str, list[Frame]], count: int, named: str
) -> None:
    source = add_source(unsplit, "viral.1.1", frames["viral.1.1"][:9])
    records = source.nucleotide_fasta.read_text().split(">")[1:]
    source.nucleotide_fasta.write_text("".join(f">{record}" for record in records[:count]))
    (problem,) = inventory(unsplit).problems
    assert f"leftovers of an older split: {named}; its files hold 9 records in all, " in problem


def folders_of(data: Path) -> Iterator[Path]:
    for source in DataFolder(data).walk_sources():
        yield from (source.nucleotide_folder, source.protein_folder)


def test_what_killed_splits_left_is_removed_and_nothing_else(unsplit: Path) -> None:
    for folder in folders_of(unsplit):
        for end in ("123", "123.old"):
            left = folder.with_name(f"{temporary_start(folder.name)}{end}")
            left.mkdir()
            (left / "output_1.fa").write_text(">a\nACGT\n")
    other = unsplit / f"{temporary_start('other.identified_nucleotide')}5"
    other.mkdir()
    before = [path for path in unsplit.iterdir() if path.is_file()]
    assert len(leftovers(unsplit)) == 9
    remove_unfinished(DataFolder(unsplit).walk_sources())
    assert leftovers(unsplit) == [other]
    assert all(path.exists() for path in before)


def test_a_folder_that_cannot_be_made_is_the_error_of_a_split(unsplit: Path) -> None:
    source = DataFolder(unsplit).walk_sources()[0]
    folder = source.protein_folder
    folder.with_name(f"{temporary_start(folder.name)}{os.getpid()}").touch()
    with pytest.raises(StoreError, match=f"{folder}: cannot be written: File exists"):
        split_source(source, PER_FILE)
    assert not source.nucleotide_folder.exists()
