"""Downloads, against a small server on loopback that answers like the hub."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import socket

import pytest
import torch

import random_esm
from hub_server import MAIN, MODEL, OLDER, WEIGHTS, Hub
from nucpro.errors import LockedError, ModelError, PreflightError, UsageError, human_size
from nucpro.models.esm2 import load_esm2
from nucpro.models.weights import available, fetch, locate
from nucpro.state.lock import hold
from serving import served


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("nucpro.models.hub._WAIT_S", 0.0)


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = random_esm.save(random_esm.model(), tmp_path_factory.mktemp("saved"))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def hub(saved):
    server = Hub()
    server.files = {
        MAIN: saved
        | {"pytorch_model.bin": b"not wanted", "modeling_code.py": b"raise SystemExit", "README.md": b""},
        OLDER: {name: content for name, content in saved.items() if name != "vocab.txt"},
    }
    with served(server):
        yield server


@pytest.fixture
def find(hub, tmp_path):
    """`locate` with this server and a cache of its own."""

    def find_here(model=MODEL, **options):
        return locate(model, cache_dir=tmp_path / "cache", endpoint=hub.address, **options)

    return find_here


def test_a_model_is_downloaded_once_and_only_what_is_needed(hub, find, saved, capfd):
    files = find()
    assert (files.id, files.revision) == (MODEL, MAIN)
    assert files.digest() == hashlib.sha256(saved[WEIGHTS]).hexdigest()
    assert files.vocabulary.read_bytes() == saved["vocab.txt"]
    assert sorted(hub.served) == ["config.json", WEIGHTS, "vocab.txt"]
    load_esm2(files, device=torch.device("cpu"), dtype=torch.float32)
    assert find() == files
    assert len(hub.served) == 3
    assert capfd.readouterr() == ("", "")


def test_asking_whether_a_model_can_be_had_downloads_nothing(hub):
    assert available(MODEL, endpoint=hub.address) == MAIN
    assert available(MODEL, revision="v1", endpoint=hub.address) == OLDER
    assert hub.served == []
    with pytest.raises(ModelError, match="the repository has no such revision"):
        available(MODEL, revision="v9", endpoint=hub.address)
    with pytest.raises(
        ModelError, match=r"there is no such folder; give a folder with config\.json and weights"
    ):
        available("./folder", endpoint=hub.address)


def test_a_revision_is_resolved_to_its_commit(find):
    assert find(revision="v1").revision == OLDER
    assert find(revision="v1").vocabulary is None
    assert find(revision=MAIN).revision == MAIN


def test_a_broken_connection_is_explained_and_the_second_try_succeeds(hub, find):
    hub.cut_after = {WEIGHTS: 50_000}
    with pytest.raises(ModelError) as caught:
        find()
    message = str(caught.value)
    assert message.startswith(f"model '{MODEL}' (revision '{MAIN}'): the download was interrupted (")
    assert "no partial file is used: run again, finished downloads are kept" in message
    with pytest.raises(ModelError, match="not in the local cache"):
        find(offline=True)
    hub.cut_after = {}
    assert find().revision == MAIN


def test_the_cache_serves_without_network(hub, find, caplog):
    with pytest.raises(
        ModelError,
        match=r"not in the local cache, and nothing is downloaded before the other problems are solved; without "
        r"network: .* fetch-models FOLDER --model .*`, copy FOLDER here, and name it with --protein-model",
    ):
        find(offline=True)
    online = find()
    served = len(hub.served)
    assert find(offline=True) == online
    assert len(hub.served) == served
    hub.refusal = (503, "Maintenance")
    with caplog.at_level(logging.WARNING, "nucpro"):
        assert find() == online
    assert f"the hub cannot be reached; the cached commit {MAIN} is used" in caplog.text


def test_an_unreachable_hub_is_explained(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(
            ModelError, match=r"not in the local cache, nor a folder here, and the hub cannot be reached \("
        ) as caught:
            locate(MODEL, cache_dir=tmp_path, endpoint=endpoint)
    assert f"({endpoint}: the server cannot be reached" in str(caught.value)


def test_what_does_not_exist_is_explained(hub, find):
    with pytest.raises(
        ModelError, match=r"model 'no/where' .* no such repository on the hub; check the spelling"
    ):
        find("no/where")
    with pytest.raises(
        ModelError, match=r"revision 'v9'.* no such revision; give a branch, a tag or a full commit"
    ):
        find(revision="v9")
    with pytest.raises(ModelError, match="'no repository' is neither a folder nor the id of a repository"):
        find("no repository")
    hub.refusal = (403, "GatedRepo")
    with pytest.raises(ModelError, match="access must be granted by its owner"):
        find()


def test_a_repository_without_weights_is_refused(hub, find):
    hub.files[MAIN] = {"config.json": b"{}"}
    with pytest.raises(ModelError, match=r"no weights \(model.safetensors or pytorch_model.bin\)"):
        find()


def test_shards_are_downloaded_with_their_index(hub, find):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    shards = {name: name.encode() for name in index["weight_map"].values()}
    hub.files[MAIN] = {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        **shards,
        "other-00001-of-00002.safetensors": b"not wanted",
    }
    assert [file.name for file in find().weights] == list(shards)
    assert "other-00001-of-00002.safetensors" not in hub.served


def test_fetch_fills_a_folder_that_counts_as_the_repository(hub, find, tmp_path):
    folder = tmp_path / "to carry"
    fetched = fetch(MODEL, folder, endpoint=hub.address)
    assert (fetched.id, fetched.revision) == (MODEL, MAIN)
    carried = shutil.move(folder, tmp_path / "carried")
    elsewhere = locate(str(carried))
    online = find()
    assert (elsewhere.id, elsewhere.revision, elsewhere.digest()) == (
        online.id,
        online.revision,
        online.digest(),
    )


def test_fetch_goes_on_where_it_was_cut_off(hub, tmp_path):
    hub.cut_after = {WEIGHTS: 50_000}
    with pytest.raises(ModelError, match="the download was interrupted"):
        fetch(MODEL, tmp_path / "model", endpoint=hub.address)
    with pytest.raises(ModelError, match="no weights"):
        locate(str(tmp_path / "model"))
    hub.cut_after = {}
    assert fetch(MODEL, tmp_path / "model", revision="v1", endpoint=hub.address).revision == OLDER


def test_fetch_does_not_mix_two_models(hub, tmp_path):
    folder = tmp_path / "model"
    fetch(MODEL, folder, endpoint=hub.address)
    hub.files[OLDER] = {"config.json": b"{}", "pytorch_model.bin": b"as pickle"}
    with pytest.raises(
        ModelError, match=r"holds model\.safetensors, which is not part of .*; give an empty folder"
    ):
        fetch(MODEL, folder, revision="v1", endpoint=hub.address)
    assert locate(str(folder)).revision is None


def test_fetch_explains_an_unreachable_hub(hub, tmp_path):
    hub.refusal = (503, "Maintenance")
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        fetch(MODEL, tmp_path, endpoint=hub.address)


def test_fetch_keeps_what_a_folder_says_where_the_hub_cannot_be_reached(hub, tmp_path):
    folder = tmp_path / "model"
    fetch(MODEL, folder, endpoint=hub.address)
    hub.refusal = (503, "Maintenance")
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        fetch(MODEL, folder, endpoint=hub.address)
    assert (locate(str(folder)).id, locate(str(folder)).revision) == (MODEL, MAIN)


def test_a_folder_says_nothing_while_another_commit_comes_in(hub, tmp_path):
    folder = tmp_path / "model"
    fetch(MODEL, folder, endpoint=hub.address)
    hub.files[OLDER] = {"config.json": b"{}", WEIGHTS: b"other" * 50_000}
    hub.cut_after = {WEIGHTS: 50_000}
    with pytest.raises(ModelError, match="the download was interrupted"):
        fetch(MODEL, folder, revision="v1", endpoint=hub.address)
    said = json.loads((folder / "nucpro_source.json").read_text())
    assert (said["id"], said["revision"]) == (None, None)


def test_a_byte_flipped_on_the_way_is_fetched_again(hub, find, tmp_path, saved):
    hub.flips = {WEIGHTS: 1, "config.json": 1}
    assert fetch(MODEL, tmp_path / "model", endpoint=hub.address).digest() == digest_of(saved[WEIGHTS])
    assert sorted(hub.served) == ["config.json", "config.json", WEIGHTS, WEIGHTS, "vocab.txt"]
    hub.flips = {WEIGHTS: 1}
    assert find().digest() == digest_of(saved[WEIGHTS])


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_damaged_bytes_never_get_a_name(hub, find, tmp_path, name):
    hub.flips = {name: 10}
    reason = "the SHA-256 is" if name == WEIGHTS else "the git blob id is"
    with pytest.raises(ModelError, match=f"the download was interrupted .*{name}: not downloaded.*{reason}"):
        fetch(MODEL, tmp_path / "model", endpoint=hub.address)
    assert name not in {file.name for file in (tmp_path / "model").iterdir()}
    assert not list((tmp_path / "model").glob(".*.part"))
    with pytest.raises(ModelError, match="the download was interrupted"):
        find()
    assert not any(path.name == name for path in (tmp_path / "cache").rglob("*"))
    hub.flips = {}
    assert fetch(MODEL, tmp_path / "model", endpoint=hub.address).digest() == find().digest()


def test_a_damaged_file_of_a_folder_is_fetched_again(hub, tmp_path, saved):
    folder = tmp_path / "model"
    fetch(MODEL, folder, endpoint=hub.address)
    (folder / "config.json").write_bytes(saved["config.json"].replace(b"1", b"2"))
    with pytest.raises(ModelError, match=r"config\.json: is not the file that was fetched"):
        locate(str(folder))
    hub.served.clear()
    fetch(MODEL, folder, endpoint=hub.address)
    assert hub.served == ["config.json"]


def test_damaged_weights_are_found_when_their_digest_is_taken(hub, find, tmp_path, saved):
    fetch(MODEL, tmp_path / "model", endpoint=hub.address)
    damaged = saved[WEIGHTS][:-1] + b"x"
    (tmp_path / "model" / WEIGHTS).write_bytes(damaged)
    with pytest.raises(ModelError, match=f"{WEIGHTS}: is not the file that was fetched"):
        locate(str(tmp_path / "model")).digest()
    find().weights[0].resolve().write_bytes(damaged)
    with pytest.raises(ModelError, match=r"is damaged .*; remove .*/blobs/.*, then run again"):
        find(offline=True).digest()
    # With the hub at hand, a small damaged file is fetched again.
    assert find().digest() == digest_of(saved[WEIGHTS])


def test_files_of_another_commit_are_not_taken_for_those_of_this_one(hub, tmp_path):
    folder = tmp_path / "model"
    fetch(MODEL, folder, endpoint=hub.address)
    hub.files[OLDER] = hub.files[MAIN] | {WEIGHTS: hub.files[MAIN][WEIGHTS][::-1]}
    fetched = fetch(MODEL, folder, revision="v1", endpoint=hub.address)
    assert (fetched.revision, fetched.digest()) == (OLDER, digest_of(hub.files[OLDER][WEIGHTS]))


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://127.0.0.1/weights", "http://[", "gopher://x"]
)
def test_redirects_to_other_schemes_are_refused(hub, tmp_path, address):
    hub.redirects = {WEIGHTS: address}
    with pytest.raises(ModelError, match="the download was interrupted"):
        fetch(MODEL, tmp_path / "model", endpoint=hub.address)
    assert hub.served.count(WEIGHTS) == 1
    assert not (tmp_path / "model" / WEIGHTS).exists()


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"sha": 1, "siblings": []}',
        b'{"siblings": []}',
        b'{"sha": "%s", "siblings": {"a": 1}}',
        b'{"sha": "%s", "siblings": [{"rfilename": 7}]}',
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "size": true}]}',
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "size": -1}]}',
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "size": 1e999}]}',
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "size": ' + b"9" * 5000 + b"}]}",
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "lfs": 3}]}',
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "lfs": {"size": 3, "sha256": "../../x"}}]}',
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "blobId": ["a"]}]}',
        b'{"sha": "%s", "siblings": [7]}',
    ],
)
def test_what_is_no_listing_of_a_hub_is_refused(hub, find, tmp_path, answer):
    hub.listing = answer.replace(b"%s", MAIN.encode())
    with pytest.raises(ModelError, match=r"is not the listing of a hub .*; check the endpoint"):
        find()
    with pytest.raises(ModelError, match="is not the listing of a hub"):
        fetch(MODEL, tmp_path / "model", endpoint=hub.address)
    assert not (tmp_path / "model").exists()


def test_endpoints_of_other_schemes_are_refused(tmp_path):
    with pytest.raises(UsageError, match="endpoint 'file:///etc' is not allowed"):
        fetch(MODEL, tmp_path / "model", endpoint="file:///etc")


def test_a_disk_without_room_is_found_before_the_first_byte(hub, tmp_path):
    large = {"rfilename": WEIGHTS, "lfs": {"size": 1 << 49, "sha256": "a" * 64}}
    hub.listing = json.dumps({"sha": MAIN, "siblings": [{"rfilename": "config.json"}, large]}).encode()
    with pytest.raises(
        ModelError, match=f"{human_size(1 << 49)} to download, the disk has .* free space there"
    ):
        fetch(MODEL, tmp_path / "model", endpoint=hub.address)
    assert hub.served == []


def test_two_runs_on_one_folder_are_refused(hub, tmp_path):
    (tmp_path / "model").mkdir()
    with hold(tmp_path / "model" / ".fetch.lock"), pytest.raises(LockedError):
        fetch(MODEL, tmp_path / "model", endpoint=hub.address)


def test_fetch_into_a_file_is_refused_before_the_hub_is_asked(hub, tmp_path):
    file = tmp_path / "model"
    file.write_text("mine")
    hub.refusal = (503, "Maintenance")
    with pytest.raises(PreflightError, match="model: is a file, not a folder; name a folder for the model"):
        fetch(MODEL, file, endpoint=hub.address)
    assert file.read_text() == "mine"


def test_fetch_into_a_folder_that_cannot_be_made_is_explained(hub, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        PreflightError, match="file: cannot be written: File exists; a file has the folder's name"
    ):
        fetch(MODEL, tmp_path / "file" / "model", endpoint=hub.address)
    assert hub.served == []


def test_fetching_replaces_only_what_was_fetched(hub, saved, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"mine")
    with pytest.raises(
        PreflightError, match=f"{WEIGHTS}: exists, and there is no record that this command wrote it"
    ):
        fetch(MODEL, folder, endpoint=hub.address)
    assert (folder / WEIGHTS).read_bytes() == b"mine"
    fetch(MODEL, folder, endpoint=hub.address, replace=True)
    assert (folder / WEIGHTS).read_bytes() == saved[WEIGHTS]
    record = folder / "nucpro_source.json"
    earlier = json.dumps({"id": MODEL, "revision": MAIN})
    for text in (record.read_text(), earlier):
        record.write_text(text)
        (folder / WEIGHTS).write_bytes(b"damaged")
        assert fetch(MODEL, folder, endpoint=hub.address).digest() == digest_of(saved[WEIGHTS])
