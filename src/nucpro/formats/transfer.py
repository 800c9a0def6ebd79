"""Download of one file over HTTP: resumed if the connection breaks, verified, then renamed to its final name.

Bytes go to a hidden ``.NAME.part`` in the same folder, which a later run resumes. A file with the listed
digest and size is renamed atomically; any other is removed. No answer of a server can make a request endless:
sizes, slow transfers, redirects and attempts are bounded.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import socket
import ssl
import stat
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from nucpro.errors import DataError, StoreError, reason_of, shortened
from nucpro.formats.atomic import sync_folder
from nucpro.formats.opening import open_input, open_kept, write_all

__all__ = ["AnswerError", "Connection", "Expected", "StoppedError", "part_of"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Advance = Callable[[int], None]
"""Called with the number of bytes received; negative if bytes were discarded."""

_BLOCK = 1 << 20
_LONGEST_WAIT_S = 60.0
_LONGEST_CONNECT_S = 10.0
_SLOWEST = 100
"""Bytes per second below which a connection counts as broken."""
_LARGEST_FILE = 1 << 34
"""Limit in bytes for files of unknown size; the largest of RefSeq and of the models have a tenth of that."""
_SCHEMES = ("http", "https")
# Answers that may be different a moment later; all other errors are final.
_PASSING = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_ABSENT = frozenset({404, 410})
# Longer numbers are not sizes, and Python refuses to parse thousands of digits.
_NUMBER = re.compile(r"[0-9]{1,19}")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-[0-9]{1,19}|\*)/([0-9]{1,19}|\*)")
_ALGORITHMS = {"MD5 sum": "md5", "SHA-256": "sha256", "git blob id": "sha1"}


class StoppedError(Exception):
    """Another file failed, so this one was cancelled."""


class AnswerError(DataError):
    """The server answered without the requested content.

    Parameters
    ----------
    message : str
        The message.
    status : int
        Of the answer.
    headers : mapping
        Those of the answer.
    """

    def __init__(self, message: str, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        super().__init__(message)


class _NoSuchRangeError(Exception):
    """The server has no bytes beyond those already received."""


class _BrokenError(Exception):
    """An attempt that ended early; the next one can resume."""


class _WrongPartError(_BrokenError):
    """An attempt that showed that the bytes received so far are unusable."""


@dataclass(frozen=True)
class Expected:
    """Size and digest of a file according to a listing.

    Parameters
    ----------
    origin : str
        Who lists it, for messages: ``the release``.
    size : int or None
        Bytes; None if unknown.
    digest : str or None
        In hexadecimal; None if only the size is known.
    algorithm : {"MD5 sum", "SHA-256", "git blob id"}
        Of the digest; git's id of a blob is the SHA-1 of its kind, size and bytes.
    """

    origin: str
    size: int | None
    digest: str | None
    algorithm: str = "SHA-256"

    def problem_of(self, path: Path) -> str | None:
        """What is wrong with a file on disk; None if it matches the listing.

        Raises
        ------
        StoreError
            It cannot be read.
        OSError
            The disk failed.
        """
        with BufferedReader(open_input(path, StoreError)) as file:
            size = os.fstat(file.fileno()).st_size
            if self.size not in (None, size):
                return f"it has {size} bytes, expected {self.size}"
            actual = self._digest_of(file, size)
        if self.digest is None or actual == self.digest:
            return None
        return f"the {self.algorithm} is {actual} where {self.origin} lists {self.digest}"

    def _digest_of(self, file: BufferedReader[FileIO], size: int) -> str:
        start = f"blob {size}\0".encode() if self.algorithm == "git blob id" else b""
        # Neither protects against attackers; RefSeq and git list MD5 and SHA-1.
        name = _ALGORITHMS[self.algorithm]
        return hashlib.file_digest(file, lambda: hashlib.new(name, start, usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class Connection:
    """How to ask a server.

    Parameters
    ----------
    attempts : int
        Requests without progress before a file counts as failed.
    wait_s : float
        Seconds before the second request; each further wait is twice as long.
    timeout_s : float
        Seconds almost without data after which a connection counts as broken.
    headers : mapping
        Sent only to the server itself, not to hosts that it redirects to.
    """

    attempts: int
    wait_s: float
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _answered: threading.Event = field(default_factory=threading.Event)
    _sockets: weakref.WeakSet[socket.socket] = field(default_factory=weakref.WeakSet)

    def give_up(self) -> None:
        """Cancel all requests of other threads."""
        self._stop.set()
        for open_socket in list(self._sockets):
            _shut(open_socket)

    def text(self, url: str, largest: int) -> str:
        """Fetch a text of at most `largest` bytes.

        Raises
        ------
        DataError
            The server does not send it, or it is larger.
        """
        return self._persist(url, lambda: self._text(url, largest), lambda: 0)

    def size(self, url: str) -> int | None:
        """Ask for the size of a file in bytes; None if the server does not report it.

        Servers and proxies may refuse HEAD requests but still send the file.

        Raises
        ------
        DataError
            The server does not have it.
        """
        try:
            with self.open(url, "HEAD") as response:
                return _number(response.headers["Content-Length"])
        except (_BrokenError, AnswerError) as error:
            if isinstance(error, AnswerError) and error.status in _ABSENT:
                raise
            logger.info("%s: its size is not known (%s)", url, error)
            return None

    def fetch(self, url: str, path: Path, expected: Expected, advance: Advance) -> None:
        """Fetch a file, resuming an earlier attempt or run.

        Parameters
        ----------
        url : str
            Address of the file.
        path : Path
            Final name; a file of that name is replaced when the new one is complete.
        expected : Expected
            Its expected size and digest.
        advance : callable
            Called with the number of bytes received.

        Raises
        ------
        DataError
            The server does not send the file, or sends another one each time.
        StoppedError
            :meth:`give_up` was called.
        """
        transfer = _Transfer(self, url, part_of(path), expected, advance)
        advance(transfer.size())
        self._persist(url, transfer.attempt, transfer.size)
        transfer.commit(path)

    def _persist(self, url: str, attempt: Callable[[], Result], size: Callable[[], int]) -> Result:
        """Retry until the file is complete, or until the allowed number of attempts made no progress."""
        failed, furthest = 0, size()
        while True:
            try:
                return attempt()
            except _BrokenError as error:
                reason = str(error)
            if self._stop.is_set():
                raise StoppedError(url)
            # One byte per attempt is no progress: a large file would take forever.
            failed = 0 if size() >= furthest + _BLOCK else failed + 1
            furthest = max(furthest, size())
            logger.warning("%s: attempt %d of %d failed: %s", url, failed or 1, self.attempts, reason)
            if failed >= self.attempts:
                break
            if self._stop.wait(min(self.wait_s * 2 ** max(failed - 1, 0), _LONGEST_WAIT_S)):
                raise StoppedError(url)
        kept = ": the partial download is kept" if size() else ""
        raise DataError(
            f"{url}: not downloaded after {failed} attempts, the last one failed with: {reason}; "
            f"check the network, then run again{kept}"
        )

    def _text(self, url: str, largest: int) -> str:
        content = bytearray()
        with self.open(url) as response:
            if response.status != http.client.OK:
                raise _BrokenError(f"HTTP {response.status}, which is not the whole of it")
            if encoding := _encoding(response):
                raise DataError(
                    f"{url}: comes in the encoding {encoding}, though none was asked for; use another server"
                )
            for block in self.blocks(response):
                content += block
                if len(content) > largest:
                    raise DataError(f"{url}: has more than {largest} bytes; check the address of the server")
            _require_all(len(content), _number(response.headers["Content-Length"]))
        return content.decode("utf-8", "replace")

    def blocks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """Yield bytes as they arrive; a connection that is too slow counts as broken."""
        began, received = time.monotonic(), 0
        while block := response.read1(_BLOCK):
            yield block
            if self._stop.is_set():
                raise StoppedError(response.url)
            received += len(block)
            if (passed := time.monotonic() - began) > self.timeout_s:
                if received < _SLOWEST * passed:
                    raise _BrokenError(f"only {received} bytes arrived within {passed:.0f} s")
                began, received = time.monotonic(), 0

    @contextmanager
    def open(self, url: str, method: str = "GET", offset: int = 0) -> Iterator[http.client.HTTPResponse]:
        """Send a request and return the answer; errors differ by whether a retry may help."""
        ranges = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            # No other scheme than http and https can be opened.
            request = urllib.request.Request(  # noqa: S310
                url, headers={"Accept-Encoding": "identity", **ranges}, method=method
            )
            for name, value in self.headers.items():
                request.add_unredirected_header(name, value)
            with self._opener.open(request, timeout=self.timeout_s) as response:
                self._answered.set()
                yield response
        except urllib.error.HTTPError as error:
            self._answered.set()
            raise _explained(url, error, offset) from error
        except urllib.error.URLError as error:
            raise self._not_reached(url, error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(reason_of(error)) from error
        except ValueError as error:
            raise DataError(
                f"{url}: the server's answer cannot be understood ({reason_of(error)}); check the address of the server"
            ) from error

    def _not_reached(self, url: str, error: urllib.error.URLError) -> Exception:
        """Error for a connection that failed; without a network, waiting does not help."""
        reason = error.reason
        said = str(reason) or type(reason).__name__
        if isinstance(reason, ssl.SSLCertVerificationError):
            remedy = "install the certificates of your system or proxy (SSL_CERT_FILE), and check its clock"
            return DataError(f"{url}: the server's certificate is not trusted ({said}); {remedy}")
        if self._answered.is_set():
            return _BrokenError(said)
        if isinstance(reason, socket.gaierror):
            said = f"its name is not resolved: {reason.strerror}"
        return DataError(
            f"{url}: the server cannot be reached ({said}); check the network, the proxy settings and the address"
        )

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(self._answered),
            _Handler(self._sockets),
        ):
            opener.add_handler(handler)
        return opener


@dataclass(frozen=True)
class _Transfer:
    """One file on its way to the disk."""

    connection: Connection
    url: str
    part: Path
    expected: Expected
    advance: Advance

    def size(self) -> int:
        """Bytes already received; anything but a regular file is removed."""
        try:
            found = self.part.lstat()
        except FileNotFoundError:
            return 0
        if not stat.S_ISREG(found.st_mode):
            with _writing(self.part):
                self.part.unlink()
            return 0
        return found.st_size

    def attempt(self) -> None:
        """Fetch the missing bytes, and verify the file."""
        try:
            encoding = self._receive()
        except _NoSuchRangeError:
            # Nothing is left to request: the part is complete, or its digest will show that it is wrong.
            logger.info("%s: the server has nothing after byte %d", self.url, self.size())
            encoding = None
        except _WrongPartError:
            self._throw_away()
            raise
        if problem := self.expected.problem_of(self.part):
            self._throw_away()
            why = f" (it came in the encoding {encoding}, though none was asked for)" if encoding else ""
            raise _BrokenError(f"{problem}{why}; the bytes were discarded")

    def _receive(self) -> str | None:
        offset, size = self.size(), self.expected.size
        if offset and size is not None and offset >= size:
            # Complete or wrong; the digest decides.
            return None
        with self.connection.open(self.url, "GET", offset) as response:
            start, total = _extent(response, offset)
            if size is not None and total not in (None, size):
                raise _WrongPartError(f"the server sends {total} bytes, expected {size}")
            announced = size if total is None else total
            self._write(response, start, offset, self._largest() if announced is None else announced)
            _require_all(self.size(), announced)
            return _encoding(response)

    def _largest(self) -> int:
        """Limit in bytes for a file of unknown size: an endless answer must not fill the disk."""
        return min(_LARGEST_FILE, shutil.disk_usage(self.part.parent).free // 2)

    def _write(self, response: http.client.HTTPResponse, start: int, offset: int, largest: int) -> None:
        with open_kept(self.part, append=False) as file:
            with _writing(self.part):
                file.truncate(start)
                file.seek(start)
            self.advance(start - offset)
            for block in self.connection.blocks(response):
                start += len(block)
                self.advance(len(block))
                if start > largest:
                    raise _WrongPartError(
                        f"more than the {largest} bytes of the file were received; they were discarded"
                    )
                with _writing(self.part):
                    write_all(file, block)
            with _writing(self.part):
                os.fsync(file.fileno())

    def commit(self, path: Path) -> None:
        """Sync the part to disk (also bytes of an earlier killed run) and give it its final name."""
        with _writing(self.part):
            with self.part.open("rb") as file:
                os.fsync(file.fileno())
            self.part.replace(path)
        sync_folder(path.parent)

    def _throw_away(self) -> None:
        self.advance(-self.size())
        self.part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Name of a file that is still being downloaded."""
    return path.with_name(f".{path.name}.part")


class _Response(http.client.HTTPResponse):
    """Answer whose complete header must arrive within the timeout, not only each byte of it."""

    def __init__(self, open_socket: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(open_socket, *arguments, **options)
        self._open_socket = open_socket

    def begin(self) -> None:
        timer = threading.Timer(self._open_socket.gettimeout() or 0, _shut, [self._open_socket])
        timer.daemon = True
        timer.start()
        try:
            super().begin()
        finally:
            timer.cancel()


class _Patient(http.client.HTTPConnection):
    """Connection with a shorter timeout for connecting, which another thread can close."""

    response_class = _Response
    sockets: weakref.WeakSet[socket.socket]

    def connect(self) -> None:
        timeout = self.timeout
        self.timeout = min(_LONGEST_CONNECT_S, timeout or _LONGEST_CONNECT_S)
        super().connect()
        self.timeout = timeout
        self.sock.settimeout(timeout)
        self.sockets.add(self.sock)


class _PatientTls(_Patient, http.client.HTTPSConnection):
    pass


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https, and tracks the open sockets."""

    def __init__(self, sockets: weakref.WeakSet[socket.socket]) -> None:
        super().__init__()
        self._plain: type[_Patient] = type("_Plain", (_Patient,), {"sockets": sockets})
        self._tls: type[_PatientTls] = type("_Tls", (_PatientTls,), {"sockets": sockets})
        self._context = ssl.create_default_context()

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._plain, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._tls, request, context=self._context)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, never from https to http, and logs other hosts."""

    def __init__(self, answered: threading.Event) -> None:
        self._answered = answered

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Follow a redirect; an answer whose address cannot be understood is closed too."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self._answered.set()
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in _SCHEMES or (before.scheme == "https" and after.scheme == "http"):
            problem = f"{msg}: redirects to {shortened(newurl, 200)!r}, which is not allowed"
            raise urllib.error.HTTPError(req.full_url, code, problem, headers, fp)
        if before.netloc != after.netloc:
            logger.info("%s: redirected to the host %s", req.full_url, after.netloc)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _shut(open_socket: socket.socket) -> None:
    with suppress(OSError):
        # shutdown() of TLS sockets would stop decryption first and pass encrypted bytes to the reader.
        socket.socket.shutdown(open_socket, socket.SHUT_RDWR)


def _explained(url: str, error: urllib.error.HTTPError, offset: int) -> Exception:
    error.close()
    if offset and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _NoSuchRangeError(url)
    if error.code in _PASSING:
        return _BrokenError(f"HTTP {error.code} {error.reason}")
    # Libraries write several lines for a redirect to nowhere.
    reason = " ".join(str(error.reason).split())[:300]
    message = f"{url}: the server answers HTTP {error.code} {reason}; check the address of the server"
    return AnswerError(message, error.code, dict(error.headers or {}))


def _extent(response: http.client.HTTPResponse, offset: int) -> tuple[int, int | None]:
    """Position at which the answer starts, and the size of the whole file if the server reports it."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0, _number(response.headers["Content-Length"])
    said = response.headers["Content-Range"]
    match = _CONTENT_RANGE.fullmatch(said or "")
    if not match or match[1] is None or int(match[1]) > offset:
        # The next attempt asks for the whole file.
        raise _WrongPartError(f"asked for bytes from {offset} on, the server answers {(said or '')[:100]!r}")
    return int(match[1]), _number(match[2])


def _number(text: str | None) -> int | None:
    return int(text) if text and _NUMBER.fullmatch(text) else None


def _encoding(response: http.client.HTTPResponse) -> str | None:
    encoding = str(response.headers["Content-Encoding"] or "").strip().lower()
    return encoding[:40] if encoding not in ("", "identity") else None


def _require_all(received: int, total: int | None) -> None:
    if total is not None and received != total:
        raise _BrokenError(f"the connection ended after {received} of {total} bytes")


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """Distinguish a full disk from a broken connection."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{part}: cannot be written: {error.strerror}; free space on that disk or get permission to write "
            "there, then run again: the partial download is kept"
        ) from error
