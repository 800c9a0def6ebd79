"""All merged rows of a data folder, as a notebook takes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from merged_folders import WIDTH

import nucpro
from nucpro.errors import NucproError
from nucpro.progress import Progress


def test_rows_of_all_files_with_labels_and_ids(merged_once: Path) -> None:
    seen: list[Progress] = []
    rows = nucpro.load_rows(str(merged_once), progress=seen.append)
    X, y, ids = rows
    assert (X.dtype, X.shape, y.dtype) == (np.float32, (len(ids), WIDTH), np.int64)
    files = [nucpro.read_merged(str(path)) for path in (merged_once / "data_merge").rglob("*_merged.pt")]
    row_of = {name: row for row, name in enumerate(ids)}
    assert len(row_of) == len(ids) == sum(len(file.ids) for file in files)
    for file in files:
        places = [row_of[name] for name in file.ids]
        assert np.array_equal(X[places], file.vectors)
        assert set(y[places]) == {file.label}
    assert (
        repr(rows) == f"<Rows: {len(ids)} rows of {WIDTH} columns, {y.sum()} viral and {(y == 0).sum()} host>"
    )
    assert repr(files[0]).startswith(f"<MergedFile: {len(files[0].ids)} rows of {WIDTH} columns, ")
    assert seen[-1].done == seen[-1].total == len(files)


def test_rows_of_a_single_file_are_not_copied(merged: Path) -> None:
    first, *others = sorted((merged / "data_merge").rglob("*_merged.pt"))
    for path in others:
        path.unlink()
    X, _, ids = nucpro.load_rows(merged)
    assert X.base is not None
    assert ids == nucpro.read_merged(first).ids


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_rows_is_an_error_of_nucpro(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NucproError, match=r"no such folder|no merged files"):
        nucpro.load_rows(tmp_path / name)


def test_damaged_rows_are_an_error_of_nucpro(merged: Path) -> None:
    path = next((merged / "data_merge").rglob("*_merged.pt"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(NucproError, match="is damaged"):
        nucpro.load_rows(merged)
    shutil.rmtree(merged)
