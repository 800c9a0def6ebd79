"""Merged files outside the selection whose rows a training script would read a second time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from folders import arguments, copied, pairs_of
from nucpro.cli import main
from nucpro.execution.workers import Workers
from nucpro.extraction.validation import repeated_ids
from nucpro.formats import read_ids, read_merged, write_merged


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(1) as workers:
        yield workers


def write(path: Path, ids: Sequence[str]) -> Path:
    write_merged(path, list(ids), np.ones((len(ids), 3), np.float32), None, 1)
    return path


def test_ids_of_selected_files_and_of_each_other(tmp_path: Path, workers: Workers) -> None:
    selected = [write(tmp_path / f"selected_{k}.pt", [f"s{k}_{row}" for row in range(4)]) for k in range(3)]
    half = write(tmp_path / "half.pt", ["x1", "s2_3", "s0_1", "x2", "s0_0"])
    one, two = (write(tmp_path / name, ["own_" + name, "shared"]) for name in ("one.pt", "two.pt"))
    alone = write(tmp_path / "alone.pt", ["a", "s", "s0"])
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"x")
    twice = "a training script would read their rows twice: remove it, or move it out of this folder"
    outside = [two, damaged, alone, half, one]
    assert repeated_ids(outside, [*selected, damaged, tmp_path / "missing.pt"], workers) == [
        f"{half}: outside the selection, and 3 of its 5 ids are also in {selected[0]} and 1 more "
        f"(first: s2_3); {twice}",
        f"{one}: outside the selection, and 1 of its 2 ids are also in {two} (first: shared); {twice}",
        f"{two}: outside the selection, and 1 of its 2 ids are also in {one} (first: shared); {twice}",
    ]
    assert repeated_ids([alone, damaged], selected, workers) == []
    assert repeated_ids([damaged], selected, workers) == []


def test_ids_of_three_files_outside(tmp_path: Path, workers: Workers) -> None:
    files = [write(tmp_path / f"{k}.pt", ["same", f"other {k}"]) for k in range(3)]
    found = repeated_ids(files, [], workers)
    assert [message.partition(":")[0] for message in found] == [str(path) for path in files]


def test_nothing_is_read_where_nothing_is_outside(tmp_path: Path, workers: Workers) -> None:
    def unread() -> Iterator[Path]:
        raise AssertionError("a selected file was asked for")
        yield tmp_path

    assert repeated_ids([], unread(), workers) == []


def test_rows_that_the_original_put_into_another_folder_fail_validation(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its feature step numbers the files of all viral sources in one folder."""
    data = copied(finished, tmp_path / "data")
    host = next(pair.merged for pair in pairs_of(data) if pair.category == "bacteria")
    stranger = data / "data_merge" / "viral.1.1_merged" / "output_20_merged.pt"
    shutil.copy(host, stranger)
    expected = f"{stranger}: outside the selection, and 4 of its 4 ids are also in {host} (first: {read_ids(host)[0]})"
    assert main(["validate", str(data), "--sequences-per-file", "4"]) == 1
    assert expected in capsys.readouterr().err
    assert main(["extract", *arguments(data, model, "--dry-run")]) == 0
    assert expected in capsys.readouterr().out  # told before the work, too
    assert main(["extract", *arguments(data, model)]) == 1
    output = capsys.readouterr()
    assert expected in output.err
    assert "Validation passed" not in output.out
    # The remedy, and the same commands again.
    stranger.unlink()
    assert main(["validate", str(data), "--sequences-per-file", "4"]) == 0
    assert main(["extract", *arguments(data, model)]) == 0


def test_leftovers_with_ids_of_their_own_are_only_listed(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(finished, tmp_path / "data")
    merged = read_merged(pairs_of(data)[0].merged)
    stranger = data / "data_merge" / "plant.1.1_merged" / "output_1_merged.pt"
    stranger.parent.mkdir()
    write_merged(stranger, [f"plant {name}" for name in merged.ids], merged.vectors, None, 0)
    assert main(["validate", str(data), "--sequences-per-file", "4"]) == 0
    assert main(["extract", *arguments(data, model)]) == 0
    assert f"Outside the selection: {stranger}" in capsys.readouterr().out
