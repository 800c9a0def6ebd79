"""A RefSeq release on the loopback interface, with faults on order.

``ReleaseServer`` serves a folder's files as NCBI does, Range requests included. ``fault(name, *faults)`` makes
the next answers for a file go wrong, one fault an answer.
"""

from __future__ import annotations

import gzip
import hashlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from serving import served

BREAK = "the connection ends half-way"
SHORT = "a Content-Length smaller than the file"
LONG = "a Content-Length larger than the file"
ERROR = "HTTP 503"
GARBAGE = "other bytes of the same length"
GONE = "HTTP 404, though the file was announced"
STALL = "no byte and no end"
WHOLE = "the whole file where a range was asked for"
ELSEWHERE = "another range than the one asked for"
RESET = "the connection is reset half-way"
FLIP = "one bit is another"
OTHER = "another file, of another size"
CUT = "an end without a Content-Length, half-way"
ENDLESS = "no Content-Length, and no end"
DRIP = "a byte now and then"
DRIP_HEAD = "a head that comes a byte now and then"
UNSATISFIABLE = "HTTP 416, whatever was asked for"
UNASKED = "HTTP 206 for what was asked for whole"
ODD_RANGE = "a Content-Range of 5,000 digits"
ODD_LENGTH = "a Content-Length of 5,000 digits"
PACKED = "Content-Encoding: gzip, and packed once more"
MARKED = "Content-Encoding: gzip, and the file as it is"
NO_HTTP = "no HTTP at all"
REDIRECTS = {
    "a redirect to a file": "file:///etc/passwd",
    "a redirect to FTP": "ftp://127.0.0.1/viral",
    "a redirect to nowhere": "http://[",
    "a redirect to itself": "",
}
WRONG = (
    RESET,
    FLIP,
    OTHER,
    CUT,
    ENDLESS,
    DRIP,
    DRIP_HEAD,
    UNSATISFIABLE,
    UNASKED,
    ODD_RANGE,
    ODD_LENGTH,
    PACKED,
    NO_HTTP,
)
"""Faults that another try may overcome."""


class ReleaseServer:
    """Serve genome files as one release.

    Parameters
    ----------
    genomes : Path
        Folder with the files.
    names : list of str
        Those that belong to the release.
    release : int
        Its number.
    """

    def __init__(self, genomes: Path, names: list[str], release: int = 231) -> None:
        self.files = {
            f"/refseq/release/{name.partition('.')[0]}/{name}": (genomes / name).read_bytes()
            for name in names
        }
        self.requests: list[tuple[str, str, str | None]] = []
        self.faults: dict[str, deque[str]] = {}
        self.head_status: int | None = None
        """Answer to every HEAD request in place of the size; 0 hangs up."""
        self.closing = threading.Event()
        self.publish(release)
        handler = type("Handler", (_Handler,), {"release_server": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/refseq/release"

    def publish(self, release: int) -> None:
        """Give the release a number, and list its files."""
        lines = ["MD5 checksum\tFile name"]
        for path, content in self.files.items():
            if path.endswith(".gz"):
                lines.append(f"{hashlib.md5(content).hexdigest()}\t{path.rpartition('/')[2]}")
        lines.append(f"{'0' * 32}\tcomplete.1.protein.faa.gz")
        self.files["/refseq/release/RELEASE_NUMBER"] = f"{release}\n".encode()
        self.files[f"/refseq/release/release-catalog/release{release}.files.installed"] = "\n".join(
            lines
        ).encode()

    def fault(self, name: str, *faults: str) -> None:
        self.faults[name] = deque(faults)

    def gets(self, name: str) -> list[str | None]:
        """Ranges of all GET requests for a file; None for a request without one."""
        return [
            asked for method, path, asked in self.requests if method == "GET" and path.endswith(f"/{name}")
        ]

    def __enter__(self) -> Self:
        self._serving = served(self._server)
        self._serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._serving.__exit__(None, None, None)


class _Handler(BaseHTTPRequestHandler):
    release_server: ReleaseServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._note()
        content = self.release_server.files.get(self.path)
        status = self.release_server.head_status
        if content is None or status is not None:
            if status != 0:
                self.send_error(404 if content is None else status or 404)
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def do_GET(self) -> None:
        # Clients hang up on what they do not want.
        with suppress(ConnectionError):
            self._get()

    def _get(self) -> None:
        self._note()
        content = self.release_server.files.get(self.path)
        fault = self._next_fault()
        if fault == STALL:
            self.release_server.closing.wait()
            return
        if content is None or fault in (ERROR, GONE):
            self.send_error(503 if fault == ERROR else 404)
            return
        start = self._start(fault)
        if start >= len(content) > 0 and fault not in _ANSWERS:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[fault] or self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault in _ANSWERS:
            _ANSWERS[fault](self, content, start)
            self.close_connection = True
        else:
            body = bytes(byte ^ 1 for byte in content) if fault == GARBAGE else content
            self._send(body, start, fault)

    def _send(self, body: bytes, start: int, fault: str | None) -> None:
        part = body[start:]
        length = {SHORT: len(part) // 2, LONG: len(part) + 1000}.get(str(fault), len(part))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if fault == BREAK else part[:length])
        self.close_connection = True

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        for byte in data:
            if self.release_server.closing.wait(0.02):
                break
            self.wfile.write(bytes([byte]))

    def reset(self, content: bytes) -> None:
        self.answer(200, content[: len(content) // 2], Content_Length=str(len(content)))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def endless(self) -> None:
        self.answer(200, b"")
        while not self.release_server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def dripping(self, content: bytes) -> None:
        self.answer(200, b"", Content_Length=str(len(content)))
        self.drip(content)

    def _start(self, fault: str | None) -> int:
        asked = self.headers["Range"]
        if asked is None or fault == WHOLE:
            return 0
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        return start + 10 if fault == ELSEWHERE else start

    def _next_fault(self) -> str | None:
        waiting = self.release_server.faults.get(self.path.rpartition("/")[2])
        return waiting.popleft() if waiting else None

    def _note(self) -> None:
        self.release_server.requests.append((self.command, self.path, self.headers["Range"]))


_Answer = Callable[[_Handler, bytes, int], None]
_ANSWERS: dict[str | None, _Answer] = {
    RESET: lambda handler, content, _: handler.reset(content),
    FLIP: lambda handler, content, _: handler.answer(200, content[:-1] + bytes([content[-1] ^ 1])),
    OTHER: lambda handler, content, _: handler.answer(
        200, content + b"more", Content_Length=str(len(content) + 4)
    ),
    CUT: lambda handler, content, _: handler.answer(200, content[: len(content) // 2]),
    ENDLESS: lambda handler, *_: handler.endless(),
    DRIP: lambda handler, content, _: handler.dripping(content),
    DRIP_HEAD: lambda handler, *_: handler.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Header: x\r\n" * 1000),
    UNSATISFIABLE: lambda handler, *_: handler.answer(416, b"", Content_Length="0"),
    UNASKED: lambda handler, content, _: handler.answer(
        206, content[100:], Content_Range="bytes 100-200/300"
    ),
    ODD_RANGE: lambda handler, content, start: handler.answer(
        206, content[start:], Content_Range=f"bytes {start}-{'9' * 5000}/{'9' * 5000}"
    ),
    ODD_LENGTH: lambda handler, content, _: handler.answer(200, content[:100], Content_Length="9" * 5000),
    PACKED: lambda handler, content, _: handler.answer(200, gzip.compress(content), Content_Encoding="gzip"),
    MARKED: lambda handler, content, _: handler.answer(200, content, Content_Encoding="gzip"),
    NO_HTTP: lambda handler, *_: handler.drip(b"SSH-2.0-OpenSSH_9.6\r\n"),
}
