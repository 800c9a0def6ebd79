"""Fingerprints of files, journals of JSON lines, and the checkpoint that uses both.

The history of runs is a journal too, and fingerprints are used wherever a change of a file matters.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from nucpro.errors import DataError, PreflightError, StoreError
from nucpro.formats import cannot_write, file_digest, write_bytes
from nucpro.formats.opening import kept_lines, open_kept, reading_kept, write_all
from nucpro.formats.records import parsed
from nucpro.formats.sequences import SequenceType
from nucpro.state.facts import (
    DIGEST,
    RECIPE,
    SPLIT,
    Document,
    Facts,
    dumped,
    is_sound,
    read_document,
    write_document,
)
from nucpro.state.recipe import Recipe

__all__ = [
    "Checkpoint",
    "Fingerprint",
    "Journal",
    "StateFiles",
    "changed_files",
    "journal_entries",
    "journal_lines",
    "require_unchanged",
]

_CRC_LENGTH = 8


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint: shows cheaply that a file has not changed.

    Parameters
    ----------
    size, modified, inode : int
        Bytes, modification time in nanoseconds, and inode number.
    """

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Fingerprint of a file as it is now; None if it is missing."""
        try:
            facts = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ino)

    def as_list(self) -> list[int]:
        """Form in which fingerprints are stored."""
        return [self.size, self.modified, self.inode]


def stamps_of(paths: Iterable[Path]) -> list[list[int] | None]:
    """Fingerprints of files as they are stored; None for those that are missing."""
    return [stamp.as_list() if stamp else None for stamp in map(Fingerprint.of, paths)]


def require_unchanged(path: Path, stamp: Fingerprint | None) -> None:
    """Raise if a file that is read in pieces has changed since it was checked.

    Raises
    ------
    DataError
        It changed.
    """
    if Fingerprint.of(path) != stamp:
        raise DataError(f"{path}: was changed while it was read; run again when no program writes it")


def changed_files(recorded: Mapping[Path, object]) -> list[Path]:
    """Files that differ from their recorded SHA-256; None means that the file must not exist.

    Without fingerprints, a task counts as done if this list is empty.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    return [
        path for path, digest in recorded.items() if digest != (file_digest(path) if path.exists() else None)
    ]


class StateFiles(Protocol):
    """Paths of the state files of a folder."""

    @property
    def root(self) -> Path:
        """The folder."""
        ...

    @property
    def checkpoint(self) -> Path:
        """The checkpoint."""
        ...

    @property
    def journal(self) -> Path:
        """The journal of the checkpoint."""
        ...

    @property
    def history(self) -> Path:
        """The history of runs."""
        ...

    def vectors_key(self, key: str) -> str:
        """Name under which a file is listed as completed: the name of its vectors, also for a FASTA file."""
        ...

    def free_checkpoint_copy(self) -> Path:
        """Path to which a checkpoint of another program is moved."""
        ...


class Journal:
    """Appends JSON objects to a file, one per line after its CRC-32; opened by the first write.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._is_new = True

    def append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        """Write lines, unbuffered, so that a killed process loses nothing that it recorded.

        Returns
        -------
        int
            Bytes that were written.

        Raises
        ------
        StoreError
            The file cannot be opened or written.
        """
        lines = b"".join(_line(entry) for entry in entries)
        if self._file is None:
            self._file = open_kept(self._path, append=True)
        try:
            # The last line of a killed run may be truncated: the first line of this run must not be joined to
            # it.
            if self._is_new and not _ends_with_a_line(self._file):
                lines = b"\n" + lines
            self._is_new = False
            write_all(self._file, lines)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return len(lines)

    def begin(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Replace all lines with these, atomically.

        Raises
        ------
        StoreError
            The file cannot be written.
        """
        self.close()
        write_bytes(self._path, b"".join(map(_line, entries)))

    def close(self) -> None:
        """Close the file; what was written stays."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


def _line(entry: Mapping[str, Any]) -> bytes:
    body = dumped(entry)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def journal_lines(lines: Iterable[bytes]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Objects of a journal, in order, and whether each has a CRC-32; some earlier versions wrote none.

    Truncated and damaged lines are skipped.
    """
    for line in (line.removesuffix(b"\n") for line in lines):
        is_sealed = line[:_CRC_LENGTH] == b"%08x" % zlib.crc32(line[_CRC_LENGTH + 1 :])
        body = line[_CRC_LENGTH + 1 :] if is_sealed else line
        if entry := parsed(body):
            yield entry, is_sealed


def journal_entries(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Objects of a journal that have their CRC-32, in order."""
    return (entry for entry, is_sealed in journal_lines(lines) if is_sealed)


def _ends_with_a_line(file: FileIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    return size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n"


logger = logging.getLogger(__name__)

_FORMAT = 1
_OF_INPUTS = {"count", "fasta", DIGEST}
"""Kinds of facts about FASTA files and models."""


class Checkpoint:
    """Facts about the files of one data folder.

    A run that is refused leaves no files where there were none, unless it read vectors.

    Parameters
    ----------
    folder : StateFiles
        Paths of checkpoint and journal; files are recorded by their paths relative to its root.
    read_only : bool
        Keep new facts in memory only.
    """

    def __init__(self, folder: StateFiles, *, read_only: bool = False) -> None:
        self._folder = folder
        root = str(folder.root)
        self._prefix = "" if root == os.curdir else f"{root.rstrip(os.sep)}/"
        self._read_only = read_only
        self._facts: Facts
        self._own: set[str] = set()
        self._completed: dict[str, None] = {}
        self.started_at = _now()
        self._journal = Journal(folder.journal)
        self._is_foreign = False
        self._is_new = not (os.path.lexists(folder.checkpoint) or os.path.lexists(folder.journal))
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if os.path.lexists(self._folder.journal) and not self._read_only:
                if isinstance(error, PreflightError) and self._is_new and self._is_of_inputs():
                    self._remove_journal()
                else:
                    self.fold()
        except StoreError as failure:
            # The error that ended the run is the one to show, and the journal still holds everything.
            if error is None:
                raise
            logger.warning("%s", failure)
        finally:
            self.close()

    def fact(self, kind: str, path: Path) -> dict[str, Any] | None:
        """Fact of a kind about a file; None if there is none for the file as it is now."""
        key = f"{kind}:{self._key(path)}"
        stamp = Fingerprint.of(path)
        entry = self._facts.get(key)
        if stamp is None or entry.get("stamp") != stamp.as_list():
            return None
        return entry if self._is_usable(key, kind, entry) else None

    def knows(self, kind: str, path: Path, **expected: Any) -> bool:
        """Whether a fact of a kind is known about a file as it is now, and has the expected values."""
        fact = self.fact(kind, path)
        return fact is not None and all(fact.get(name) == value for name, value in expected.items())

    def add(self, kind: str, path: Path, fact: Mapping[str, Any], stamp: Fingerprint | None = None) -> None:
        """Record a fact about a file, with the fingerprint it was established for (by default the present one)."""
        stamp = stamp or Fingerprint.of(path)
        if stamp is None:
            return
        key = f"{kind}:{self._key(path)}"
        self._record(key, {**fact, "stamp": stamp.as_list()})

    @property
    def completed(self) -> list[str]:
        """Files of protein vectors that are listed as completed."""
        return list(self._completed)

    def complete(self, path: Path) -> None:
        """List a file of protein vectors as completed."""
        key = self._listed(self._key(path))
        if self._note_completed(key):
            self._append({"completed": key})

    def recipe_of(self, sequence_type: SequenceType) -> Recipe | None:
        """Recipe of the last run for a sequence type; None before the first run."""
        key = f"{RECIPE}:{sequence_type}"
        entry = self._facts.get(key)
        if entry.get("kind") != sequence_type or not self._is_usable(key, RECIPE, entry):
            return None
        return Recipe(str(sequence_type), entry["made_by"], entry["width"], entry.get("source", {}))

    def remember_recipe(self, recipe: Recipe) -> None:
        """Record how this run makes vectors."""
        entry = {
            "kind": recipe.kind,
            "made_by": dict(recipe.made_by),
            "width": recipe.width,
            "source": dict(recipe.source),
        }
        self._record(f"{RECIPE}:{recipe.kind}", entry)

    @property
    def sequences_per_file(self) -> int | None:
        """Records of a full split file, as they were recorded; None before that."""
        entry = self._facts.get(SPLIT)
        return (entry.get("sequences_per_file") or None) if self._is_usable(SPLIT, SPLIT, entry) else None

    def remember_size(self, sequences_per_file: int) -> None:
        """Record how many records a full split file holds."""
        if self.sequences_per_file != sequences_per_file:
            self._record(SPLIT, {"sequences_per_file": sequences_per_file})

    def digests(self, files: Iterable[Path]) -> dict[Path, tuple[Fingerprint, str]]:
        """Fingerprint and SHA-256 of files, in the folder or elsewhere, that are unchanged since they were read."""
        known = ((file, self.fact(DIGEST, file)) for file in files)
        return {
            file: (Fingerprint(*fact["stamp"]), str(fact["sha256"]))
            for file, fact in known
            if fact is not None
        }

    def remember_digests(self, digests: Mapping[Path, tuple[Fingerprint | None, str]]) -> None:
        """Record the SHA-256 of files, in the folder or elsewhere, with their fingerprints when they were read."""
        for file, (stamp, digest) in digests.items():
            if not self.knows(DIGEST, file, sha256=digest):
                self.add(DIGEST, file, {"sha256": digest}, stamp)

    def restart(self, completed: Iterable[Path]) -> None:
        """Replace the list of completed files."""
        self._list(map(self._key, completed))

    def fold(self) -> None:
        """Write everything into the checkpoint, atomically, and start an empty journal."""
        content = {
            "format": _FORMAT,
            "started_at": self.started_at,
            "last_update": _now(),
            "completed_files": self.completed,
        }
        if self._is_foreign:
            self._keep_aside()
        write_document(self._folder.checkpoint, content, self._facts)
        self._remove_journal()

    def _is_of_inputs(self) -> bool:
        """Whether nothing is recorded of vectors, whose reading takes long."""
        return not self._completed and {name.partition(":")[0] for name in self._facts.added} <= _OF_INPUTS

    def _remove_journal(self) -> None:
        self.close()
        try:
            self._folder.journal.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self._folder.journal, error) from error

    def close(self) -> None:
        """Close the journal; what was recorded stays."""
        self._journal.close()

    def _key(self, path: Path) -> str:
        text = str(path)
        return text.removeprefix(self._prefix) if text.startswith(self._prefix) else str(path.absolute())

    def _list(self, keys: Iterable[str]) -> None:
        self._completed = dict.fromkeys(map(self._listed, keys))

    def _listed(self, key: str) -> str:
        """Key under which a file is listed: that of its vectors, also for a FASTA file of earlier versions."""
        return self._folder.vectors_key(key)

    def _note_completed(self, key: str) -> bool:
        """List a key; False where it is listed already."""
        if key in self._completed:
            return False
        self._completed[key] = None
        return True

    def _keep_aside(self) -> None:
        path = self._folder.checkpoint
        try:
            path.rename(self._folder.free_checkpoint_copy())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise cannot_write(path, error) from error
        self._is_foreign = False

    def _is_usable(self, key: str, kind: str, entry: Mapping[str, Any]) -> bool:
        return key in self._own or is_sound(kind, entry)

    def _record(self, key: str, entry: Mapping[str, Any]) -> None:
        self._facts.put(key, entry)
        self._own.add(key)
        self._append({key: entry})

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._read_only:
            return
        self._journal.append([entry])

    def _read(self) -> None:
        content, self._facts, self._is_foreign = _document(self._folder)
        listed = content.get("completed_files", [])
        self._list(map(str, listed) if isinstance(listed, list) else ())
        started = content.get("started_at")
        self.started_at = started if isinstance(started, str) else self.started_at
        self._replay()

    def _replay(self) -> None:
        for entry in journal_entries(kept_lines(self._folder.journal)):
            for key, value in entry.items():
                if key == "completed" and isinstance(value, str):
                    self._note_completed(self._listed(value))
                elif isinstance(value, dict):
                    self._facts.put(key, value)


def _document(folder: StateFiles) -> tuple[dict[str, Any], Facts, bool]:
    """Verified content of the checkpoint, and whether another program wrote it."""
    path = folder.checkpoint
    # Anything but a regular file is moved aside like a checkpoint of another program.
    with reading_kept(path) if path.is_file() else nullcontext() as file:
        content, facts, is_sound = read_document(file) if file else Document({}, Facts(), is_sound=False)
    if content.get("format") != _FORMAT or "sha256" not in content:
        is_foreign = os.path.lexists(path)
        if is_foreign:
            logger.warning(
                "%s was not written by nucpro: all files are checked by their contents; a run keeps it as %s",
                path,
                folder.free_checkpoint_copy().name,
            )
        # Its list proves nothing, so only the time of the first start is used.
        return {"started_at": content.get("started_at")}, Facts(), is_foreign
    if not is_sound:
        logger.warning("%s is damaged; all files are checked by their contents", path)
        return {}, Facts(), False
    return content, facts, False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
