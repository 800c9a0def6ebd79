"""One run at a time on a data folder.

The lock is an ``flock`` that the system releases when its process ends, however it ends, so there are no
stale locks to break. The file names its holder. Linux passes these locks to the server of an NFS mount; on a
file system without locks, the run refuses to start with that reason.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO, FileIO
from pathlib import Path

from nucpro.errors import LockedError, NucproError, PreflightError
from nucpro.formats.opening import look_at_kept, open_kept

__all__ = ["hold", "holder", "state"]

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_INSTANT = 0.1
_START = b'{"process": '
_LONGEST = 4096
"""Largest lock file in bytes."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a lock file within a ``with`` block.

    A block that is refused leaves no lock file where there was none.

    Raises
    ------
    LockedError
        Another process holds it; the message names its number and host.
    PreflightError
        The folder cannot be written, or its file system cannot lock.
    """
    is_new = not os.path.lexists(path)
    with _taken(path) as file:
        descriptor = file.fileno()
        _require_lock(descriptor, path)
        _tell(descriptor, json.dumps({"process": os.getpid(), "host": os.uname().nodename}))
        try:
            yield
        except NucproError:
            if is_new:
                with suppress(OSError):
                    path.unlink()
            raise
        _tell(descriptor, "")


def _taken(path: Path) -> FileIO:
    """Open a lock file and lock it; a file that its holder has since removed locks nothing."""
    with ExitStack() as unless_taken:
        file = unless_taken.enter_context(
            open_kept(path, lambda problem: PreflightError([problem]), append=False)
        )
        _take(file.fileno(), path)
        # Not by its number of links: a file system may keep a removed file under another name (NFS).
        with suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), os.fstat(file.fileno())):
                unless_taken.pop_all()
                return file
    if not path.parent.is_dir():
        raise LockedError([f"{path.parent}: another run finished there just now; run again"])
    return _taken(path)


def _require_lock(descriptor: int, path: Path) -> None:
    """Refuse a file that is not a lock file: it would be overwritten."""
    content = os.pread(descriptor, _LONGEST, 0).strip(b"\0")  # a loss of power leaves zeros
    if not (content.startswith(_START) or _START.startswith(content)):
        raise PreflightError(
            [f"{path}: is not a lock file of nucpro, so it is left unchanged; move it away, then run again"]
        )


def _tell(descriptor: int, text: str) -> None:
    # Only for messages: on a full disk the lock is still held, but its holder is not recorded.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _take(descriptor: int, path: Path) -> None:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A status query holds the lock for an instant; a run holds it for longer.
            time.sleep(_INSTANT)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise LockedError(
                [f"{path.parent}: in use by {holder(path)}; wait until it ends, or stop it"]
            ) from error
        raise PreflightError(
            [
                f"{path}: this file system cannot lock files ({error.strerror}); mount it with locks "
                "(NFS: without 'nolock'), or move the data folder to another file system"
            ]
        ) from error


def holder(path: Path) -> str:
    """Last writer of the lock file: process and host."""
    try:
        with look_at_kept(path) or BytesIO() as file:
            content = json.loads(file.read(_LONGEST))
        return f"process {int(content['process'])} on host {content['host']}"
    except (OSError, NucproError, ValueError, KeyError, TypeError):
        return "another process"


def state(path: Path) -> str:
    """Whether a run holds a lock file now, and which; takes the lock only for an instant, and writes nothing."""
    try:
        file = look_at_kept(path)
    except NucproError as error:
        return f"unknown ({error})"
    if file is None:
        return "none"
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return f"at work, {holder(path)}" if error.errno in _TAKEN else f"unknown ({error.strerror})"
    return "none"
