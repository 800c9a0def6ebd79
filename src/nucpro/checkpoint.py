"""What is known about files: which are done, and facts that are true as long as a file does not change.

Two files in the data folder: a journal that gets one line a fact, and the checkpoint, a JSON document
that the journal is folded into at the start, the end and an interrupt of a run. Both only make a
restart fast. A fact counts while the file's size, modification time and inode are those it was
recorded with; everything else is established from contents again. Both files carry checksums of their
own: a damaged line of the journal counts as unknown, and so does a damaged checkpoint as a whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from nucpro.errors import StoreError
from nucpro.layout import DataFolder, Side
from nucpro.recipe import Recipe
from nucpro.store import cannot_write, parsed, write_text

__all__ = ["Checkpoint", "Stamp"]

logger = logging.getLogger(__name__)

_FORMAT = 1
_RECIPE = "recipe"
_SEAL = '{{"sha256":"{}",'
"""What a checkpoint begins with; the digest is that of the document without it."""
_SEAL_LENGTH = len(_SEAL.format("0" * 64))
_CRC_LENGTH = 8


@dataclass(frozen=True)
class Stamp:
    """What tells cheaply that a file has not changed.

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
        """Stamp of a file as it is now; None where it is not there."""
        try:
            facts = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ino)

    def as_list(self) -> list[int]:
        """Form in which stamps are stored."""
        return [self.size, self.modified, self.inode]


class Checkpoint:
    """Facts about the files of one data folder.

    Parameters
    ----------
    folder : DataFolder
        The data folder; checkpoint and journal lie in it.
    read_only : bool
        Remember new facts in memory only.
    """

    def __init__(self, folder: DataFolder, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only
        self._facts: dict[str, dict[str, Any]] = {}
        self.completed: list[str] = []
        self.started_at = _now()
        self._journal: BinaryIO | None = None
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._folder.journal.exists() and not self._read_only:
                self.fold()
        except StoreError as failure:
            # What ended the run is the message to show, and the journal holds everything still.
            if error is None:
                raise
            logger.warning("%s", failure)
        finally:
            self.close()

    def fact(self, kind: str, path: Path) -> dict[str, Any] | None:
        """Fact of a kind about a file, None where nothing is known of the file as it is now."""
        entry = self._facts.get(f"{kind}:{self._key(path)}")
        stamp = Stamp.of(path)
        if entry is None or stamp is None or entry.get("stamp") != stamp.as_list():
            return None
        return entry

    def add(self, kind: str, path: Path, fact: Mapping[str, Any], stamp: Stamp | None = None) -> None:
        """Record a fact about a file, with the stamp it was established for (by default the present one)."""
        stamp = stamp or Stamp.of(path)
        if stamp is None:
            return
        key = f"{kind}:{self._key(path)}"
        entry = {**fact, "stamp": stamp.as_list()}
        self._facts[key] = entry
        self._append({key: entry})

    def complete(self, path: Path) -> None:
        """List a protein FASTA as completed."""
        key = self._key(path)
        if key not in self._completed_set:
            self._completed_set.add(key)
            self.completed.append(key)
            self._append({"completed": key})

    def recipe_of(self, side: Side) -> Recipe | None:
        """Recipe of the last run on a side; None before the first one."""
        entry = self._facts.get(f"{_RECIPE}:{side}")
        if entry is None:
            return None
        try:
            return Recipe(str(entry["kind"]), dict(entry["made_by"]), int(entry["width"]))
        except (KeyError, TypeError, ValueError):
            return None

    def remember_recipe(self, recipe: Recipe) -> None:
        """Record how this run makes vectors."""
        entry = {"kind": recipe.kind, "made_by": dict(recipe.made_by), "width": recipe.width}
        self._facts[f"{_RECIPE}:{recipe.kind}"] = entry
        self._append({f"{_RECIPE}:{recipe.kind}": entry})

    def restart(self, completed: Iterable[Path], among: Iterable[Path] | None = None) -> None:
        """Set the list of completed files to what was found to be done.

        Parameters
        ----------
        completed : iterable of Path
            The files that are done.
        among : iterable of Path, optional
            The files that were looked at: others stay in the list. By default all were.
        """
        seen = set(self.completed if among is None else map(self._key, among))
        kept = [key for key in self.completed if key not in seen]
        self.completed = list(dict.fromkeys([*kept, *map(self._key, completed)]))
        self._completed_set = set(self.completed)

    def fold(self) -> None:
        """Write everything into the checkpoint, atomically, and begin an empty journal."""
        content = {
            "format": _FORMAT,
            "started_at": self.started_at,
            "last_update": _now(),
            "completed_files": self.completed,
            "facts": self._facts,
        }
        write_text(self._folder.checkpoint, _sealed(_dumped(content) + "\n"))
        self.close()
        try:
            self._folder.journal.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self._folder.journal, error) from error

    def close(self) -> None:
        """Close the journal; what was recorded stays."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _key(self, path: Path) -> str:
        return path.relative_to(self._folder.root).as_posix()

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._read_only:
            return
        body = _dumped(entry).encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        try:
            self._write_line(line)
        except OSError as error:
            raise cannot_write(self._folder.journal, error, expected=len(line)) from error

    def _write_line(self, line: bytes) -> None:
        if self._journal is None:
            self._journal = self._folder.journal.open("ab", buffering=0)
            # The last line of a killed run may be cut: what follows begins a line of its own.
            line = b"\n" + line if self._journal.tell() else line
        # Handed to the system at once: a killed process loses nothing that it recorded.
        while line:
            line = line[self._journal.write(line) :]

    def _read(self) -> None:
        content = _document(self._folder.checkpoint)
        facts = content.get("facts", {})
        if isinstance(facts, dict):
            self._facts = {str(k): v for k, v in facts.items() if isinstance(v, dict)}
        listed = content.get("completed_files", [])
        self.completed = [str(key) for key in listed] if isinstance(listed, list) else []
        started = content.get("started_at")
        self.started_at = started if isinstance(started, str) else self.started_at
        self._completed_set = set(self.completed)
        self._replay()

    def _replay(self) -> None:
        try:
            lines = self._folder.journal.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            # The last line of a killed run may be cut; a damaged line only means that its file is checked again.
            entry = _checked_line(line)
            for key, value in entry.items():
                if key == "completed" and isinstance(value, str) and value not in self._completed_set:
                    self._completed_set.add(value)
                    self.completed.append(value)
                elif isinstance(value, dict):
                    self._facts[key] = value


def _document(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    if not (content := parsed(raw)):
        logger.warning("%s is not a readable checkpoint; all files are checked by their contents", path)
    elif content.get("format") != _FORMAT or "sha256" not in content:
        # Written by something else: its list is no proof, so only the time of the first start is taken over.
        return {"started_at": content.get("started_at")}
    elif hashlib.sha256(b"{" + raw[_SEAL_LENGTH:]).hexdigest() != content["sha256"]:
        logger.warning("%s is damaged; all files are checked by their contents", path)
        return {}
    return content


def _dumped(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _sealed(document: str) -> str:
    """Put the digest of a JSON document at its beginning, as its first value."""
    return _SEAL.format(hashlib.sha256(document.encode()).hexdigest()) + document[1:]


def _checked_line(line: bytes) -> dict[str, Any]:
    crc, body = line[:_CRC_LENGTH], line[_CRC_LENGTH + 1 :]
    return parsed(body) if crc == b"%08x" % zlib.crc32(body) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
