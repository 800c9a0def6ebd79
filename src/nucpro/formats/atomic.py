"""Files that are there whole or not at all: written under another name, forced to disk, then renamed.

Bytes come from whoever writes a file of the data folder and go to a temporary file beside the final name.
Whatever stops the writer, a reader finds the previous file or the complete next one under that name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nucpro.errors import StoreError
from nucpro.formats.opening import kind_of

__all__ = [
    "TEMPORARY_MARK",
    "AtomicFile",
    "Written",
    "cannot_write",
    "make_folder",
    "name_problem",
    "remove_temporaries",
    "replace_file",
    "replacing_problems",
    "sync_folder",
    "temporary_start",
    "write_bytes",
    "write_text",
]

TEMPORARY_MARK = ".nucpro-tmp-"
"""Part of the name of every unfinished file; whoever holds the lock may remove files that carry it."""

_LONGEST_NAME = 255
"""Bytes of a name that file systems take."""
_LONGEST_TAG = 20


def temporary_start(name: str) -> str:
    """Start of the names of unfinished files for a final name; what follows tells one of them from another.

    A name that is near the limit of file systems is cut, with a digest in place of the rest.
    """
    room = _LONGEST_NAME - len(f".{TEMPORARY_MARK}") - _LONGEST_TAG
    plain = os.fsencode(name)
    if len(plain) > room:
        digest = hashlib.sha256(plain).hexdigest()[:16]
        name = f"{plain[: room - 17].decode(errors='ignore')}-{digest}"
    return f".{name}{TEMPORARY_MARK}"


def name_problem(path: Path) -> str | None:
    """What to say of a path whose last part is longer than file systems take; None for every other path."""
    size = len(os.fsencode(path.name))
    return f"its name has {size} bytes, a file system takes {_LONGEST_NAME}" if size > _LONGEST_NAME else None


_REMEDIES = {
    errno.ENOSPC: "free space on that disk, then run again",
    errno.EDQUOT: "free space within your quota or have it raised, then run again",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), then run again",
    errno.EACCES: "get permission to write in that folder, then run again",
    errno.EPERM: "get permission to write in that folder, then run again",
    errno.EROFS: "mount that file system for writing, then run again",
    errno.ENOENT: "create the folder first, then run again",
    errno.ENOTDIR: "a part of the path is a file, not a folder: correct it, then run again",
    errno.EEXIST: "a file has the folder's name: move it away, or name another place",
    errno.EISDIR: "a folder has the file's name: move it away, then run again",
    errno.ENAMETOOLONG: "use a shorter name",
}

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of a file that lies complete on disk.

    Parameters
    ----------
    size : int
        Bytes.
    digest : str
        SHA-256 of the bytes, in hexadecimal.
    """

    size: int
    digest: str


class AtomicFile:
    """A file that is being written; :func:`replace_file` gives it its name at the end.

    Parameters
    ----------
    path : Path
        Final name, for errors.
    file : binary file
        The temporary file.
    expected : int or None
        Bytes that will be written, where that is known.

    Attributes
    ----------
    size : int
        Bytes written so far.
    written : Written
        Facts of the complete file, from the end of the ``with`` block on.
    """

    written: Written

    def __init__(self, path: Path, file: BinaryIO, expected: int | None) -> None:
        self.size = 0
        self._path = path
        self._file = file
        self._expected = expected
        self._hash = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data` and give its length in bytes.

        Raises
        ------
        StoreError
            The disk is full, or does not take the bytes for another reason.
        """
        with self._explained():
            self._file.write(data)
        self._hash.update(data)
        length = memoryview(data).nbytes
        self.size += length
        return length

    def _complete(self) -> None:
        """Force the bytes to disk and note the facts of the file."""
        with self._explained():
            self._file.flush()
            os.fsync(self._file.fileno())
        self.written = Written(self.size, self._hash.hexdigest())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._path, error, self.size, self._expected) from error


@contextmanager
def replace_file(path: Path, expected: int | None = None) -> Iterator[AtomicFile]:
    """Write a file that takes its name only when it is complete and on disk.

    The temporary file lies in the same folder and carries `layout.TEMPORARY_MARK` in its name; it is removed
    when the block raises. A symbolic link of that name is replaced, what it points to stays as it is. The
    process's umask decides about permissions.

    Parameters
    ----------
    path : Path
        Final name, in a folder that exists.
    expected : int, optional
        Bytes that will be written, for the message when there is no room for them.

    Yields
    ------
    AtomicFile
        Takes the bytes; after the block its `written` holds the file's facts.

    Raises
    ------
    StoreError
        The folder cannot be written, the disk is full, or the rename failed. The system's error is its cause.
    """
    temporary = path.with_name(f"{temporary_start(path.name)}{secrets.token_hex(8)}")
    try:
        file = temporary.open("xb")
    except OSError as error:
        raise cannot_write(path, error, 0, expected) from error
    try:
        target = AtomicFile(path, file, expected)
        yield target
        target._complete()
        with target._explained():
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        # Closing flushes once more, which fails again on a full disk; the first error is the one to show.
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def replacing_problems(paths: Iterable[Path], is_own: Callable[[Path], bool], *, replace: bool) -> list[str]:
    """Say which files a command would replace though nothing tells that it made them, as pre-flight problems.

    Parameters
    ----------
    paths : iterable of Path
        Files that the command is about to write.
    is_own : callable
        Whether the command made what lies under one of these names; asked only where something does.
    replace : bool
        Replace files of others too, as ``--replace`` says. Folders, pipes and devices are never replaced.
    """
    problems = []
    for path in filter(os.path.lexists, paths):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and not stat.S_ISREG(mode):
            problems.append(f"{path}: is {kind_of(mode)}, which is never replaced; name another place")
        elif not replace and not is_own(path):
            problems.append(
                f"{path}: is there, and nothing says that this command made it; name another place, move it away, or "
                "replace it with --replace"
            )
    return problems


def write_bytes(path: Path, data: bytes | memoryview) -> Written:
    """Write a whole file at once; see :func:`replace_file`."""
    with replace_file(path, memoryview(data).nbytes) as target:
        target.write(data)
    return target.written


def write_text(path: Path, text: str) -> Written:
    """Write a whole text file at once, in UTF-8, line feeds as they are; see :func:`replace_file`."""
    return write_bytes(path, text.encode())


def remove_temporaries(folder: Path) -> list[str]:
    """Remove what writers that were killed left behind in a folder.

    Only for whoever holds the data folder's lock: the file of a writer that is alive would go too.

    Parameters
    ----------
    folder : Path
        Looked at itself, not its sub-folders. One that does not exist holds nothing.

    Returns
    -------
    list of str
        Names of the files that were removed, sorted.

    Raises
    ------
    StoreError
        The folder cannot be read, or a file cannot be removed.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
        left = [name for name in names if name.startswith(".") and TEMPORARY_MARK in name]
        for name in left:
            (folder / name).unlink(missing_ok=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = f"leftover files cannot be removed: {error.strerror}"
        raise StoreError(f"{folder}: {problem}; {_remedy(error)}") from error
    return left


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it that are missing, and force their names to disk.

    Files in a folder that was never synced into its parent would be gone with it after a loss of power.

    Raises
    ------
    StoreError
        It cannot be made there.
    """
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    for one in reversed(missing):
        try:
            one.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(one, error) from error
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Force renames in a folder to disk, where the file system can do that.

    Parameters
    ----------
    folder : Path
        Folder that a file or folder was renamed in.

    Raises
    ------
    StoreError
        The folder cannot be opened, or the disk failed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some network file systems refuse to sync a folder; their renames reach the server as they are.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError, done: int = 0, expected: int | None = None) -> StoreError:
    """Error for a file that the system did not let us write, with what to do about it.

    Parameters
    ----------
    path : Path
        The file, or the folder.
    error : OSError
        What the system said.
    done, expected : int
        Bytes written so far and wanted in all, shown where room is what lacks.
    """
    room = ""
    if error.errno in _NO_ROOM and path.parent.is_dir():
        need = f"{done} bytes so far" if expected is None else f"it needs {expected} bytes"
        room = f" ({need}, {shutil.disk_usage(path.parent).free} are free on that disk)"
    return StoreError(f"{path}: cannot be written: {error.strerror}{room}; {_remedy(error)}")


def _remedy(error: OSError) -> str:
    return _REMEDIES.get(error.errno or 0, "check the disk, then run again")
