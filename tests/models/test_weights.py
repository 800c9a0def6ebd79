"""Folders with models: what is found in them, what identifies them, what is missing."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess

import pytest

from nucpro.errors import ModelError
from nucpro.models.weights import locate


@pytest.fixture
def folder(tmp_path):
    """Folder whose weights are some bytes; nothing here reads them."""
    path = tmp_path / "modèle ESM.fa"
    path.mkdir()
    (path / "config.json").write_text('{"hidden_size": 8}')
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_a_folder_is_known_by_its_name_alone(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in (".", str(folder), f"../{folder.name}/"):
        files = locate(name)
        assert (files.id, files.revision, files.config) == ("modèle ESM.fa", None, {"hidden_size": 8})
        assert files.vocabulary is None


def test_the_digest_of_one_file_is_that_of_its_bytes(folder):
    assert locate(str(folder)).digest() == hashlib.sha256(b"weights").hexdigest()


def test_the_digest_of_shards_can_be_made_with_sha256sum(folder):
    (folder / "model.safetensors").unlink()
    shards = ["a.safetensors", "b.safetensors"]
    for shard in shards:
        (folder / shard).write_text(shard)
    index = {"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    printed = subprocess.run(["sha256sum", *shards], cwd=folder, capture_output=True, check=True).stdout
    files = locate(str(folder))
    assert [file.name for file in files.weights] == shards
    assert files.digest() == hashlib.sha256(printed).hexdigest()


def test_a_copy_on_another_machine_does_not_count_as_replaced(folder):
    files = locate(str(folder))
    assert files.digest()
    sent = pickle.dumps(files)
    (folder / "copy").write_bytes(b"weights")
    (folder / "copy").replace(folder / "model.safetensors")
    pickle.loads(sent).require_unchanged()
    with pytest.raises(ModelError, match="replaced at the start of the run"):
        files.require_unchanged()


@pytest.mark.parametrize("model", ["./missing", "/no/such/folder", "~/no/such/folder", "a/b/c", "..\\folder"])
def test_a_path_that_is_no_folder_is_not_asked_for_on_the_hub(model):
    with pytest.raises(ModelError, match=r"there is no such folder; give a folder with config\.json"):
        locate(model)


def test_a_file_is_no_folder(folder):
    with pytest.raises(ModelError, match="is one file of a model"):
        locate(str(folder / "model.safetensors"))


def test_a_folder_has_no_revisions(folder):
    with pytest.raises(ModelError, match="a folder has no revisions, but 'main' was asked for"):
        locate(str(folder), revision="main")


def test_missing_files_are_named_with_what_is_there(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"no weights \(model.* or pytorch_model\.bin\); the folder holds config\.json"
    ):
        locate(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(
        ModelError, match=r"no config\.json; the folder holds nothing; fill it with `nucpro fetch-mod"
    ):
        locate(str(folder))


@pytest.mark.parametrize(
    "content", ["{", "[]", "\udc80", "[" * 100_000], ids=["cut", "list", "not UTF-8", "deep"]
)
def test_a_damaged_configuration_is_named(folder, content):
    (folder / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(
        ModelError, match=r"config\.json: (cannot be read as JSON|holds a JSON list).*fetch the model"
    ):
        locate(str(folder))


def test_weights_that_could_be_two_files_are_not_guessed(folder):
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    (folder / "two.safetensors").write_bytes(b"")
    with pytest.raises(
        ModelError, match=r"could be the weights: one\.safetensors, two\.safetensors; name the right one"
    ):
        locate(str(folder))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map in it"),
        ({"weight_map": {}}, "no weight_map in it"),
        ({"weight_map": {"x": "../secret.safetensors"}}, r"names '\.\./secret\.safetensors' as a shard"),
        ({"weight_map": {"x": "config.json"}}, "names 'config.json' as a shard; a shard is a weights file"),
        (
            {"weight_map": {"x": "missing.safetensors"}},
            r"no shard\(s\) missing\.safetensors that model\.safetensors\.ind",
        ),
    ],
)
def test_an_index_that_contradicts_the_weights_is_refused(folder, index, message):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message):
        locate(str(folder))


def test_a_damaged_source_record_is_named(folder):
    (folder / "nucpro_source.json").write_text('{"id": 7}')
    with pytest.raises(
        ModelError, match=r"nucpro_source\.json: the record of the model is damaged \(id is 7"
    ):
        locate(str(folder))
