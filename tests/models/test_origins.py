"""Models as people have them: single files, fair-esm checkpoints, pointers, links to nowhere, pages of an error."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nucpro.embedding import encoder as encoders
from nucpro.errors import ModelError
from nucpro.formats.sequences import SequenceType
from nucpro.models.weights import locate
from nucpro.options import Options
from random_esm import encoder_of, vectors_of

FAIR_ESM_PARTS = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}


def as_fair_esm(tensors: dict[str, torch.Tensor], heads: int) -> dict[str, torch.Tensor]:
    """The same tensors under the names that ``esm.model.esm2.ESM2`` of fair-esm 2.0.0 gives them, heads included."""
    named = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("esm.")
        if bare == "embeddings.word_embeddings.weight":
            named["embed_tokens.weight"] = tensor
        elif bare.startswith("encoder.layer.") and not bare.endswith("inv_freq"):
            number, part = bare.removeprefix("encoder.layer.").split(".", 1)
            part, kind = part.rsplit(".", 1)
            named[f"layers.{number}.{FAIR_ESM_PARTS[part]}.{kind}"] = tensor
        elif bare.startswith("encoder.emb_layer_norm_after"):
            named[bare.removeprefix("encoder.")] = tensor
    width = named["embed_tokens.weight"].shape[1]
    steps = torch.arange(0, width // heads, 2, dtype=torch.float32) / (width // heads)
    # Folders that save it once have it under the name of any layer.
    stored = [tensor for name, tensor in tensors.items() if name.endswith("inv_freq")]
    for number in {name.split(".")[1] for name in named if name.startswith("layers.")}:
        frequencies = stored[0] if stored else 10000.0**-steps
        named[f"layers.{number}.self_attn.rot_emb.inv_freq"] = frequencies
    output = {
        "lm_head.weight": named["embed_tokens.weight"],
        "lm_head.dense.weight": torch.ones(width, width),
    }
    return named | output


def published(tensors: dict[str, torch.Tensor], heads: int) -> dict[str, object]:
    """What the published files hold: the options of the training beside the tensors under longer names."""
    named = {
        f"encoder.{'' if name.startswith('lm_head.') else 'sentence_encoder.'}{name}": tensor
        for name, tensor in as_fair_esm(tensors, heads).items()
    }
    options = Namespace(
        arch="esm2", encoder_attention_heads=heads, token_dropout=True, dropout=0.0, data=None
    )
    return {"args": None, "cfg": {"_name": None, "model": options, "task": Namespace()}, "model": named}


FAIR_ESM_FORMS: dict[str, Callable[[dict[str, torch.Tensor], int], dict[str, Any]]] = {
    "published": published,
    "state dict": as_fair_esm,
    "without frequencies": lambda tensors, heads: {
        **(whole := published(tensors, heads)),
        "model": {name: value for name, value in whole["model"].items() if "inv_freq" not in name},
    },
}


def tensors_of(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


@pytest.mark.parametrize("form", FAIR_ESM_FORMS)
def test_a_checkpoint_of_fair_esm_gives_the_vectors_of_the_same_weights(
    form: str, tmp_path: Path, model: Path
) -> None:
    file = tmp_path / "esm2_t1_1K_UR50D.pt"
    torch.save(FAIR_ESM_FORMS[form](tensors_of(model), 2), file)
    # What lies beside a file that is a whole model is no part of it.
    (tmp_path / "vocab.txt").write_text("nothing")
    assert np.array_equal(vectors_of(file), vectors_of(model))
    assert encoder_of(file).recipe.made_by["id"] == "esm2_t1_1K_UR50D"


@pytest.mark.parametrize("form", ["published", "state dict"])
def test_real_weights_in_the_form_of_fair_esm(form: str, tmp_path: Path, real_data: Path) -> None:
    file = tmp_path / "esm2_t6_8M_UR50D.pt"
    torch.save(FAIR_ESM_FORMS[form](tensors_of(real_data / "esm2_8m"), 20), file)
    assert np.array_equal(vectors_of(file), vectors_of(real_data / "esm2_8m"))


def test_a_checkpoint_of_fair_esm_beside_a_config_is_read(tmp_path: Path, model: Path) -> None:
    shutil.copy(model / "config.json", tmp_path)
    torch.save(published(tensors_of(model), 2), tmp_path / "checkpoint.pt")
    assert np.array_equal(vectors_of(tmp_path), vectors_of(model))


def test_a_folder_of_one_checkpoint_of_fair_esm_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "esm2_t6_8M_UR50D.pt"
    file.touch()
    with pytest.raises(ModelError, match=f"no config.json beside .* give the file itself: {file}"):
        encoder_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "changed", "told"),
    [
        ("esm1b.pt", {"encoder.sentence_encoder.embed_positions.weight": torch.ones(1)}, "but no ESM-2"),
        ("half.pt", {"encoder.sentence_encoder.layers.0.fc1.weight": None}, "but no ESM-2"),
        ("more.pt", {"encoder.sentence_encoder.layers.0.gate.weight": torch.ones(1)}, "have no place in the"),
        ("none.pt", {"encoder.sentence_encoder.layers.0.fc2.bias": None}, "missing from the weights"),
    ],
)
def test_what_else_fair_esm_saves_is_refused(
    name: str, changed: dict[str, torch.Tensor | None], told: str, tmp_path: Path, model: Path
) -> None:
    content: dict[str, Any] = published(tensors_of(model), 2)
    changed = content["model"] | changed
    content["model"] = {name: tensor for name, tensor in changed.items() if tensor is not None}
    torch.save(content, tmp_path / name)
    with pytest.raises(ModelError, match=told):
        encoder_of(tmp_path / name)


def test_a_contact_head_alone_names_its_model(tmp_path: Path) -> None:
    file = tmp_path / "esm2_t6_8M_UR50D-contact-regression.pt"
    torch.save({"model": {"contact_head.regression.weight": torch.ones(1, 120)}}, file)
    with pytest.raises(ModelError, match=f"give the model itself: {tmp_path / 'esm2_t6_8M_UR50D.pt'}"):
        encoder_of(file)


class _Call:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_options_of_a_training_can_run_nothing(tmp_path: Path, model: Path) -> None:
    content: dict[str, Any] = published(tensors_of(model), 2)
    content["cfg"]["model"].data = _Call()
    torch.save(content, tmp_path / "esm2_t6_8M_UR50D.pt")
    with pytest.raises(ModelError, match=r"refused, the file wants to call posix\.system"):
        encoder_of(tmp_path / "esm2_t6_8M_UR50D.pt")


def test_a_state_dict_of_this_suffix_is_no_fair_esm(tmp_path: Path, model: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    tensors = tensors_of(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "m" / "weights.pt")
    assert encoder_of(tmp_path / "m").recipe.width == 16


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "model.safetensors",
            b'\x08\0\0\0\0\0\0\0{"a": 1}',
            "is one file of a model (a safetensors file), not a model",
        ),
        ("config.json", b"{}", "is one file of a model (JSON), not a model; give its folder"),
        ("pytorch_model.bin", b"PK\3\4", "is one file of a model (a zip archive), not a model"),
        ("x.faa", b">a\nMKV\n", "is a FASTA file, not a model"),
        ("model.tar.gz", b"\x1f\x8b", "is a gzip file, not a model"),
    ],
)
def test_a_file_in_place_of_a_folder_is_reported(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
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
        "is a link to ../../blobs/0a1b, which does not exist; copy the file itself",
    ),
    "link of git-annex": (
        link_to_annex,
        "which does not exist; copy the file itself with `cp -L`, or get it with `git",
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
def test_what_is_in_place_of_a_file_is_reported(fault: str, name: str, tmp_path: Path, model: Path) -> None:
    make, told = BROKEN[fault]
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(ModelError) as caught:
        encoder_of(folder)
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
        encoders.identify(Options(protein_model=str(folder), device="cpu"), SequenceType.PROTEIN)
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
    with pytest.raises(ModelError, match=r"m: is a link to /no/disk, which does not exist"):
        locate(str(tmp_path / "m"))
