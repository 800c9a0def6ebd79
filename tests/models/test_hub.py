"""Downloads, against a small server on loopback that answers like the hub."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import random_esm
from nucpro.errors import ModelError
from nucpro.models.esm2 import load_esm2
from nucpro.models.weights import available, fetch, locate

MODEL = "someone/tiny-esm2"
WEIGHTS = "model.safetensors"
MAIN = "1" * 40
OLDER = "2" * 40


class Hub(ThreadingHTTPServer):
    """Revisions of one model, and what is to go wrong."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.revisions = {"main": MAIN, MAIN: MAIN, "v1": OLDER, OLDER: OLDER}
        self.files = {}
        self.cut_after = {}
        self.refusal = None
        self.served = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server
        parts = self.path.split("?")[0].strip("/").split("/")
        if hub.refusal:
            return self.refuse(*hub.refusal)
        if parts[:2] == ["api", "models"]:
            return self.answer_api("/".join(parts[2:4]), *parts[4:])
        return self.answer_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def answer_api(self, model, kind, revision):
        hub = self.server
        if model != MODEL:
            return self.refuse(404, "RepoNotFound")
        if revision not in hub.revisions:
            return self.refuse(404, "RevisionNotFound")
        commit = hub.revisions[revision]
        files = hub.files[commit]
        if kind == "tree":
            return self.send(
                json.dumps([self.tree_entry(*item) for item in files.items()]).encode(), "x", commit
            )
        siblings = [self.sibling(*item) for item in files.items()]
        info = {
            "id": model,
            "modelId": model,
            "sha": commit,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }
        return self.send(json.dumps(info).encode(), "x", commit)

    def answer_file(self, model, revision, name):
        hub = self.server
        commit = hub.revisions[revision]
        content = hub.files[commit].get(name)
        if model != MODEL or content is None:
            return self.refuse(404, "EntryNotFound")
        if self.command == "GET":
            hub.served.append(name)
        return self.send(content, hashlib.sha256(content).hexdigest(), commit, hub.cut_after.get(name))

    @staticmethod
    def sibling(name, content):
        entry = {"rfilename": name, "size": len(content)}
        if name != WEIGHTS:
            return entry
        digest = hashlib.sha256(content).hexdigest()
        return entry | {"lfs": {"sha256": digest, "size": len(content), "pointerSize": 134}}

    @staticmethod
    def tree_entry(name, content):
        return {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha256(content).hexdigest()[:40],
        }

    def send(self, content, etag, commit, cut_after=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[:cut_after])
        if cut_after is not None:
            self.wfile.flush()
            # Closing without lingering resets the connection, as a router that fails does.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


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
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


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
    assert message.startswith(f"model '{MODEL}' (revision 'main'): the download broke off (")
    assert "nothing half-made is used: try again, finished files are kept" in message
    with pytest.raises(ModelError, match="no weights"):
        find(offline=True)
    hub.cut_after = {}
    assert find().revision == MAIN


def test_the_cache_serves_without_network(hub, find, caplog):
    with pytest.raises(
        ModelError, match=r"is not in the local cache, and downloads are off; .* fetch-models FOLDER"
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
            ModelError, match=r"the hub cannot be reached \(.*, and the model is not in the local cache"
        ):
            locate(MODEL, cache_dir=tmp_path, endpoint=endpoint)


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
    with pytest.raises(ModelError, match="the download broke off"):
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
    with pytest.raises(ModelError, match="the download broke off"):
        fetch(MODEL, folder, revision="v1", endpoint=hub.address)
    assert not (folder / "nucpro_source.json").exists()


def test_files_of_another_commit_are_not_taken_for_those_of_this_one(hub, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    fetch(MODEL, folder, endpoint=hub.address)
    hub.files[OLDER] = hub.files[MAIN] | {WEIGHTS: hub.files[MAIN][WEIGHTS][::-1]}
    # As huggingface_hub does when the hub fails after it has named the commit: what lies there is given back.
    monkeypatch.setattr("nucpro.models.hub.snapshot_download", lambda *_, local_dir, **__: local_dir)
    with pytest.raises(ModelError, match=f"{WEIGHTS}: is not the file of model"):
        fetch(MODEL, folder, revision="v1", endpoint=hub.address)
    assert not (folder / "nucpro_source.json").exists()


def test_fetch_into_a_file_is_refused_before_the_hub_is_asked(hub, tmp_path):
    file = tmp_path / "model"
    file.write_text("mine")
    hub.refusal = (503, "Maintenance")
    with pytest.raises(ModelError) as refused:
        fetch(MODEL, file, endpoint=hub.address)
    assert str(refused.value) == f"{file}: is no folder; name one to put the model into"
    assert file.read_text() == "mine"


def test_fetch_into_a_folder_that_cannot_be_made_is_explained(hub, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match=r"file/model: cannot be written \(Not a directory\); name another"):
        fetch(MODEL, tmp_path / "file" / "model", endpoint=hub.address)
    assert hub.served == []
