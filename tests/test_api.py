"""The front door of the library, as a notebook uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import nucpro
import random_esm
from nucpro.cli import main
from nucpro.errors import DataError, FastaError, NucproError, UsageError
from nucpro.formats import fasta

LENGTHS = (30, 7, 99, 12)
BASES = "ACGTTGCAAGGCTTAACCGTATCGATTACAGGATCCTTAGCATCGATCGGCTATAGCATCG"


@pytest.fixture(scope="module")
def encoder(model: Path) -> nucpro.Encoder:
    return nucpro.load_encoder(model, device="cpu")


@pytest.fixture
def proteins() -> list[str]:
    return [one.decode() for one in random_esm.proteins(LENGTHS)]


def test_importing_it_is_light() -> None:
    code = (
        "import nucpro, sys\n"
        "heavy = {'torch', 'numpy', 'pandas', 'tokenizers', 'huggingface_hub', 'tqdm', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(nucpro.__all__) <= set(dir(nucpro))\n"
        "nucpro.read_merged, nucpro.load_rows, nucpro.load_encoder, nucpro.errors.NucproError\n"
        "assert 'torch' not in sys.modules\n"
        "try: nucpro.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('nothing is there')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sequences_are_taken_in_every_form_that_people_have(
    encoder: nucpro.Encoder, proteins: list[str], tmp_path: Path
) -> None:
    names = ["a", "b", "c", "d"]
    path = tmp_path / "x.fa"
    path.write_text("".join(f">{name}\n{one}\n" for name, one in zip(names, proteins, strict=True)))
    expected = encoder.embed(proteins)
    assert expected.ids == ["0", "1", "2", "3"]
    assert (expected.matrix.dtype, expected.matrix.shape) == (np.float32, (4, 16))
    by_name = dict(zip(names, proteins, strict=True))
    forms = (
        by_name,
        {name: one.lower().encode() for name, one in by_name.items()},
        list(by_name.items()),
        (SimpleNamespace(id=name, seq=one) for name, one in by_name.items()),
        path,
        str(path),
        fasta.read(path),
        fasta.read(str(path)),
    )
    for form in forms:
        found = encoder.embed(form)
        assert found.ids == names
        assert np.array_equal(found.matrix, expected.matrix)


def test_vectors_are_those_of_the_command_in_every_form(
    encoder: nucpro.Encoder, model: Path, proteins: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.fa"
    path.write_text("".join(f">p{row}\n{one.lower()}\n" for row, one in enumerate(proteins)))
    found = encoder.embed(path)
    for suffix in (".pt", ".npz", ".parquet", ".safetensors"):
        output = tmp_path / f"x{suffix}"
        assert (
            main(["embed", str(path), "-o", str(output), "--protein-model", str(model), "--device", "cpu"])
            == 0
        )
        read = nucpro.read_vectors(str(output))
        assert (read.ids, read.meta) == (found.ids, {**found.meta, "command": "embed"})
        assert np.array_equal(read, found)
        own = tmp_path / f"own{suffix}"
        found.save(str(own))
        assert np.array_equal(nucpro.read_vectors(own), found)
        with pytest.raises(UsageError, match="replace it with replace=True"):
            found.save(own)
        found.save(own, replace=True)


def test_embeddings_are_an_array_and_a_frame(encoder: nucpro.Encoder, proteins: list[str]) -> None:
    found = encoder.embed({"a": proteins[0], "NA": proteins[1]})
    frame = found.to_frame()
    assert frame.index.tolist() == ["a", "NA"]
    assert frame.shape == (2, 16)
    assert np.array_equal(found["NA"], np.asarray(found)[1])
    assert torch.as_tensor(np.asarray(found)).shape == (2, 16)
    with pytest.raises(DataError, match="no record is called 'b'"):
        found["b"]


def test_progress_is_drawn_or_given_and_many_sequences_are_taken_in_parts(
    encoder: nucpro.Encoder, proteins: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    many = proteins * 200
    seen = []
    found = encoder.embed(many, progress=seen.append)
    assert [step.done for step in seen][-1] == 800
    assert len(seen) > 3
    np.testing.assert_allclose(found.matrix[:4], encoder.embed(proteins).matrix, rtol=0, atol=1e-5)
    capsys.readouterr()
    encoder.embed(many, progress=True)
    drawn = capsys.readouterr().err
    assert "Embedding: 100%" in drawn
    assert "800 of 800 sequences" in drawn
    assert drawn.endswith("\r")
    encoder.embed(proteins)
    assert capsys.readouterr().err == ""


def test_every_thing_says_what_it_is(encoder: nucpro.Encoder, proteins: list[str], tmp_path: Path) -> None:
    found = encoder.embed(proteins)
    assert repr(encoder) == "<Encoder tiny: protein sequences to 16 columns, fp32 on cpu>"
    assert repr(found) == "<Embeddings: 4 records, 16 columns, made by tiny>"
    assert repr(encoder._encoder) == "<FastaEncoder tiny: protein sequences to 16 columns, fp32 on cpu>"
    (tmp_path / "x.fa").write_text(">a\nMK\n")
    assert repr(fasta.read(tmp_path / "x.fa")) == f"<Records: 1 of {tmp_path / 'x.fa'}>"


def test_a_dna_model_is_known_by_its_config(dna_model: Path) -> None:
    encoder = nucpro.load_encoder(str(dna_model), device="cpu")
    assert (encoder.sequence_type, encoder.width) == ("dna", 768)
    assert np.array_equal(encoder.embed([BASES]), encoder.embed([BASES.lower().replace("t", "u")]))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["MK*"], FastaError, "0 has '\\*' at position 3"),
        ({"a": ""}, FastaError, "1 record without a sequence: a"),
        ([("a", "MK"), ("a", "MV")], FastaError, "1 duplicate id: a"),
        ([], FastaError, "give at least one"),
        ("MKTAYIAK", UsageError, "is no file; give a sequence in a list"),
        (b"MKT", UsageError, "sequences are of type bytes; give a list or dict"),
        (3, UsageError, "sequences are of type int; give a list or dict"),
        ([3], UsageError, "the sequence of '0' is of type int; give str or bytes"),
        ("nowhere.fa", FastaError, "nowhere.fa: cannot be read"),
        ([BASES], FastaError, "1 of 1 records look like nucleotides, first '0'; load the encoder 'dna'"),
    ],
)
def test_what_cannot_be_embedded_is_an_error_of_nucpro(
    given: object, error: type[NucproError], message: str, encoder: nucpro.Encoder
) -> None:
    with pytest.raises(error, match=message):
        encoder.embed(given)


def test_who_insists_gets_vectors_of_nucleotides_as_proteins(encoder: nucpro.Encoder) -> None:
    assert encoder.embed([BASES], insist=True).matrix.shape == (1, 16)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("./nowhere", {}, "there is no such folder"),
        ("", {}, "the name is empty"),
        (None, {"device": "tpu"}, "--device is tpu"),
        (None, {"precision": "fp8"}, "--precision is fp8"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_an_error_of_nucpro(
    model: str | None, options: dict[str, str], message: str, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue("model") if model is None else model
    with pytest.raises(NucproError, match=message):
        nucpro.load_encoder(name, **{"device": "cpu", **options})


def test_the_device_is_chosen_where_none_is_named(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nucpro")
    encoder = nucpro.load_encoder(model)
    assert encoder.device.startswith("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.cuda.is_available() or "No GPU found" in caplog.text


def test_long_records_are_cut_read_in_windows_or_refused(model: Path) -> None:
    records = {"a": "MKV", "b": "MKVL" * 300}
    assert nucpro.load_encoder(model, device="cpu").embed(records).truncated == 1
    windows = nucpro.load_encoder(model, device="cpu", long="window").embed(records)
    assert windows.truncated == 0
    assert windows.meta["made_by"]["long_records"] == "windows overlapping by half"
    refusing = nucpro.load_encoder(model, device="cpu", long="refuse")
    with pytest.raises(FastaError, match=r"1 of 2 .* longer than the 1024 .*first 'b'.*long='cut'"):
        refusing.embed(records)
    assert refusing.embed({"a": "MKV"}).truncated == 0
    with pytest.raises(UsageError, match="long is fold; allowed: one of cut, window, refuse"):
        nucpro.load_encoder(model, device="cpu", long="fold")
