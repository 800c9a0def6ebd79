"""A hub of models on the loopback interface, with faults on order.

``Hub`` answers as the Hugging Face hub does for one model: its listing, and its files by commit.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
        self.flips = {}
        """How many of the next answers for a file have one bit flipped, by name."""
        self.redirects = {}
        self.listing = None
        """Answer of the API in place of the listing, as bytes."""
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
        if hub.listing is not None:
            return self.send(hub.listing, "x", commit)
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
        if name in hub.redirects:
            return self.refuse(302, "", Location=hub.redirects[name])
        if hub.flips.get(name):
            hub.flips[name] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self.send(content, hashlib.sha256(content).hexdigest(), commit, hub.cut_after.get(name))

    @staticmethod
    def sibling(name, content):
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry = {"rfilename": name, "size": len(content), "blobId": blob}
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

    def refuse(self, status, code, **headers):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
