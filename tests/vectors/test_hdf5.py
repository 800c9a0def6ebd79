"""HDF5 files of vectors of residues: a dataset per record, the same numbers as in shards, whole or not there."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import random_esm
from nucpro.cli import main
from nucpro.errors import PreflightError, UsageError
from nucpro.vectors import hdf5
from vectors.jobs import LENGTHS
from vectors.test_residues import SINGLE, run, stopped_after, vectors_in

h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    """Records whose order is not that of their names, some with slashes."""
    path = tmp_path / "proteins.fa"
    names = [f"{'sp|' if row % 2 else 'family/'}p{len(LENGTHS) - row}" for row in range(len(LENGTHS))]
    proteins = random_esm.proteins(LENGTHS)
    path.write_text("".join(f">{name}\n{one.decode()}\n" for name, one in zip(names, proteins, strict=True)))
    return path


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_each_record_is_a_dataset(suffix: str, fasta: Path, tmp_path: Path, model: Path) -> None:
    output = tmp_path / f"residues{suffix}"
    machines = ["--protein-model", str(model), "--device", "cpu"]
    command = ["embed", str(fasta), "-o", str(output), "--per-residue", *machines]
    assert main(command) == 0
    run(fasta, tmp_path / "shards", model)
    expected = vectors_in(tmp_path / "shards")
    with h5py.File(output, "r") as file:
        assert [one.attrs["original_id"] for one in file.values()] == list(expected)
        assert list(file) == [name.replace("/", "_") for name in expected]
        for name, rows in expected.items():
            found = file[name.replace("/", "_")]
            assert found.dtype == np.float16
            assert np.array_equal(found[:], rows)
    made = output.stat().st_mtime_ns
    assert main(command) == 0
    assert output.stat().st_mtime_ns == made
    assert {path.name for path in tmp_path.iterdir()} == {"proteins.fa", output.name, "shards"}


@pytest.mark.parametrize("parts", [1, 3])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    parts: int, fasta: Path, tmp_path: Path, model: Path
) -> None:
    output, whole = tmp_path / "out.h5", tmp_path / "whole.h5"
    stopped_after(parts, fasta, output, model)
    assert not output.exists()
    # What a kill while the file is written leaves.
    mine = tmp_path / "mine.h5"
    mine.write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "out.h5.unfinished" / "residues.h5").symlink_to(mine)
    assert run(fasta, output, model, part=None).computed == 10 - 3 * parts
    run(fasta, whole, model)
    assert output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.unfinished"))
    assert mine.read_bytes() == b"\x89HDF\r\n\x1a\n", "a link was followed"


def test_records_that_would_have_one_name_are_refused(tmp_path: Path, model: Path) -> None:
    fasta = tmp_path / "x.fa"
    fasta.write_text(">a/b\nMKV\n>a_b\nMKVL\n")
    with pytest.raises(PreflightError, match="'a/b' and 'a_b' would both be the dataset 'a_b'"):
        run(fasta, tmp_path / "x.h5", model)
    fasta.write_text(">.\nMKV\n>..\nMKVL\n>/\nMK\n".replace(">/", ">//"))
    run(fasta, tmp_path / "x.h5", model)
    with h5py.File(tmp_path / "x.h5", "r") as file:
        assert list(file) == ["_", "..", "__"]


def test_only_files_of_this_command_are_replaced(fasta: Path, tmp_path: Path, model: Path) -> None:
    output = tmp_path / "x.h5"
    for mine in (b"mine", b""):
        output.write_bytes(mine)
        with pytest.raises(PreflightError, match="there is no record that this command wrote it"):
            run(fasta, output, model)
    output.unlink()
    with h5py.File(output, "w") as file:
        file["a"] = 1
    with pytest.raises(PreflightError, match="there is no record that this command wrote it"):
        run(fasta, output, model)
    run(fasta, output, model, replace=True, readout=SINGLE)
    with h5py.File(output, "r") as file:
        assert {one.dtype.name for one in file.values()} == {"float32"}
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(UsageError, match="is the folder"):
        run(fasta, tmp_path / "folder.h5", model)


def test_disk_for_shards_and_file_is_needed(
    fasta: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = 2 * sum(LENGTHS) * 16 * 2
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**6, 0, needed - 1))
    with pytest.raises(PreflightError, match="too little disk space"):
        run(fasta, tmp_path / "x.h5", model)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**6, 0, needed))
    run(fasta, tmp_path / "x.h5", model)


def test_without_h5py_the_extra_is_named(
    fasta: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"x\.h5: needs h5py; install the extra: pip install 'nucpro\[hdf5\]'"
    ):
        run(fasta, tmp_path / "x.h5", model)
