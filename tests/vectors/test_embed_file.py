"""A file of vectors of anyone's FASTA: every form, checked before it is computed, and resumed part by part."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import random_esm
from nucpro.cli import main
from nucpro.errors import PreflightError, StoreError
from nucpro.formats import read_vectors
from nucpro.formats.sequences import SequenceType
from nucpro.inspection.files import inspect
from nucpro.options import Options
from nucpro.progress import Progress
from nucpro.vectors.inputs import PartSize
from nucpro.vectors.job import EmbedOptions, embed_files
from nucpro.vectors.outputs import read_content
from vectors.jobs import run, stopped_after


def command(fasta: Path, output: Path, model: Path, *more: str) -> list[str]:
    return ["embed", str(fasta), "-o", str(output), "--protein-model", str(model), "--device", "cpu", *more]


def test_every_form_holds_the_same_vectors_and_what_made_them(
    fasta: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    for suffix in (".pt", ".npz", ".parquet", ".safetensors"):
        assert main(command(fasta, folder / f"out{suffix}", model)) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith("10 vectors of width 16")
    expected = read_vectors(folder / "out.pt", SequenceType.PROTEIN)
    assert expected.ids == [f"p{row}" for row in range(10)]
    with np.load(folder / "out.npz") as arrays:
        ids, vectors, meta = arrays["id"].tolist(), arrays["vector"], json.loads(str(arrays["nucpro"]))
    assert (ids, meta) == (expected.ids, expected.meta)
    assert np.array_equal(vectors, expected.vectors)
    frame = pd.read_parquet(folder / "out.parquet")
    assert frame["id"].tolist() == expected.ids
    assert np.array_equal(np.stack(frame["vector"].tolist()), expected.vectors)
    with safe_open(folder / "out.safetensors", framework="numpy") as tensors:
        assert json.loads(tensors.metadata()["id"]) == expected.ids
        assert json.loads(tensors.metadata()["nucpro"]) == expected.meta
        assert np.array_equal(tensors.get_tensor("vector"), expected.vectors)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"out{suffix}" for suffix in (".npz", ".parquet", ".pt", ".safetensors")
    ]


@pytest.mark.parametrize("name", ["out.csv", "out", "out.pth", "out.NPZ", "out.pt.gz"])
def test_another_suffix_is_refused_before_anything_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path / "none.fa", tmp_path / name, tmp_path / "none")) == 2
    assert "allowed: a file that ends with .pt, .npz, .parquet, .safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".parquet", ".safetensors"])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    parts: int, suffix: str, fasta: Path, tmp_path: Path, model: Path
) -> None:
    output = tmp_path / f"out{suffix}"
    stopped_after(parts, fasta, output, model)
    assert not output.exists()
    seen: list[Progress] = []
    # Without a size of parts, it is that of the run that was stopped.
    assert run(fasta, output, model, show=seen.append, part=None).computed == 10 - 3 * parts
    assert [progress.done for progress in seen] == [*range(3 * parts, 10, 3), 10]
    whole = tmp_path / f"whole{suffix}"
    run(fasta, whole, model)
    assert output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.unfinished"))
    assert run(fasta, output, model).computed == 0


def test_a_run_that_was_stopped_before_its_first_part_leaves_nothing(
    fasta: Path, tmp_path: Path, model: Path
) -> None:
    stopped_after(0, fasta, tmp_path / "out.pt", model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["proteins.fa"]


def test_kept_rows_that_were_damaged_are_computed_again(fasta: Path, tmp_path: Path, model: Path) -> None:
    output, whole = tmp_path / "out.pt", tmp_path / "whole.pt"
    run(fasta, whole, model)
    stopped_after(3, fasta, output, model)
    rows = tmp_path / "out.pt.unfinished" / "rows.f32"
    data = bytearray(rows.read_bytes())
    data[4 * 16 * 4] ^= 1
    rows.write_bytes(data)
    assert run(fasta, output, model).computed == 10 - 6
    assert output.read_bytes() == whole.read_bytes()


def test_a_fasta_that_was_changed_keeps_the_parts_that_are_the_same(
    fasta: Path, tmp_path: Path, model: Path
) -> None:
    output, whole = tmp_path / "out.pt", tmp_path / "whole.pt"
    stopped_after(3, fasta, output, model)
    fasta.write_text(fasta.read_text().replace(">p1 text\n", ">p1 text\nMK"))
    assert run(fasta, output, model).computed == 10 - 6
    run(fasta, whole, model)
    assert output.read_bytes() == whole.read_bytes()


def test_what_another_model_left_unfinished_is_replaced_only_where_that_is_asked_for(
    fasta: Path, tmp_path: Path, model: Path
) -> None:
    output = tmp_path / "out.pt"
    stopped_after(2, fasta, output, model)
    other = random_esm.save(random_esm.model(), tmp_path / "other")
    with pytest.raises(PreflightError, match="start over with --replace"):
        run(fasta, output, other)
    assert run(fasta, output, other, replace=True).computed == 10


def test_vectors_of_something_else_are_replaced_only_where_that_is_asked_for(
    fasta: Path, tmp_path: Path, model: Path
) -> None:
    output = tmp_path / "out.parquet"
    run(fasta, output, model)
    fasta.write_text(">a\nMKV\n")
    # This command made it, and makes it of what the FASTA holds now.
    run(fasta, output, model)
    frame = pd.read_parquet(output)
    assert frame["id"].tolist() == ["a"]
    frame.to_parquet(output)
    with pytest.raises(
        PreflightError, match=r"there is no record that this command wrote it; .* with --replace"
    ):
        run(fasta, output, model)
    assert len(pd.read_parquet(output).columns) == 2
    run(fasta, output, model, replace=True)
    assert pd.read_parquet(output)["id"].tolist() == ["a"]


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".parquet", ".safetensors"])
def test_a_file_of_somebody_else_is_left_alone(suffix: str, fasta: Path, tmp_path: Path, model: Path) -> None:
    for name, content in (("text", b"mine\n"), ("empty", b""), ("zip", b"PK\3\4")):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with pytest.raises(PreflightError, match="there is no record that this command wrote it"):
            run(fasta, path, model)
        assert path.read_bytes() == content


def test_a_folder_of_somebody_else_is_left_alone(fasta: Path, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "out.pt.unfinished"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine\n")
    for replace in (False, True):
        with pytest.raises(PreflightError, match=r"holds thesis.tex, which nucpro did not write"):
            run(fasta, tmp_path / "out.pt", model, replace=replace)
    assert (folder / "thesis.tex").read_text() == "mine\n"


def test_rows_are_not_written_through_a_link(fasta: Path, tmp_path: Path, model: Path) -> None:
    folder, victim = tmp_path / "out.pt.unfinished", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("mine\n")
    (folder / "rows.f32").symlink_to(victim)
    run(fasta, tmp_path / "out.pt", model)
    assert victim.read_text() == "mine\n"


def test_all_problems_are_reported_at_once_before_anything_is_computed(
    fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fasta.open("a") as file:
        file.write(">p3 again\nMK*\n")
    # The two records of one id are in different parts.
    output = tmp_path / "file" / "out.pt"
    (tmp_path / "file").write_text("")
    assert main(command(fasta, output, tmp_path / "none")) == 3
    said = capsys.readouterr().err
    for problem in (
        f"{tmp_path / 'file'}: is a file, not a folder",
        "there is no such folder",
        "1 duplicate id: p3",
        "p3 has '*' at position 3",
    ):
        assert problem in said
    assert not list(tmp_path.glob("*.unfinished"))


def test_records_that_are_too_long_are_cut_or_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, output = tmp_path / "long.fa", tmp_path / "out.pt"
    fasta.write_text(">a\nMKV\n>b\n" + "MKVL" * 257 + "\n")
    assert main(command(fasta, output, model, "--long", "refuse")) == 3
    assert "1 of 2 records are longer than the 1024 residues that the model reads" in capsys.readouterr().err
    assert not output.exists()
    assert main(command(fasta, output, model)) == 0
    assert "1 sequence longer than 1,024 residues, truncated" in capsys.readouterr().err


def test_too_little_disk_is_reported_before_anything_is_computed(
    fasta: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(PreflightError, match="too little disk space"):
        run(fasta, tmp_path / "out.pt", model)
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize("free", ["enough", "one byte too little"])
def test_the_disk_is_compared_with_what_all_outputs_take(
    free: str, fasta: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    inputs = several(tmp_path, fasta)
    machines = Options(protein_model=str(model), device="cpu")
    jobs = [EmbedOptions(path, tmp_path / "out" / f"{path.name}.npz", machines) for path in inputs]
    # Each file once, and the rows of the one that is made.
    row = 16 * 4
    peaks = [row * (3 + 3), row * (3 + 2 + 2), row * (5 + 5 + 5)]
    needed = max(peaks)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, needed - (free != "enough")))
    if free == "enough":
        assert len(embed_files(jobs)) == 3
        return
    with pytest.raises(PreflightError, match="too little disk space"):
        embed_files(jobs)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_computed(
    fasta: Path, model: Path
) -> None:
    if os.geteuid() == 0:
        with pytest.raises(PreflightError, match="cannot be written"):
            run(fasta, Path("/proc/out.pt"), model)
        return
    fasta.parent.chmod(0o500)
    with pytest.raises(PreflightError, match="cannot be written"):
        run(fasta, fasta.parent / "out.pt", model)
    fasta.parent.chmod(0o700)


def test_the_sizes_of_parts_change_vectors_by_rounding_only(fasta: Path, tmp_path: Path, model: Path) -> None:
    vectors = []
    for size in (PartSize(1, 10_000), PartSize(4, 100), PartSize(100, 10_000)):
        output = tmp_path / f"{size.records}.pt"
        run(fasta, output, model, part=size)
        vectors.append(read_vectors(output, SequenceType.PROTEIN).vectors)
    for other in vectors[1:]:
        np.testing.assert_allclose(other, vectors[0], rtol=0, atol=1e-5)


def several(tmp_path: Path, fasta: Path) -> list[Path]:
    lines = fasta.read_text().splitlines(keepends=True)
    inputs = [tmp_path / "one.faa", tmp_path / "b.two.fa.gz", tmp_path / "three"]
    inputs[0].write_text("".join(lines[:6]))
    inputs[1].write_bytes(gzip.compress("".join(lines[6:10]).encode()))
    inputs[2].write_text("".join(lines[10:]))
    return inputs


def test_several_inputs_are_one_file_each(
    tmp_path: Path, fasta: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = several(tmp_path, fasta)
    options = ["--protein-model", str(model), "--device", "cpu"]
    command = ["embed", *map(str, inputs), "-o", str(tmp_path / "out"), "--format", "npz", *options]
    assert main(command) == 0
    outputs = [tmp_path / "out" / f"{name}.npz" for name in ("one", "b.two", "three")]
    assert sorted((tmp_path / "out").iterdir()) == sorted(outputs)
    said = capsys.readouterr().out
    assert all(f"{output}: " in said for output in outputs)
    for path, output in zip(inputs, outputs, strict=True):
        assert main(["embed", str(path), "-o", str(tmp_path / "alone.npz"), "--replace", *options]) == 0
        assert output.read_bytes() == (tmp_path / "alone.npz").read_bytes()


def test_several_inputs_are_checked_before_any_is_computed(tmp_path: Path, fasta: Path, model: Path) -> None:
    inputs = several(tmp_path, fasta)
    inputs[0].write_text(">a\nMK1\n")
    inputs[2].unlink()
    machines = Options(protein_model=str(model), device="cpu")
    jobs = [EmbedOptions(path, tmp_path / f"{path.name}.pt", machines) for path in inputs]
    with pytest.raises(PreflightError) as caught:
        embed_files(jobs)
    assert [any(str(path) in problem for problem in caught.value.problems) for path in inputs] == [
        True,
        False,
        True,
    ]
    assert not list(tmp_path.glob("*.pt*"))


def test_of_several_inputs_those_that_are_done_are_not_computed(
    tmp_path: Path, fasta: Path, model: Path
) -> None:
    machines = Options(protein_model=str(model), device="cpu")
    jobs = [EmbedOptions(path, tmp_path / f"{path.name}.pt", machines) for path in several(tmp_path, fasta)]
    embed_files(jobs[:2])
    reports = embed_files(jobs)
    assert [report.computed for report in reports] == [0, 0, reports[2].records]
    assert [report.tokens > 0 for report in reports] == [False, False, True]


@pytest.mark.parametrize(
    ("inputs", "output", "told"),
    [
        (("a.fa", "b.fa"), ("out.npz",), "2 input files are given, and one output; add --format"),
        (("a.fa", "x/a.faa.gz"), ("out", "--format", "pt"), "would both become"),
        (("a.fa",), ("a.fa", "--format", "pt"), "is the file"),
    ],
)
def test_outputs_of_several_inputs_that_cannot_be(
    inputs: tuple[str, ...],
    output: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.fa").write_text(">a\nMKV\n")
    assert main(["embed", *inputs, "-o", *output]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("read", [read_content, inspect])
def test_a_message_quotes_only_the_start_of_what_a_file_holds(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, id=np.array(["a"]), vector=np.ones((1, 5_000), np.float32))
    content = bytearray(path.read_bytes())
    # The header of the second array says that its name has 20,000 bytes.
    start = content.index(b"PK\x03\x04", 4)
    content[start + 26 : start + 28] = (20_000).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600
