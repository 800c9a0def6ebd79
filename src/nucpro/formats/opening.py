"""The one way to open a file by name: inputs, and files that nucpro keeps for itself.

Names come from the command line, from a data folder or from a model's folder. A file that cannot be opened
gives a one-line error with what was found and the remedy: nothing blocks on a pipe, reads a device, or
follows a dangling link. Formats are recognised here too, by the first bytes of a file. Outputs are written by
:func:`nucpro.formats.replace_file`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader, FileIO
from pathlib import Path
from typing import cast

from nucpro.errors import DataError, NucproError, StoreError

__all__ = [
    "LONGEST_LINE",
    "REMEDIES_OF_LIMITS",
    "STANDARD_INPUT",
    "UNKNOWN",
    "file_digest",
    "is_litter",
    "is_pipe",
    "kept_lines",
    "kind_of",
    "look_at_kept",
    "looks_like",
    "open_input",
    "open_kept",
    "path_of",
    "problem_of",
    "read_input",
    "reading_kept",
    "remedy_of",
    "spooled",
    "write_all",
]

logger = logging.getLogger(__name__)

_LITTER = frozenset(
    {
        "__MACOSX",
        "@eaDir",
        "@Recycle",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    }
)


def is_litter(name: str) -> bool:
    """Whether a file or folder is a leftover of the system, an editor or a sync program: never input.

    Hidden names (``._X`` of macOS, ``.nfs…``, ``.snapshot``), backups and locks of editors, and folders that
    file servers and archives add.
    """
    return name.startswith((".", "~$")) or name.endswith("~") or name in _LITTER or _is_autosave(name)


def _is_autosave(name: str) -> bool:
    return name.startswith("#") and name.endswith("#")


STANDARD_INPUT = Path("/dev/stdin")
"""The name of standard input; ``-`` on the command line."""

UNKNOWN = "an unknown kind of file"
"""Answer of :func:`looks_like` for an unknown format."""

_LOOKED_AT = 512
_COPIED_AT_A_TIME = 1 << 20
LONGEST_LINE = 1 << 24
"""Limit in bytes for lines of kept files: damage may have left gigabytes without a line end."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a terminal or another device"),
    (stat.S_ISBLK, "a device"),
)
REMEDIES_OF_LIMITS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run again",
    errno.ENFILE: "too many files are open on this machine: end other programs, then run again",
}
"""Remedies for limits that have nothing to do with the file that cannot be opened, by error number."""
_REMEDIES = {
    **REMEDIES_OF_LIMITS,
    errno.ENOSPC: "free space on that disk, then run again",
    errno.EDQUOT: "free space within your quota or have it raised, then run again",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), then run again",
    errno.EROFS: "mount that file system for writing, then run again",
}
_NO_INODES = "remove files from that disk, which can hold no more of them (df -i), then run again"
_PROBLEMS = {
    errno.ENOENT: "cannot be read: No such file or directory; check the path",
    errno.EACCES: "cannot be read: Permission denied; check owner and rights of the file and its folders",
    errno.EPERM: "cannot be read: Permission denied; check owner and rights of the file and its folders",
    errno.ELOOP: "is a link that leads in a circle; link it to the file itself",
    errno.ENXIO: "is a socket, or a device that is not there; name a file",
    errno.EBADF: "cannot be read: it is closed; name a file",
}
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")
_OWN_NAME = "not the regular file that is kept under this name; move it away, then run again"
_NOT_THERE = "copy the file itself with `cp -L`, or get it with `git annex get` or `datalad get`"

_LOOKS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself: fetch it with `git annex get`"),
    (b"../.git/annex/", "a git-annex pointer, not the file itself: fetch it with `git annex get`"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x1f\x9d", "a file packed by compress (.Z)"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"]\0\0", "an lzma file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x04\x22\x4d\x18", "an lz4 file"),
    (b"LZIP", "an lzip file"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "an SQLite file"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "an RTF document: save it as plain text"),
    (b"\xd0\xcf\x11\xe0", "a document of an old Office program: save it as plain text"),
    (b"\x7fELF", "a program"),
    (b"\x00\x05\x16\x07", "a companion file of macOS (AppleDouble), not the file itself"),
    (b"\x1aE\xdf\xa3", "a Matroska file"),
    (b"BAM\x01", "a BAM file"),
    (b"CRAM", "a CRAM file"),
    (b"\x1a\x41\x27\x43", "a 2bit file"),
    (b"\x43\x27\x41\x1a", "a 2bit file"),
    (
        b"\x80\x02\x8a\nl\xfc\x9cF",
        "a torch file of the form used before torch 1.6: load and save it with torch >= 1.6",
    ),
    (b"\x80", "a bare pickle, which torch.save does not write"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
    (b"@HD\t", "a SAM file"),
    (b"@SQ\t", "a SAM file"),
    (b">", "a FASTA file"),
    (b"@", "a FASTQ file"),
    (b";", "a FASTA file with comment lines: remove the lines that start with ';'"),
    (b"LOCUS ", "a GenBank file"),
    (b"ID   ", "an EMBL or UniProt file"),
    (b"##gff", "a GFF file"),
    (b"##fileformat=VCF", "a VCF file"),
    (b"#NEXUS", "a NEXUS file"),
    (b"# STOCKHOLM", "a Stockholm alignment"),
    (b"CLUSTAL", "a Clustal alignment"),
    (b"HEADER  ", "a PDB file"),
    (b"data_", "an mmCIF file"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"<", "a page of HTML or XML"),
    (b"\0" * 8, "zeros, as a crash leaves them in a file that never reached the disk"),
)
_FORMS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda start: start[257:262] == b"ustar", "a tar archive"),
    # A frame of other data, which may come first.
    (lambda start: start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5, "a zstd file"),
)


def path_of(name: str | os.PathLike[str]) -> Path:
    """Path of a name; a leading ``~`` that the shell left, as in ``--output=~/out``, is the home.

    Parameters
    ----------
    name : str or path
        As a user or a file gives it.

    Returns
    -------
    Path
        The path; that of the name itself if nobody has such a home.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def open_input(path: Path, error: type[NucproError] = DataError, *, allow_pipe: bool = False) -> FileIO:
    """Open a file for reading, unbuffered.

    Parameters
    ----------
    path : Path
        Its name; links are followed.
    error : type of NucproError
        What is raised.
    allow_pipe : bool
        Take a pipe or a socket too, which can be read only once.

    Returns
    -------
    FileIO
        The file, open for reading.

    Raises
    ------
    NucproError
        Of the type `error`: there is no such file, a link leads nowhere, it is a folder, pipe or device, or it may
        not be read.
    """
    try:
        if allow_pipe and path == STANDARD_INPUT:
            # A pipe that another user made cannot be opened by name, as under sudo. If standard input was
            # closed from the start, its number may belong to any other file by now.
            return _checked(path, os.dup(0 if sys.stdin else -1), error, allow_pipe)
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if allow_pipe else os.O_NONBLOCK))
    except OSError as failure:
        raise error(f"{path}: {problem_of(path, failure)}") from failure
    return _checked(path, descriptor, error, allow_pipe)


def _checked(path: Path, descriptor: int, error: type[NucproError], allow_pipe: bool) -> FileIO:
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind) and not (allow_pipe and _can_be_read_once(kind)):
        os.close(descriptor)
        raise error(
            f"{path}: is {kind_of(kind)}, not a regular file; name a file{', or pipe one in' if allow_pipe else ''}"
        )
    return os.fdopen(descriptor, "rb", buffering=0)


def read_input(path: Path, error: type[NucproError] = DataError) -> bytes:
    """Content of a small file: a table, a configuration, a record; see :func:`open_input`."""
    try:
        with open_input(path, error) as file:
            return file.read()
    except OSError as failure:
        raise error(f"{path}: {problem_of(path, failure)}") from failure


def file_digest(path: Path, error: type[NucproError] = DataError) -> str:
    """SHA-256 (hex) of the bytes of a regular file, as ``sha256sum`` gives it; see :func:`open_input`.

    Parameters
    ----------
    path : Path
        The file.
    error : type
        Class of the error if it cannot be read.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    try:
        with open_input(path, error) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        raise error(f"{path}: {problem_of(path, failure)}") from failure


def open_kept(path: Path, error: Callable[[str], NucproError] = StoreError, *, append: bool) -> FileIO:
    """Open a file that nucpro writes incrementally: a log, a journal, a lock, a download.

    A symbolic link of that name, which may have come with the folder and point anywhere, is never followed: a
    new file replaces it, with a warning. Nothing is truncated.

    Parameters
    ----------
    path : Path
        Its name; created if missing.
    error : callable
        Makes the exception from a message.
    append : bool
        Always write at the end.

    Returns
    -------
    FileIO
        The file, open for reading and writing.

    Raises
    ------
    NucproError
        From `error`: a folder, pipe or device has that name, or the file may not be read and written.
    """
    flags = os.O_RDWR | os.O_CREAT | (os.O_APPEND if append else 0)
    try:
        try:
            descriptor = os.open(path, flags | _NEVER_ELSEWHERE, 0o666)
        except OSError as failure:
            # Another process may have removed the link by now.
            if failure.errno != errno.ELOOP:
                raise
            _remove_link(path)
            descriptor = os.open(path, flags | _NEVER_ELSEWHERE, 0o666)
    except OSError as failure:
        raise error(f"{path}: {_problem_of_kept(path, failure, 'written')}") from failure
    return _kept(path, descriptor, error, "a+b" if append else "r+b")


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of it: a full disk takes a part of a block, and reports the error only at the next write."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def look_at_kept(path: Path) -> FileIO | None:
    """Open for reading a file that :func:`open_kept` writes; None if it is missing or a symbolic link.

    Raises
    ------
    StoreError
        A folder, pipe or device has that name, or the file may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NEVER_ELSEWHERE)
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.ENOTDIR) or path.is_symlink():
            return None
        raise StoreError(f"{path}: {_problem_of_kept(path, failure, 'read')}") from failure
    return _kept(path, descriptor, StoreError, "rb")


@contextmanager
def reading_kept(path: Path) -> Iterator[FileIO | None]:
    """Open for reading as :func:`look_at_kept` does, and report what fails while it is read in the same way."""
    file = look_at_kept(path)
    if file is None:
        yield None
        return
    with file:
        try:
            yield file
        except OSError as failure:
            raise StoreError(f"{path}: {_problem_of_kept(path, failure, 'read')}") from failure


def kept_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file that :func:`open_kept` writes; none if it is missing or a symbolic link.

    What is longer than :data:`LONGEST_LINE`, which no line is that nucpro writes, comes in pieces.

    Raises
    ------
    StoreError
        As in :func:`look_at_kept`.
    """
    with reading_kept(path) as file:
        if file is not None:
            with BufferedReader(file) as lines:
                yield from iter(partial(lines.readline, LONGEST_LINE), b"")


_NEVER_ELSEWHERE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Follows no link, and does not wait for the writer of a pipe."""


def _kept(path: Path, descriptor: int, error: Callable[[str], NucproError], mode: str) -> FileIO:
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise error(f"{path}: is {kind_of(kind)}, {_OWN_NAME}")
    return cast(FileIO, os.fdopen(descriptor, mode, buffering=0))


def _remove_link(path: Path) -> None:
    """Remove a link, and only a link, even if other processes do the same."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        if path.is_symlink():
            target = path.readlink()
            path.unlink()
            logger.warning(
                "%s was a link to %s; a new file replaces it, and its target is unchanged",
                path,
                target,
            )
    finally:
        os.close(folder)


def _problem_of_kept(path: Path, failure: OSError, how: str) -> str:
    with suppress(OSError):
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind):
            return f"is {kind_of(kind)}, {_OWN_NAME}"
    usual = "check owner and rights of the file and its folder, then run again"
    return f"cannot be {how} ({failure.strerror}); {remedy_of(path.parent, failure) or usual}"


def is_pipe(path: Path) -> bool:
    """Whether a path can be read only once: a pipe or a socket."""
    try:
        return _can_be_read_once(path.stat().st_mode)
    except OSError:
        return False


@contextmanager
def spooled(path: Path, error: type[NucproError] = DataError) -> Iterator[Path]:
    """A regular file with the content of a path: the content of a pipe is stored until the block ends.

    Yields
    ------
    Path
        The path itself if it is not a pipe; else a file in the folder for temporary files (``TMPDIR``).

    Raises
    ------
    NucproError
        Of the type `error`: the pipe cannot be read, or the disk is full.
    """
    if not is_pipe(path):
        yield path
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="nucpro_")
    except OSError as failure:
        raise error(f"{path}: {_no_room(failure)}") from failure
    with folder as place, open_input(path, error, allow_pipe=True) as source:
        copy = Path(place, "standard_input" if path == STANDARD_INPUT else f"pipe_{path.name}")
        try:
            with copy.open("wb") as target:
                shutil.copyfileobj(source, target, _COPIED_AT_A_TIME)
        except OSError as failure:
            raise error(f"{path}: {_no_room(failure)}") from failure
        yield copy


def _no_room(failure: OSError) -> str:
    return (
        f"the pipe cannot be copied to a temporary file: {failure.strerror}; "
        "set TMPDIR to a folder with space, or name a file"
    )


def problem_of(path: Path, failure: OSError) -> str:
    """Why a path cannot be opened, and the remedy, in words."""
    link = _dangling(path) if failure.errno in (errno.ENOENT, errno.ENOTDIR) else None
    if link is not None:
        which = "is a link" if link == path else f"is behind {link}, a link"
        return f"{which} to {link.readlink()}, which does not exist; {_NOT_THERE}"
    if failure.errno == errno.ENOENT and str(path) == "-":
        return "standard input is not read here; name a file"
    known = _PROBLEMS.get(failure.errno or 0)
    if failure.errno == errno.ENOENT and _URL.match(str(path)):
        known = "is an address, not a file; download it first"
    remedy = remedy_of(path.parent, failure) or "check the path, its permissions and the disk"
    return known or f"cannot be read: {failure.strerror or failure}; {remedy}"


def remedy_of(folder: Path, failure: OSError) -> str | None:
    """What to do about a limit or a disk that a file in a folder met, in words; None for other errors."""
    if failure.errno == errno.ENOSPC:
        with suppress(OSError):
            disk = os.statvfs(folder)
            # Some file systems have no fixed number of files, and count none.
            if disk.f_files and not disk.f_favail:
                return _NO_INODES
    return _REMEDIES.get(failure.errno or 0)


def looks_like(start: bytes) -> str:
    """Format of a file by its first bytes, in words for a message: ``a gzip file``."""
    if not start:
        return "an empty file"
    # First, because the length of its header may look like any other form.
    if start[5:9] == b"\0\0\0{":
        return "a safetensors file"
    # ASCII characters in UTF-16 without a byte order mark: every other byte is zero.
    halves = [any(start[first:_LOOKED_AT:2]) for first in (0, 1)]
    if len(start) > 3 and halves.count(False) == 1:
        return "UTF-16 text: save it as UTF-8"
    text = start.lstrip()
    for magic, what in _LOOKS:
        if start.startswith(magic) or (magic.isascii() and text.startswith(magic)):
            return what
    return next((what for test, what in _FORMS if test(start)), UNKNOWN)


def _can_be_read_once(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def kind_of(mode: int) -> str:
    """Kind of a path that is not a regular file, in words: ``a pipe``."""
    return next((text for test, text in _KINDS if test(mode)), "something else")


def _dangling(path: Path) -> Path | None:
    """The dangling link on a path."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            return place
    return None
