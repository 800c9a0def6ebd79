"""Vectors of residues: as transformers has them, whatever else is in the batch; kept shard by shard."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import EsmModel

import nucpro
import random_esm
from nucpro.cli import main
from nucpro.embedding.batches import Embedder, embed
from nucpro.errors import ExtractionError, FastaError, PreflightError, UsageError
from nucpro.models.config import Readout
from nucpro.models.esm2 import Esm2
from nucpro.models.tokens import ResidueTokenizer
from vectors import jobs
from vectors.jobs import LENGTHS

HALF = Readout(per_residue="float16")
SINGLE = Readout(per_residue="float32")
run, stopped_after = (partial(job, readout=HALF) for job in (jobs.run, jobs.stopped_after))


def vectors_in(folder: Path) -> dict[str, np.ndarray]:
    """Vectors of each record, as the documentation says that they are found."""
    index = json.loads((folder / "index.json").read_text())
    found = {}
    for name, (shard, first, count) in index["records"].items():
        with safe_open(folder / index["shards"][shard]["file"], framework="numpy") as tensors:
            found[name] = tensors.get_slice("vector")[first : first + count]
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@torch.inference_mode()
def expected_of(esm: EsmModel, sequences: list[bytes], layer: int = -1) -> list[np.ndarray]:
    """Hidden states of each residue, as transformers computes them one sequence at a time."""
    found = []
    for sequence in sequences:
        tokens, _ = random_esm.packed([sequence])
        found.append(
            esm(tokens.long()[None], output_hidden_states=True).hidden_states[layer][0, 1:-1].numpy()
        )
    return found


@pytest.mark.parametrize("layers", [(-1,), (1,), (3, 0, 2)])
def test_residues_are_those_of_transformers_whatever_else_is_in_the_batch(layers: tuple[int, ...]) -> None:
    esm = random_esm.model()
    sequences = random_esm.proteins(LENGTHS)
    encoder = Esm2.from_huggingface(esm)
    by_layer = [np.concatenate(expected_of(esm, sequences, layer)) for layer in layers]
    expected = np.concatenate(by_layer, axis=1)
    names = [str(row) for row in range(len(sequences))]
    readout = Readout(layers, per_residue="float32")
    for budget in (1, 104, 8_192):
        found = embed(names, sequences, Embedder(encoder, budget, readout), ResidueTokenizer())
        assert found.matrix.shape == (sum(LENGTHS), 64 * len(layers))
        np.testing.assert_allclose(found.matrix, expected, rtol=0, atol=1e-4)


def test_residues_of_real_weights_equal_transformers(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "esm2_8m"
    esm = EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    sequences = [one.translate(None, b"XBUZO") for one in random_esm.proteins((30, 99, 166))]
    fasta = tmp_path / "x.fa"
    fasta.write_text("".join(f">p{row}\n{one.decode()}\n" for row, one in enumerate(sequences)))
    for layer in (-1, *range(esm.config.num_hidden_layers)):
        expected = expected_of(esm, sequences, layer)
        for element_type, tolerance in (("float32", 1e-4), ("float16", 1e-3)):
            output = tmp_path / f"{element_type}{layer}"
            run(fasta, output, folder, readout=Readout((layer,), per_residue=element_type))
            for row, found in enumerate(vectors_in(output).values()):
                assert found.dtype == element_type
                scale = max(1, np.abs(expected[row]).max())
                difference = np.abs(found.astype(np.float32) - expected[row]).max() / scale
                assert difference <= tolerance, (layer, element_type, difference)


def test_the_command_makes_a_folder_with_an_index(
    fasta: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "residues"
    machines = ["--protein-model", str(model), "--device", "cpu"]
    command = ["embed", str(fasta), "-o", str(output), "--per-residue", *machines]
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"{sum(LENGTHS)} vectors of width 16 of 10 records" in said.out
    assert f"vectors of {sum(LENGTHS)} residues, 17.4 kB to write" in said.out
    found = vectors_in(output)
    assert [len(rows) for rows in found.values()] == list(LENGTHS)
    assert {rows.dtype.name for rows in found.values()} == {"float16"}
    index = json.loads((output / "index.json").read_text())
    assert index["element_type"] == "float16"
    assert index["meta"]["made_by"]["pooling"] == "none"
    assert index["meta"]["input"]["records"] == 10
    before = content(output)
    assert sorted(before) == ["index.json", "residues-00000.safetensors"]
    assert main(command) == 0
    assert content(output) == before
    # Means of them are what the command writes without the option.
    assert main(["embed", str(fasta), "-o", str(tmp_path / "x.npz"), *machines]) == 0
    with np.load(tmp_path / "x.npz") as arrays:
        means = np.stack([rows.astype(np.float32).mean(axis=0) for rows in found.values()])
        np.testing.assert_allclose(means, arrays["vector"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_stopped_run_goes_on_by_shard(parts: int, fasta: Path, tmp_path: Path, model: Path) -> None:
    output, whole = tmp_path / "out", tmp_path / "whole"
    stopped_after(parts, fasta, output, model)
    assert not output.exists()
    kept = {path.name: path.stat() for path in (tmp_path / "out.unfinished").glob("residues-*")}
    (tmp_path / "out.unfinished" / ".residues-00009.safetensors.nucpro-tmp-0123").write_text("killed")
    assert run(fasta, output, model, part=None).computed == 10 - 3 * parts
    for number in range(parts):
        name = f"residues-{number:05d}.safetensors"
        assert (output / name).stat().st_mtime_ns == kept[name].st_mtime_ns
    run(fasta, whole, model)
    assert content(output) == content(whole)
    assert len(content(output)) == 5
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_damaged_or_missing_shard_is_computed_again(fasta: Path, tmp_path: Path, model: Path) -> None:
    output, whole = tmp_path / "out", tmp_path / "whole"
    run(fasta, whole, model)
    stopped_after(3, fasta, output, model)
    shards = sorted((tmp_path / "out.unfinished").glob("residues-*"))
    shards[0].unlink()
    data = bytearray(shards[1].read_bytes())
    data[-1] ^= 1
    shards[1].write_bytes(data)
    assert run(fasta, output, model).computed == 10 - 3
    assert content(output) == content(whole)


def test_shards_that_a_shorter_fasta_has_no_more_are_left_out(
    fasta: Path, tmp_path: Path, model: Path
) -> None:
    stopped_after(3, fasta, tmp_path / "out", model)
    fasta.write_text("".join(fasta.read_text().partition(">p4")[:1]))
    assert run(fasta, tmp_path / "out", model).computed == 1
    assert sorted(vectors_in(tmp_path / "out")) == ["p0", "p1", "p2", "p3"]
    assert len(content(tmp_path / "out")) == 3


def test_a_folder_of_other_vectors_is_replaced_only_where_that_is_asked_for(
    fasta: Path, tmp_path: Path, model: Path
) -> None:
    output = tmp_path / "out"
    run(fasta, output, model)
    before = content(output)
    with pytest.raises(PreflightError, match=r"holds vectors of other records.*--replace"):
        run(fasta, output, model, readout=SINGLE)
    assert content(output) == before
    run(fasta, output, model, readout=SINGLE, replace=True)
    assert {rows.dtype.name for rows in vectors_in(output).values()} == {"float32"}
    # A folder that lacks a shard is made again.
    (output / "residues-00001.safetensors").unlink()
    run(fasta, output, model, readout=SINGLE, replace=True)
    assert len(vectors_in(output)) == 10


def test_a_run_that_was_killed_while_it_replaced_a_folder_goes_on(
    fasta: Path, tmp_path: Path, model: Path
) -> None:
    output, other = tmp_path / "out", tmp_path / "other"
    run(fasta, output, model)
    run(fasta, other, model, readout=SINGLE)
    whole = content(other)
    # What lies there when the index and some shards of the old folder are gone.
    (output / "index.json").unlink()
    stopped_after(3, fasta, tmp_path / "third", model, readout=SINGLE)
    (tmp_path / "third.unfinished").rename(tmp_path / "out.unfinished")
    shutil.copy(other / "index.json", tmp_path / "out.unfinished")
    run(fasta, output, model, readout=SINGLE)
    assert content(output) == whole


@pytest.mark.parametrize("name", ["thesis.tex", "index.json", "residues-00000.safetensors"])
def test_a_folder_of_somebody_else_is_left_alone(name: str, fasta: Path, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("{}\n")
    for replace in (False, True):
        with pytest.raises(PreflightError, match="there is no record that this command wrote all of it"):
            run(fasta, folder, model, replace=replace)
    assert (folder / name).read_text() == "{}\n"


def test_an_empty_folder_is_taken_and_a_file_is_not(fasta: Path, tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty").mkdir()
    run(fasta, tmp_path / "empty", model)
    assert len(vectors_in(tmp_path / "empty")) == 10
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PreflightError, match="is not a folder, and is never replaced"):
        run(fasta, tmp_path / "file", model, replace=True)


def test_too_little_disk_is_reported_before_anything_is_computed(
    fasta: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = sum(LENGTHS) * 16 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, needed - 1))
    with pytest.raises(PreflightError, match="too little disk space"):
        run(fasta, tmp_path / "out", model)
    assert not list(tmp_path.glob("out*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, needed))
    assert run(fasta, tmp_path / "out", model).vectors == sum(LENGTHS)


def test_records_that_are_too_long_are_cut_and_counted(tmp_path: Path, model: Path) -> None:
    fasta = tmp_path / "long.fa"
    fasta.write_text(">a\nMKV\n>b\n" + "MKVL" * 257 + "\n")
    report = run(fasta, tmp_path / "out", model)
    assert (report.truncated, report.vectors) == (1, 3 + 1024)
    assert [len(rows) for rows in vectors_in(tmp_path / "out").values()] == [3, 1024]


def test_states_beyond_float16_are_refused_by_name(fasta: Path, tmp_path: Path) -> None:
    esm = random_esm.model()
    esm.encoder.emb_layer_norm_after.weight.data[:] = 1e6
    folder = random_esm.save(esm, tmp_path / "model")
    with pytest.raises(ExtractionError, match=r"record 'p0' .* residues are affected.*--dtype float32"):
        run(fasta, tmp_path / "out", folder)
    assert not list(tmp_path.glob("out*"))
    run(fasta, tmp_path / "out", folder, readout=SINGLE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--per-residue", "--dna"], "--per-residue is for proteins"),
        (["--per-residue", "--pool", "mean"], "--pool is mean; allowed: only without --per-residue"),
        (["--dtype", "float32"], "--dtype is float32; allowed: only with --per-residue"),
        (["--per-residue", "-o", "x.npz"], "it is the name of a folder to create, without .npz"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    more: list[str], message: str, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", str(fasta), "-o", str(tmp_path / "out"), "--device", "cpu", *more]) == 2
    assert message in capsys.readouterr().err


def test_python_yields_the_same_record_by_record(fasta: Path, tmp_path: Path, model: Path) -> None:
    run(fasta, tmp_path / "out", model, part=None, readout=Readout((0, 1), per_residue="float32"))
    encoder = nucpro.load_encoder(model, device="cpu", layer=[0, 1])
    found = dict(encoder.embed_residues(fasta, dtype="float32"))
    expected = vectors_in(tmp_path / "out")
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert {rows.dtype.name for _, rows in encoder.embed_residues(["MKV"])} == {"float16"}
    with pytest.raises(FastaError, match="look like nucleotides"):
        encoder.embed_residues(["ACGT" * 30])
    with pytest.raises(UsageError, match="exclude each other"):
        nucpro.load_encoder(model, device="cpu", pool="max").embed_residues(["MKV"])


def test_a_pooling_of_residues_is_refused() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        Readout(poolings=("max",), per_residue="float16")
    with pytest.raises(UsageError, match="--dtype is float64; allowed: float16, float32"):
        Readout(per_residue="float64")


@torch.inference_mode()
def averaged(esm: EsmModel, sequence: bytes, layer: int, limit: int = 1024) -> np.ndarray:
    """States of residues, averaged over windows that start at every half of the limit."""
    found: list[list[np.ndarray]] = [[] for _ in sequence]
    start = 0
    while True:
        (window,) = expected_of(esm, [sequence[start : start + limit]], layer)
        for place, row in enumerate(window):
            found[start + place].append(row)
        if start + limit >= len(sequence):
            return np.stack([np.mean(rows, axis=0) for rows in found])
        start += limit // 2


@pytest.mark.parametrize("length", [1023, 1024, 1025, 1536, 1537, 2600])
def test_windows_are_averaged_residue_by_residue(length: int, tmp_path: Path) -> None:
    esm = random_esm.model()
    model = random_esm.save(esm, tmp_path / "model")
    sequences = random_esm.proteins((40, length, 1500, 9))
    fasta = tmp_path / "long.fa"
    fasta.write_text("".join(f">p{row}\n{one.decode()}\n" for row, one in enumerate(sequences)))
    expected = [averaged(esm, sequence, 2) for sequence in sequences]
    readout = Readout((2,), per_residue="float32", windows=True)
    report = run(fasta, tmp_path / "out", model, readout=readout)
    assert (report.truncated, report.vectors) == (0, sum(map(len, sequences)))
    for found, rows in zip(vectors_in(tmp_path / "out").values(), expected, strict=True):
        np.testing.assert_allclose(found, rows, rtol=0, atol=1e-4)
    readout = Readout((2, -1), ("mean", "max"), windows=True)
    run(fasta, tmp_path / "out.npz", model, readout=readout)
    last = [averaged(esm, sequence, -1) for sequence in sequences]
    pooled = [
        np.concatenate([rows.mean(axis=0), rows.max(axis=0), others.mean(axis=0), others.max(axis=0)])
        for rows, others in zip(expected, last, strict=True)
    ]
    found = nucpro.read_vectors(tmp_path / "out.npz")
    np.testing.assert_allclose(found.matrix, np.stack(pooled), rtol=0, atol=1e-4)
    assert found.meta["made_by"]["long_records"] == "windows overlapping by half"


def test_windows_of_real_weights_equal_a_plain_computation(real_data: Path, tmp_path: Path) -> None:
    """Also of an inner layer and of another pooling, and whatever else is in the file."""
    folder = real_data / "esm2_8m"
    esm = EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    proteins = [one.translate(None, b"XBUZO") for one in random_esm.proteins((1700, 60, 1100, 1700))]
    readout = Readout((3, -1), ("mean", "max"), windows=True)
    found = []
    for chosen in (proteins[:1], proteins):
        (tmp_path / "x.fa").write_text(
            "".join(f">p{row}\n{one.decode()}\n" for row, one in enumerate(chosen))
        )
        run(tmp_path / "x.fa", tmp_path / f"{len(chosen)}.npz", folder, readout=readout)
        found.append(nucpro.read_vectors(tmp_path / f"{len(chosen)}.npz").matrix[0])
    layers = [averaged(esm, proteins[0], layer) for layer in (3, -1)]
    expected = np.concatenate([part for rows in layers for part in (rows.mean(axis=0), rows.max(axis=0))])
    largest = max(1.0, *(np.abs(rows).max() for rows in layers))
    assert np.abs(found[0] - expected).max() <= 1e-4 * largest
    assert np.abs(found[1] - found[0]).max() <= 1e-5 * largest


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dna"], "--long window is for proteins"),
        (["--pool", "mean,cls"], "--pool cls and --long window exclude each other"),
    ],
)
def test_windows_that_have_no_meaning_are_refused(
    more: list[str], message: str, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out.npz")
    assert main(["embed", str(fasta), "-o", output, "--device", "cpu", "--long", "window", *more]) == 2
    assert message in capsys.readouterr().err
