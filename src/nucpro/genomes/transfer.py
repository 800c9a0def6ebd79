"""One file over HTTP: fetched in parts where connections break, verified, and only then given its name.

Requests go to an HTTP server; bytes go to a hidden ``.NAME.part`` beside the final name, which a later run
goes on with. What has the MD5 sum of the release gets its name by an atomic rename.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from nucpro.errors import DataError, StoreError
from nucpro.formats import sync_folder

__all__ = ["Connection", "StoppedError", "md5_of", "part_of"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Advance = Callable[[int], None]
"""Told how many bytes came in; a negative number where bytes had to be thrown away."""

_BLOCK = 1 << 20
_LONGEST_WAIT_S = 60.0
_LARGEST_TEXT = 1 << 27
# Answers that may be different a moment later; all other errors are final.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABSENT = frozenset({404, 410})
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class StoppedError(Exception):
    """Another file failed, so this one was given up."""


class _RefusedError(DataError):
    """The server has, or may have, what was asked for, and does not give it."""


class _NoSuchRangeError(Exception):
    """The server has no bytes after those that are there."""


class _BrokenError(Exception):
    """An attempt that ended early; the next one may go on."""


@dataclass(frozen=True)
class Connection:
    """How to ask a server.

    Parameters
    ----------
    attempts : int
        Requests for one file before it counts as failed.
    wait_s : float
        Seconds before the second request; each further wait is twice as long.
    timeout_s : float
        Seconds without a byte after which a connection counts as broken.
    stop : threading.Event
        Set from another thread to give up soon.
    """

    attempts: int
    wait_s: float
    timeout_s: float
    stop: threading.Event = field(default_factory=threading.Event)

    def text(self, url: str) -> str:
        """Fetch a small text.

        Raises
        ------
        DataError
            The server does not give it.
        """
        return self._persist(url, lambda: self._text(url))

    def size(self, url: str) -> int | None:
        """Ask for the size of a file in bytes; None where the server does not tell.

        Servers and proxies may refuse the question (HEAD) and give the file all the same.

        Raises
        ------
        DataError
            The server does not have it.
        """
        try:
            return self._size(url)
        except (_BrokenError, _RefusedError) as error:
            logger.info("%s: its size is not known (%s)", url, error)
            return None

    def fetch(self, url: str, path: Path, md5: str, advance: Advance) -> None:
        """Fetch a file, going on with what an earlier attempt or run left.

        Parameters
        ----------
        url : str
            Address of the file.
        path : Path
            Final name; a file of that name is replaced when the new one is complete.
        md5 : str
            MD5 sum that it must have.
        advance : callable
            Told how many bytes came in.

        Raises
        ------
        DataError
            The server does not give the file, or gives another one each time.
        StoppedError
            :attr:`stop` was set.
        """
        part = part_of(path)
        advance(_size_of(part))
        self._persist(url, lambda: self._fetch(url, part, md5, advance))
        part.replace(path)
        sync_folder(path.parent)

    def _persist(self, url: str, attempt: Callable[[], Result]) -> Result:
        wait_s = self.wait_s
        for number in range(1, self.attempts + 1):
            try:
                return attempt()
            except _BrokenError as error:
                reason = str(error)
            logger.warning("%s: attempt %d of %d failed: %s", url, number, self.attempts, reason)
            if number < self.attempts and self.stop.wait(min(wait_s, _LONGEST_WAIT_S)):
                raise StoppedError(url)
            wait_s *= 2
        raise DataError(
            f"{url}: not fetched after {self.attempts} attempts, the last one failed with: {reason}; "
            "check the network, then run again: what came in is kept"
        )

    def _text(self, url: str) -> str:
        with self._open(url) as response:
            content = response.read(_LARGEST_TEXT)
            _require_all(len(content), response.headers["Content-Length"])
        return content.decode("utf-8", "replace")

    def _size(self, url: str) -> int | None:
        with self._open(url, "HEAD") as response:
            length = response.headers["Content-Length"]
        return int(length) if length and length.isdecimal() else None

    def _fetch(self, url: str, part: Path, md5: str, advance: Advance) -> None:
        try:
            self._receive(url, part, advance)
        except _NoSuchRangeError:
            # Nothing is left to ask for: either the part is complete, or its sum will tell that it is wrong.
            logger.info("%s: the server has nothing after byte %d", url, _size_of(part))
        actual = md5_of(part)
        if actual != md5:
            advance(-_size_of(part))
            part.unlink()
            raise _BrokenError(
                f"the MD5 sum is {actual} where the release lists {md5}; the bytes were thrown away"
            )

    def _receive(self, url: str, part: Path, advance: Advance) -> None:
        offset = _size_of(part)
        with self._open(url, "GET", offset) as response:
            start, total = _extent(response, offset)
            with _writing(part):
                file = part.open("r+b" if offset else "wb")
            with file:
                with _writing(part):
                    file.truncate(start)
                    file.seek(start)
                advance(start - offset)
                while block := response.read1(_BLOCK):
                    with _writing(part):
                        file.write(block)
                        file.flush()
                    advance(len(block))
                    if self.stop.is_set():
                        raise StoppedError(url)
                with _writing(part):
                    os.fsync(file.fileno())
        _require_all(_size_of(part), total)

    @contextmanager
    def _open(self, url: str, method: str = "GET", offset: int = 0) -> Iterator[http.client.HTTPResponse]:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        # The options allow no other scheme than http and https, and redirects do not leave them.
        request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:  # noqa: S310
                yield response
        except urllib.error.HTTPError as error:
            raise _explained(url, error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(str(error) or type(error).__name__) from error


def part_of(path: Path) -> Path:
    """Name of a file that is still coming in."""
    return path.with_name(f".{path.name}.part")


def md5_of(path: Path) -> str:
    """MD5 sum of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _explained(url: str, error: urllib.error.HTTPError) -> Exception:
    error.close()
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _NoSuchRangeError(url)
    if error.code in _PASSING:
        return _BrokenError(f"HTTP {error.code} {error.reason}")
    kind = DataError if error.code in _ABSENT else _RefusedError
    return kind(
        f"{url}: the server answers HTTP {error.code} {error.reason}; check the address of the server"
    )


def _extent(response: http.client.HTTPResponse, offset: int) -> tuple[int, str | None]:
    """Position at which the answer starts, and the size of the whole file as far as the server tells it."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0, response.headers["Content-Length"]
    match = _CONTENT_RANGE.fullmatch(response.headers["Content-Range"] or "")
    if not match or match[1] is None or int(match[1]) > offset:
        raise _BrokenError(
            f"asked for bytes from {offset} on, the server answers {response.headers['Content-Range']!r}"
        )
    return int(match[1]), match[2]


def _require_all(received: int, total: str | None) -> None:
    if total and total.isdecimal() and received != int(total):
        raise _BrokenError(f"the connection ended after {received} of {total} bytes")


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """Tell a full disk from a broken connection."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{part}: cannot be written: {error.strerror}; free space on that disk or get permission to write "
            "there, then run again: what came in is kept"
        ) from error
