"""Models as people have them: single files, fair-esm checkpoints, pointers, links to nowhere, pages of an error."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nucpro import encoders
from nucpro.errors import ModelError
from nucpro.layout import Side
from nucpro.models.weights import locate
from nucpro.options import Options

FETCH = "nucpro fetch-models FOLDER --model facebook/"


def save_fair_esm(path: Path) -> None:
    tensors = {"encoder.sentence_encoder.embed_tokens.weight": torch.zeros(33, 4)}
    torch.save({"cfg": {"model": Namespace(encoder_layers=6)}, "model": tensors}, path)


def load(path: Path) -> encoders.FastaEncoder:
    options = Options(protein_model=str(path), device="cpu")
    return encoders.load(encoders.identify(options, Side.PROTEIN), options)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("esm2_t6_8M_UR50D.pt", f"{FETCH}esm2_t6_8M_UR50D, and give that folder"),
        ("esm2_t36_3B_UR50D.pt", f"{FETCH}esm2_t36_3B_UR50D, and give that folder"),
        ("esm2_t33_650M_UR50D-contact-regression.pt", f"{FETCH}esm2_t33_650M_UR50D, and give that folder"),
        ("checkpoint.pt", f"{FETCH}esm2_t33_650M_UR50D (or another ESM-2), and give that folder"),
    ],
)
@pytest.mark.parametrize("where", ["itself", "its folder", "with a config"])
def test_a_checkpoint_of_fair_esm_is_named(
    name: str, remedy: str, where: str, tmp_path: Path, model: Path
) -> None:
    file = tmp_path / name
    save_fair_esm(file)
    if where == "with a config":
        shutil.copy(model / "config.json", tmp_path)
    with pytest.raises(ModelError) as caught:
        load(file if where == "itself" else tmp_path)
    assert str(caught.value).startswith(f"{file}: is a checkpoint of fair-esm")
    assert remedy in str(caught.value)


def test_a_state_dict_of_this_suffix_is_no_fair_esm(tmp_path: Path, model: Path) -> None:
    from safetensors.torch import load_file

    shutil.copytree(model, tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "m" / "weights.pt")
    assert load(tmp_path / "m").recipe.width == 16


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "model.safetensors",
            b'\x08\0\0\0\0\0\0\0{"a": 1}',
            "is one file of a model (a safetensors file), not a model",
        ),
        ("config.json", b"{}", "is one file of a model (JSON), not a model; give the folder that it lies in"),
        ("pytorch_model.bin", b"PK\3\4", "is one file of a model (a zip archive), not a model"),
        ("x.faa", b">a\nMKV\n", "is a FASTA file, not a model"),
        ("model.tar.gz", b"\x1f\x8b", "is a gzip file, not a model"),
    ],
)
def test_a_file_in_place_of_a_folder_is_told(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        locate(str(path))
    assert str(caught.value).startswith(f"{path}: {told}")


def link_to_nowhere(path: Path) -> None:
    path.symlink_to("../../blobs/0a1b")


def link_to_annex(path: Path) -> None:
    path.symlink_to(".git/annex/objects/X/SHA256E-s9--0")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "link to a blob": (
        link_to_nowhere,
        "is a link to ../../blobs/0a1b, which is not there; copy the file itself",
    ),
    "link of git-annex": (
        link_to_annex,
        "which is not there; copy the file itself with `cp -L`, or get it with `git",
    ),
    "folder": (Path.mkdir, "is a folder, not a regular file"),
    "pipe": (os.mkfifo, "is a pipe, not a regular file"),
    "device": (
        lambda path: path.symlink_to("/dev/zero"),
        "is a terminal or another device, not a regular file",
    ),
    "Git LFS": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    ),
    "git-annex": (
        lambda path: path.write_bytes(b"/annex/objects/SHA256E-s9--0.safetensors\n"),
        "a git-annex pointer, not the file itself: fetch it with `git annex get`",
    ),
    "page of an error": (lambda path: path.write_bytes(b"<!DOCTYPE html>\n<html>"), "a page of HTML or XML"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "nucpro_source.json"])
def test_what_lies_in_place_of_a_file_is_told(fault: str, name: str, tmp_path: Path, model: Path) -> None:
    make, told = BROKEN[fault]
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder / name}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("fault", ["link to a blob", "folder", "pipe"])
def test_a_vocabulary_that_cannot_be_read_is_not_passed_over(fault: str, tmp_path: Path, model: Path) -> None:
    make, told = BROKEN[fault]
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    (folder / "vocab.txt").unlink(missing_ok=True)
    make(folder / "vocab.txt")
    with pytest.raises(ModelError) as caught:
        encoders.identify(Options(protein_model=str(folder), device="cpu"), Side.PROTEIN)
    assert str(caught.value).startswith(f"{folder / 'vocab.txt'}: {told[:12]}")


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    config = folder / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    assert locate(str(folder)).config == locate(str(model)).config


@pytest.mark.parametrize(
    ("name", "told"),
    [("", "the name is empty"), ("  ", "the name is empty"), ("x" * 300, "File name too long")],
)
def test_names_that_stand_for_nothing(name: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        locate(name)


def test_a_link_to_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").symlink_to("/no/disk")
    with pytest.raises(ModelError, match=r"m: is a link to /no/disk, which is not there"):
        locate(str(tmp_path / "m"))
