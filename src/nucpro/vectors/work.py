"""What an unfinished file of vectors has so far: rows in one file beside it, and a journal that says which are right.

Rows come in part by part, in any order; when all are there, they go to :mod:`nucpro.vectors.outputs` as one mapped
array, and the folder is removed. A part that is believed later has the digest that was recorded for its numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import LockedError, StoreError
from nucpro.execution.runner import Runner
from nucpro.formats import cannot_write, make_folder
from nucpro.formats.opening import open_kept, read_kept
from nucpro.state.checkpoint import Journal, journal_entries
from nucpro.state.lock import state
from nucpro.vectors.inputs import PartFacts, PartSize

__all__ = ["Work"]

_FORMAT = 1
_FLOAT = 4


class Work:
    """The folder beside an output that holds what is done of it.

    Parameters
    ----------
    output : Path
        The file to be.
    """

    def __init__(self, output: Path) -> None:
        self.root = output.with_name(f"{output.name}.unfinished")
        self._lock = self.root / ".lock"
        self._rows = self.root / "rows.f32"
        self._journal_path = self.root / "parts.jsonl"
        self._journal = Journal(self._journal_path)
        self._parts: Sequence[PartFacts] = ()
        self._width = 0

    @property
    def _own(self) -> tuple[Path, ...]:
        return self._rows, self._journal_path, self._lock

    def problems(self, recipe_key: str, *, replace: bool) -> list[str]:
        """Why a run cannot go on here, or begin: the folder is of another run, or holds something else."""
        if not os.path.lexists(self.root):
            return []
        names = {path.name for path in self._own}
        try:
            others = sorted(entry.name for entry in os.scandir(self.root) if entry.name not in names)
        except OSError as error:
            return [f"{self.root}: cannot be read ({error.strerror}); name another output"]
        if others:
            return [
                f"{self.root}: holds {others[0]}, which no run put there; move it away, or name another output"
            ]
        said = self._said()
        if said and said.get("recipe") != recipe_key and not replace:
            return [
                f"{self.root}: holds vectors of a run that was stopped, of another model or with other options; give "
                "those again to finish it, name another output, or start over with --replace"
            ]
        return []

    @property
    def part_size(self) -> PartSize | None:
        """Size of the parts of the run that was stopped here; None where there is none."""
        size = self._said().get("part")
        match size:
            case [int(records), int(length)] if records > 0 and length > 0:
                return PartSize(records, length)
        return None

    @property
    def kept_bytes(self) -> int:
        """Disk that the rows take already."""
        try:
            return self._rows.lstat().st_blocks * 512
        except OSError:
            return 0

    @contextmanager
    def held(self) -> Iterator[Runner]:
        """Make the folder and hold it, so that one run writes there at a time."""
        make_folder(self.root)
        with Runner(self._lock) as runner:
            if not self._lock.exists():
                raise LockedError([f"{self.root}: another run finished there just now; run again"])
            try:
                yield runner
            except BaseException:
                if not self._entries():
                    self.remove()
                raise
            finally:
                self._journal.close()

    def begin(self, recipe_key: str, size: PartSize, parts: Sequence[PartFacts], width: int) -> set[int]:
        """Go on with what is there, or begin.

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
        if said.get("recipe") != recipe_key or self.part_size != size:
            for path in (self._rows, self._journal_path):
                path.unlink(missing_ok=True)
            said = {}
        with open_kept(self._rows, append=False) as file, _explained(self._rows):
            os.ftruncate(file.fileno(), (parts[-1].start + parts[-1].records) * width * _FLOAT)
        if not said:
            self._journal.append(
                [{"format": _FORMAT, "recipe": recipe_key, "part": [size.records, size.length]}]
            )
        rows = self.matrix()
        return {
            number
            for number, entry in self._entries().items()
            if entry.get("input") == parts[number].digest
            and entry.get("sha256") == _digest(self._of(rows, number))
        }

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
        place = part.start * self._width * _FLOAT
        left = data.data.cast("B")
        with open_kept(self._rows, append=False) as file, _explained(self._rows):
            while left:
                written = os.pwrite(file.fileno(), left, place)
                place, left = place + written, left[written:]
            # Before the line that says so.
            os.fdatasync(file.fileno())
        self._journal.append([{"number": number, "input": part.digest, "sha256": _digest(data)}])

    def matrix(self) -> NDArray[np.float32]:
        """All rows, mapped."""
        count = self._parts[-1].start + self._parts[-1].records
        return np.memmap(self._rows, "<f4", "r", shape=(count, self._width))

    def remove(self) -> None:
        """Remove the folder, unless it contains files of other origin, which are kept."""
        self._journal.close()
        with suppress(OSError):
            for path in self._own:
                path.unlink(missing_ok=True)
            self.root.rmdir()

    def remove_left(self) -> None:
        """Remove the folder of a run that was killed after it had made the file; not that of a run at work."""
        if os.path.lexists(self.root) and state(self._lock) == "none":
            self.remove()

    def _of(self, rows: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        part = self._parts[number]
        return rows[part.start : part.start + part.records]

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
        first = next(self._lines(), {})
        return first if first.get("format") == _FORMAT else {}

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            raw = read_kept(self._journal_path)
        except StoreError:
            # It says nothing then, and its parts are computed again.
            return iter(())
        return journal_entries(raw)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _digest(rows: NDArray[np.float32]) -> str:
    return hashlib.sha256(rows.data.cast("B")).hexdigest()
