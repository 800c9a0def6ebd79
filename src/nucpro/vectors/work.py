"""What an unfinished output has so far: a folder beside it, with a journal of its finished parts.

Parts come in any order. Rows of records are in one file; when all are there, they go to :mod:`nucpro.vectors.outputs`
as one mapped array, and the folder is removed. A part that is believed later has the digest that was recorded for it.
:mod:`nucpro.vectors.residues` keeps the shards of residues in such a folder.
"""

from __future__ import annotations

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import LockedError, StoreError, UsageError
from nucpro.execution.runner import Runner
from nucpro.formats import cannot_write, make_folder
from nucpro.formats.atomic import remove_temporaries, replacing_problems
from nucpro.formats.opening import kept_lines, open_kept, write_all
from nucpro.formats.sequences import SequenceType
from nucpro.state.checkpoint import Journal, journal_entries
from nucpro.state.lock import state
from nucpro.vectors.inputs import InputFacts, Part, PartFacts, PartSize
from nucpro.vectors.outputs import Content, format_of, made_by

if TYPE_CHECKING:
    from nucpro.embedding.encoder import FastaEncoder

__all__ = ["MARK", "Disk", "Made", "Rows", "Work", "allocated", "own"]

_FORMAT = 1
_FLOAT = 4
MARK = {"command": "embed"}
"""Marks, in the ``meta`` of an output, that this command made it."""


class Made(NamedTuple):
    """What the work of a part gave, and the seconds that it took from its first batch on the device."""

    result: Any
    seconds: float


class Disk(NamedTuple):
    """Bytes of disk that making an output takes: to the end, only until then, and those it frees at its end."""

    lasting: int
    meanwhile: int
    replaced: int


class Work(ABC):
    """The folder with the partial result of an output.

    Parameters
    ----------
    output : Path
        The file or folder to be.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.root = output.with_name(f"{output.name}.unfinished")
        self._lock = self.root / ".lock"
        self._journal_path = self.root / "parts.jsonl"
        self._journal = Journal(self._journal_path)
        self._parts: Sequence[PartFacts] = ()
        self._width = 0

    @abstractmethod
    def require_name(self) -> None:
        """Refuse a name that no output of this kind can have.

        Raises
        ------
        UsageError
            The message contains the allowed names.
        """

    def target_problems(self, *, replace: bool) -> list[str]:
        """Why an existing file or folder of the output's name cannot be replaced."""
        return replacing_problems([self.output], lambda _: self.own_meta() is not None, replace=replace)

    @abstractmethod
    def unfit(self, facts: InputFacts, width: int) -> list[str]:
        """Why vectors of an input do not fit into the output."""

    @abstractmethod
    def disk(self, facts: InputFacts, width: int) -> Disk:
        """Bytes that are still to be written, and those of a file that they replace."""

    @abstractmethod
    def own_meta(self) -> Mapping[str, Any] | None:
        """``meta`` of the complete output of that name, if this command made it; else None."""

    @property
    @abstractmethod
    def compute(self) -> Callable[[FastaEncoder, Part], Made]:
        """Does the work of a part; picklable."""

    @abstractmethod
    def commit(self, number: int, made: Any) -> None:
        """Keep, and record, what the work of a part gave.

        Raises
        ------
        StoreError
            It cannot be written, or is not there.
        """

    @abstractmethod
    def finish(self, ids: list[str], meta: Mapping[str, Any], sequence_type: SequenceType) -> None:
        """Make the output of all parts, and remove the folder."""

    @abstractmethod
    def _files(self) -> list[Path]:
        """Files with vectors that a run of this kind put there."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what parts are kept in."""

    @abstractmethod
    def _is_kept(self, number: int, entry: Mapping[str, Any]) -> bool:
        """Whether a part is on disk as recorded in the journal."""

    @property
    def _own(self) -> tuple[Path, ...]:
        return *self._files(), self._journal_path, self._lock

    def problems(self, recipe_key: str, *, replace: bool) -> list[str]:
        """Why a run cannot resume or start here: the folder belongs to another run, or has other content."""
        if not os.path.lexists(self.root):
            return []
        try:
            names = {path.name for path in self._own}
            others = sorted(entry.name for entry in os.scandir(self.root) if entry.name not in names)
        except OSError as error:
            return [f"{self.root}: cannot be read ({error.strerror}); name another output"]
        if others:
            return [
                f"{self.root}: holds {others[0]}, which nucpro did not write; move it away, or name another output"
            ]
        said = self._said()
        if said and said.get("recipe") != recipe_key and not replace:
            return [
                f"{self.root}: holds vectors of an interrupted run, of another model or with other options; give "
                "those again to finish it, name another output, or start over with --replace"
            ]
        return []

    @property
    def part_size(self) -> PartSize | None:
        """Size of the parts of the run that was stopped here; None where there is none."""
        return _size_in(self._said())

    @contextmanager
    def held(self) -> Iterator[Runner]:
        """Make and lock the folder, so that one run writes there at a time."""
        make_folder(self.root)
        with Runner(self._lock) as runner:
            if not self._lock.exists():
                raise LockedError([f"{self.root}: another run finished there just now; run again"])
            remove_temporaries(self.output.parent, of=self.output.name)
            try:
                yield runner
            except BaseException:
                if not self._entries():
                    self.remove()
                raise
            finally:
                self._journal.close()

    def begin(self, recipe_key: str, size: PartSize, parts: Sequence[PartFacts], width: int) -> set[int]:
        """Resume, or start.

        Parameters
        ----------
        recipe_key : str
            What identifies the vectors but for their input.
        size : PartSize
            How the input was cut into parts.
        parts : sequence of PartFacts
            The parts of the input as it is now.
        width : int
            Columns of a row.

        Returns
        -------
        set of int
            Numbers of the parts that are done.
        """
        self._parts, self._width = parts, width
        said = self._said()
        if said.get("recipe") != recipe_key or _size_in(said) != size:
            for path in (*self._files(), self._journal_path):
                path.unlink(missing_ok=True)
            said = {}
        self._prepare()
        if not said:
            self._journal.append(
                [{"format": _FORMAT, "recipe": recipe_key, "part": [size.records, size.length]}]
            )
        return {
            number
            for number, entry in self._entries().items()
            if entry.get("input") == parts[number].digest and self._is_kept(number, entry)
        }

    def remove(self) -> None:
        """Remove the folder, unless it contains files of other origin, which are kept."""
        self._journal.close()
        with suppress(OSError):
            for path in self._own:
                path.unlink(missing_ok=True)
            self.root.rmdir()

    def remove_left(self) -> None:
        """Remove the folder of a run that was killed after it had made the output; not that of a run at work."""
        if os.path.lexists(self.root) and state(self._lock) == "none":
            self.remove()

    def _note(self, number: int, facts: Mapping[str, Any]) -> None:
        """Record a part that is on disk."""
        self._journal.append([{"number": number, "input": self._parts[number].digest, **facts}])

    def _entries(self) -> dict[int, Mapping[str, Any]]:
        """Lines about parts, by number; the last one of a part counts."""
        entries: dict[int, Mapping[str, Any]] = {}
        for entry in self._lines():
            number = entry.get("number")
            if type(number) is int and 0 <= number < len(self._parts):
                entries[number] = entry
        return entries

    def _said(self) -> Mapping[str, Any]:
        """First line of the journal: what makes the rows."""
        first = next(iter(self._lines()), {})
        return first if first.get("format") == _FORMAT else {}

    def _lines(self) -> list[dict[str, Any]]:
        with suppress(StoreError):
            return list(journal_entries(kept_lines(self._journal_path)))
        # One that cannot be read is ignored, and its parts are recomputed.
        return []


def _size_in(said: Mapping[str, Any]) -> PartSize | None:
    match said.get("part"):
        case [int(records), int(length)] if records > 0 and length > 0:
            return PartSize(records, length)
    return None


class Rows(Work):
    """Vectors of records, in one file."""

    def __init__(self, output: Path) -> None:
        super().__init__(output)
        self._rows = self.root / "rows.f32"

    def require_name(self) -> None:
        """Refuse a folder, and an unknown suffix."""
        if not self.output.name or self.output.is_dir():
            raise UsageError(f"--output is the folder {str(self.output)!r}; name a file in it")
        format_of(self.output)

    def unfit(self, facts: InputFacts, width: int) -> list[str]:
        """Why the form of the file does not take the vectors."""
        unfit = format_of(self.output).problem(facts.ids, len(facts.ids) * width * _FLOAT)
        return [f"{self.output}: a {self.output.suffix} file {unfit}; choose another suffix"] if unfit else []

    def disk(self, facts: InputFacts, width: int) -> Disk:
        """Bytes of the file, of the stored rows that it is assembled from, and of the file that it replaces."""
        size = len(facts.ids) * width * _FLOAT
        return Disk(size, max(0, size - allocated([self._rows])), allocated([self.output]))

    def own_meta(self) -> Mapping[str, Any] | None:
        """``meta`` of the file."""
        if not self.output.is_file():
            return None
        try:
            return own(made_by(self.output))
        except StoreError:
            return None

    @property
    def compute(self) -> Callable[[FastaEncoder, Part], Made]:
        """Vectors of the records of a part."""
        return _vectors_of

    def finish(self, ids: list[str], meta: Mapping[str, Any], sequence_type: SequenceType) -> None:
        """Write the file of all rows."""
        content = Content(ids, self.matrix(), meta, sequence_type)
        format_of(self.output).write(self.output, content)
        self.remove()

    def _files(self) -> list[Path]:
        return [self._rows]

    def _prepare(self) -> None:
        count = self._parts[-1].start + self._parts[-1].records
        with open_kept(self._rows, append=False) as file, _explained(self._rows):
            os.ftruncate(file.fileno(), count * self._width * _FLOAT)

    def _is_kept(self, number: int, entry: Mapping[str, Any]) -> bool:
        part = self._parts[number]
        return entry.get("sha256") == _digest(self.matrix()[part.start : part.start + part.records])

    def commit(self, number: int, rows: NDArray[np.float32]) -> None:
        """Keep the rows of a part.

        Raises
        ------
        StoreError
            They cannot be written.
        """
        part = self._parts[number]
        assert rows.shape == (part.records, self._width)
        data = np.ascontiguousarray(rows, "<f4")
        with open_kept(self._rows, append=False) as file, _explained(self._rows):
            file.seek(part.start * self._width * _FLOAT)
            write_all(file, data.data.cast("B"))
            # Written before its journal line.
            os.fdatasync(file.fileno())
        self._note(number, {"sha256": _digest(data)})

    def matrix(self) -> NDArray[np.float32]:
        """All rows, mapped."""
        count = self._parts[-1].start + self._parts[-1].records
        return np.memmap(self._rows, "<f4", "r", shape=(count, self._width))


def _vectors_of(encoder: FastaEncoder, part: Part) -> Made:
    vectors = encoder.embed_checked(part.records)
    return Made(vectors.matrix, time.perf_counter() - vectors.began)


def own(meta: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """``meta`` that this command wrote; None for any other."""
    return meta if meta is not None and meta.items() >= MARK.items() else None


def allocated(paths: Iterable[Path]) -> int:
    """Bytes of disk that files take."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _digest(rows: NDArray[np.float32]) -> str:
    return hashlib.sha256(rows.data.cast("B")).hexdigest()
