"""Atomic writes: each file is written under a temporary name, synced to disk, then renamed.

The temporary file is in the same folder. If the writer is interrupted at any point, readers find either the
previous file or the complete new one.
"""

from __future__ import annotations

import errno
import fcntl
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

from nucpro.errors import NucproError, StoreError, as_preflight
from nucpro.formats.opening import kind_of, remedy_of

__all__ = [
    "TEMPORARY_MARK",
    "AtomicFile",
    "Written",
    "cannot_write",
    "made_first",
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
"""Part of the name of every unfinished file; the holder of the lock may remove such files."""

_LONGEST_NAME = 255
"""Longest file name, in bytes, that file systems accept."""
_LONGEST_TAG = 20


def temporary_start(name: str) -> str:
    """Prefix of the names of unfinished files for a final name; the rest of the name makes it unique.

    A name near the limit of file systems is truncated, and a digest replaces the rest.
    """
    room = _LONGEST_NAME - len(f".{TEMPORARY_MARK}") - _LONGEST_TAG
    plain = os.fsencode(name)
    if len(plain) > room:
        digest = hashlib.sha256(plain).hexdigest()[:16]
        name = f"{plain[: room - 17].decode(errors='ignore')}-{digest}"
    return f".{name}{TEMPORARY_MARK}"


def name_problem(path: Path) -> str | None:
    """Message for a path whose last part is longer than file systems accept; None for other paths."""
    size = len(os.fsencode(path.name))
    return f"its name has {size} bytes, a file system takes {_LONGEST_NAME}" if size > _LONGEST_NAME else None


_REMEDIES = {
    errno.EACCES: "get permission to write in that folder, then run again",
    errno.EPERM: "get permission to write in that folder, then run again",
    errno.ENOENT: "create the folder first, then run again",
    errno.ENOTDIR: "a part of the path is a file, not a folder: correct it, then run again",
    errno.EEXIST: "a file has the folder's name: move it away, or name another place",
    errno.EISDIR: "a folder has the file's name: move it away, then run again",
    errno.ENAMETOOLONG: "use a shorter name",
}

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Written:
    """Size and digest of a file that was written completely.

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
    """A file that is being written; :func:`replace_file` renames it at the end.

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

    @property
    def digest(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data` and return its length in bytes.

        Parameters
        ----------
        data : bytes or memoryview
            Bytes to append.

        Returns
        -------
        int
            Number of bytes.

        Raises
        ------
        StoreError
            The disk is full, or the write failed for another reason.
        """
        with self._explained():
            self._file.write(data)
        self._hash.update(data)
        length = memoryview(data).nbytes
        self.size += length
        return length

    def _complete(self) -> None:
        """Sync the file to disk and record its size and digest."""
        with self._explained():
            self._file.flush()
            os.fsync(self._file.fileno())
        self.written = Written(self.size, self.digest)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._path, error, self.size, self._expected) from error


@contextmanager
def replace_file(path: Path, expected: int | None = None) -> Iterator[AtomicFile]:
    """Write a file that gets its final name only once it is complete and on disk.

    The temporary file is in the same folder, with `TEMPORARY_MARK` in its name; it is removed when the block
    raises. A symbolic link of the final name is replaced, and its target is left untouched. The umask of the
    process sets the permissions.

    Parameters
    ----------
    path : Path
        Final name, in a folder that exists.
    expected : int, optional
        Bytes that will be written, for the message when the disk is full.

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
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_SH)
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
    """Pre-flight problems: files that a command would replace and that it cannot be shown to have written.

    Parameters
    ----------
    paths : iterable of Path
        Files that the command is about to write.
    is_own : callable
        Whether the command wrote the file of this name; called only for names that exist.
    replace : bool
        Replace files of other origin too (``--replace``). Folders, pipes and devices are never replaced.

    Returns
    -------
    list of str
        One line per such file, with the remedy.
    """
    problems = []
    for path in filter(os.path.lexists, paths):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and not stat.S_ISREG(mode):
            problems.append(f"{path}: is {kind_of(mode)}, which is never replaced; name another place")
        elif not replace and not is_own(path):
            problems.append(
                f"{path}: exists, and there is no record that this command wrote it; name another place, move it "
                "away, or replace it with --replace"
            )
    return problems


def write_bytes(path: Path, data: bytes | memoryview) -> Written:
    """Write a whole file at once; see :func:`replace_file`.

    Parameters
    ----------
    path : Path
        Final name.
    data : bytes or memoryview
        Content.

    Returns
    -------
    Written
        Size and SHA-256 of the file.
    """
    with replace_file(path, memoryview(data).nbytes) as target:
        target.write(data)
    return target.written


def write_text(path: Path, text: str) -> Written:
    """Write a whole text file at once, in UTF-8, line feeds as they are; see :func:`replace_file`.

    Parameters
    ----------
    path : Path
        Final name.
    text : str
        Content.

    Returns
    -------
    Written
        Size and SHA-256 of the file.
    """
    return write_bytes(path, text.encode())


def remove_temporaries(folder: Path, *, of: str = "", spare_living: bool = False) -> list[str]:
    """Remove unfinished files that killed writers left in a folder.

    Parameters
    ----------
    folder : Path
        Searched without its sub-folders; need not exist.
    of : str, optional
        Only those of the file of this name.
    spare_living : bool
        Keep those that are being written. Without it, only for the holder of the lock of these files.

    Returns
    -------
    list of str
        Names of the files that were removed, sorted.

    Raises
    ------
    StoreError
        The folder cannot be read, or a file cannot be removed.
    """
    start = temporary_start(of) if of else "."
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
        left = [name for name in names if name.startswith(start) and TEMPORARY_MARK in name]
        if spare_living:
            left = [name for name in left if not _is_being_written(folder / name)]
        for name in left:
            (folder / name).unlink(missing_ok=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = f"leftover files cannot be removed: {error.strerror}"
        raise StoreError(f"{folder}: {problem}; {_remedy(folder, error)}") from error
    return left


def _is_being_written(temporary: Path) -> bool:
    """Whether the writer of a temporary file is alive: it holds a lock."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and sync their names to disk.

    A folder that was not synced into its parent may be lost, with its files, in a power failure.

    Parameters
    ----------
    folder : Path
        The folder; may exist.

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


@contextmanager
def made_first(folder: Path) -> Iterator[None]:
    """Make the folder that a command writes to in a ``with`` block; a block that is refused leaves no empty one.

    Parameters
    ----------
    folder : Path
        The folder.

    Yields
    ------
    None
        While the folder exists.

    Raises
    ------
    PreflightError
        It cannot be made there.
    """
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    with as_preflight(StoreError):
        make_folder(folder)
    try:
        yield
    except NucproError:
        with suppress(OSError):  # one that is not empty
            for one in missing:
                one.rmdir()
        raise


def sync_folder(folder: Path) -> None:
    """Sync renames in a folder to disk, where the file system supports it.

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
    """Error for a file that could not be written, with the remedy.

    Parameters
    ----------
    path : Path
        The file, or the folder.
    error : OSError
        The error of the system.
    done, expected : int
        Bytes written so far and bytes in total, shown when disk space is short.

    Returns
    -------
    StoreError
        The error to raise.
    """
    room = ""
    if error.errno in _NO_ROOM and path.parent.is_dir():
        need = f"{done} bytes so far" if expected is None else f"it needs {expected} bytes"
        room = f" ({need}, {shutil.disk_usage(path.parent).free} are free on that disk)"
    return StoreError(f"{path}: cannot be written: {error.strerror}{room}; {_remedy(path.parent, error)}")


def _remedy(folder: Path, error: OSError) -> str:
    return remedy_of(folder, error) or _REMEDIES.get(error.errno or 0, "check the disk, then run again")
