"""One size of split files in a folder: recorded, kept, and replaced only on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from folders import Frame, add_dna, add_source, arguments, contents, pairs_of
from nucpro.cli import main
from nucpro.folder.paths import DataFolder


@pytest.fixture
def unsplit(tmp_path: Path, frames: dict[str, list[Frame]]) -> Path:
    data = tmp_path / "data"
    for name, count in (("viral.1.1", 9), ("bacteria.1.1", 6), ("invertebrate.1.1", 2)):
        add_source(data, name, frames[name][:count], split=False)
    return data


def sizes(data: Path) -> dict[str, int]:
    """Number of files of each source."""
    return {
        source.name: len(list(source.nucleotide_folder.glob("output_*.fa")))
        for source in DataFolder(data).walk_sources()
    }


def split(data: Path, *more: str) -> int:
    return main(["split", str(data), *more])


def test_the_size_of_a_split_is_remembered(unsplit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split(unsplit, "--sequences-per-file", "3") == 0
    assert sizes(unsplit) == {"bacteria.1.1": 2, "invertebrate.1.1": 1, "viral.1.1": 3}
    assert split(unsplit) == 0
    assert "viral.1.1: already split" in capsys.readouterr().out
    for pair in pairs_of(unsplit):
        add_dna(pair.source, [pair.number])
    assert main(["status", str(unsplit)]) == 0
    assert "--sequences-per-file 3" in capsys.readouterr().out


def test_another_size_is_refused_and_changes_nothing(
    unsplit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split(unsplit, "--sequences-per-file", "3") == 0
    add_dna(DataFolder(unsplit).walk_sources()[2], (1, 2))
    before = contents(unsplit)
    assert split(unsplit, "--sequences-per-file", "2") == 3
    said = capsys.readouterr().err
    viral = unsplit / "viral.1.1.identified_nucleotide"
    assert f"{viral}: split into files of 3 records, not of 2; omit --sequences-per-file to keep them" in said
    assert "--replace, which splits again and removes 2 files of vectors that were computed from them" in said
    # Its two records fit into one file of either size.
    assert "invertebrate" not in said
    assert contents(unsplit) == before
    assert sizes(unsplit)["viral.1.1"] == 3


def test_replace_splits_again_and_removes_what_was_made_of_the_old_files(
    unsplit: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split(unsplit, "--sequences-per-file", "3") == 0
    for pair in pairs_of(unsplit):
        add_dna(pair.source, [pair.number])
    command = [part for part in arguments(unsplit, model) if part not in ("--sequences-per-file", "4")]
    assert main(["extract", *command]) == 0
    assert len(contents(unsplit)) > 10
    assert split(unsplit, "--sequences-per-file", "2", "--replace") == 0
    assert sizes(unsplit) == {"bacteria.1.1": 3, "invertebrate.1.1": 1, "viral.1.1": 5}
    kept = [name for name in contents(unsplit) if "invertebrate" not in name]
    assert kept == []
    assert not DataFolder(unsplit).selection.exists()
    for pair in pairs_of(unsplit):
        add_dna(pair.source, [pair.number])
    capsys.readouterr()
    assert main(["extract", *command]) == 0
    assert "Validation passed: 8 files, 16 sequences" in capsys.readouterr().out


def test_files_that_nucpro_did_not_make_are_never_removed(
    unsplit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split(unsplit, "--sequences-per-file", "3") == 0
    notes = unsplit / "viral.1.1.identified_protein" / "notes.txt"
    notes.write_text("mine")
    assert split(unsplit, "--sequences-per-file", "2", "--replace") == 3
    assert "holds other files (notes.txt); move them elsewhere" in capsys.readouterr().err
    assert notes.read_text() == "mine"
    assert sizes(unsplit)["viral.1.1"] == 3


@pytest.mark.parametrize("is_split", [True, False])
def test_sources_too_small_for_the_size_are_reported_with_what_would_start(
    unsplit: Path, is_split: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Advice that would not start a run is worse than none."""
    if is_split:
        assert split(unsplit) == 0
    assert main(["embed-dna", str(unsplit), "--device", "cpu", "--sequences-per-file", "10000"]) == 3
    said = capsys.readouterr().err
    assert (
        "the largest viral source holds 9 records, the largest host source 6; to use smaller ones: " in said
    )
    way = "--sequences-per-file N, N at most 6"
    command = f"nucpro split {unsplit} --replace " if is_split else ""
    assert f"ones: {command}{way}\n" in said


def test_a_size_of_host_files_alone_is_never_suggested(
    unsplit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split(unsplit, "--sequences-per-file", "6") == 0
    # bacteria.1.1 has one file of 6, invertebrate.1.1 one of 2, viral.1.1 files of 6 and 3.
    assert main(["status", str(unsplit), "--sequences-per-file", "2"]) == 3
    assert (
        "a viral file holds 6 records; to use such files: --sequences-per-file 6" in capsys.readouterr().err
    )


def test_what_is_left_out_is_counted_with_the_reason(
    tmp_path: Path, frames: dict[str, list[Frame]], capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name, count in (("viral.1.1", 7), ("bacteria.1.1", 12), ("invertebrate.1.1", 2), ("odd", 3)):
        add_source(data, name, frames.get(name, frames["bacteria.1.1"])[:count], per_file=3)
    assert main(["status", str(data)]) == 0
    shown = capsys.readouterr().out
    # viral 6 of 7 and bacteria 3 of 12 are used.
    assert "Warning: 9 of 24 records are used: " in shown
    assert "9 not selected" in shown
    assert "3 in short last files" in shown
    assert "3 of no category" in shown
    assert "Warning: no record is used of invertebrate (2 records)" in shown


def test_nothing_is_said_where_everything_is_used(
    tmp_path: Path, frames: dict[str, list[Frame]], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("viral.1.1", "bacteria.1.1"):
        add_source(tmp_path, name, frames[name][:3], per_file=3)
    assert main(["status", str(tmp_path), "--sequences-per-file", "3"]) == 0
    assert "are used" not in capsys.readouterr().out
