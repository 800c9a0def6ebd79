"""The reader of 60 lines in ``recipes/``, which knows nothing of nucpro and torch, reads what nucpro writes."""

from __future__ import annotations

import pickle
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nucpro.formats import read_merged, read_vectors
from nucpro.formats.sequences import SequenceType

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "recipes" / "read_vectors.py"
KEPT = ROOT / "tests" / "upgrade" / "begun" / "golden"


@pytest.fixture(scope="module")
def reader() -> dict[str, object]:
    return runpy.run_path(str(SCRIPT))


def test_it_stays_short() -> None:
    code = [line for line in SCRIPT.read_text().splitlines() if line.strip()]
    assert len(code) <= 60


@pytest.mark.parametrize("path", sorted(KEPT.rglob("*_merged.pt")), ids=lambda path: path.parent.name)
def test_merged_files_are_read_alike(reader: dict[str, object], path: Path) -> None:
    found, ours = reader["read_pt"](path), read_merged(path)
    assert found["ids"] == list(ours.ids)
    assert found["labels"] == [ours.label]
    np.testing.assert_array_equal(found["data"], ours.vectors)


@pytest.mark.parametrize("path", sorted(KEPT.rglob("*_ESM.pt")), ids=lambda path: path.parent.name)
def test_protein_vectors_are_read_alike(reader: dict[str, object], path: Path) -> None:
    found, ours = reader["read_pt"](path), read_vectors(path, SequenceType.PROTEIN)
    assert found["proteins"] == list(ours.ids)
    np.testing.assert_array_equal(np.stack(found["data"]), ours.vectors)


def test_safetensors_files_are_read_alike(reader: dict[str, object], tmp_path: Path) -> None:
    rows = {"vectors": np.arange(12, dtype=np.float32).reshape(3, 4), "labels": np.array([1, 0, 1])}
    save_file(rows, tmp_path / "rows.safetensors", metadata={"made": "here"})
    found = reader["read_safetensors"](tmp_path / "rows.safetensors")
    assert found.keys() == rows.keys()
    for name, array in rows.items():
        np.testing.assert_array_equal(found[name], array)


def test_it_runs_where_neither_nucpro_nor_torch_is_imported() -> None:
    path = next(KEPT.rglob("*_merged.pt"))
    code = (
        f"import runpy, sys; sys.argv = ['x', {str(path)!r}]; runpy.run_path({str(SCRIPT)!r}, run_name='__main__');"
        "print(sorted({'torch', 'nucpro'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'ids': 4, 'data': (4, 784)" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_it_builds_nothing_but_plain_values(reader: dict[str, object], tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("code of a file ran",)

    with zipfile.ZipFile(tmp_path / "hostile.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"data": Hostile()}, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="print is no plain value"):
        reader["read_pt"](tmp_path / "hostile.pt")
