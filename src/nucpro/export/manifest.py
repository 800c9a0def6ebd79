"""Facts about the shards of an export: a journal during the export, then a manifest and checksums.

Facts come from :mod:`nucpro.export.exporting`. The manifest is there only while the export is complete; whoever
reads the folder needs nothing else to check it (``sha256sum -c _SHA256SUMS``). Neither holds times: equal work
gives equal bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from nucpro.errors import PreflightError, RecordError
from nucpro.export.formats import parquet_without_rows, text_of_parquet
from nucpro.folder.paths import CLASS_NAMES, ExportFolder
from nucpro.formats import write_bytes
from nucpro.formats.opening import is_litter, kept_lines, read_input
from nucpro.formats.records import (
    Count,
    Digest,
    Kept,
    Matching,
    Name,
    Within,
    checked,
    document,
    read_record,
    unsealed,
)
from nucpro.state.checkpoint import Journal, journal_lines

__all__ = ["Ledger", "Shard"]

_FORMAT = 1
_BELOW = r"(?!/)(?!(?:.*/)?\.\.(?:/|\Z)).+"
"""Paths that do not lead out of the folder: shards of no use are removed."""
_COLUMNS = "id, label, category, record, chunk, frame, source, row, vector"


@dataclass(frozen=True)
class Shard:
    """One exported file.

    Parameters
    ----------
    shard : str
        Its path below the folder of the export.
    source, source_sha256 : str
        Path of the merged file below the data folder, and SHA-256 of its bytes.
    rows, width : int
        Shape of its vectors.
    label : int
        1 for viral, 0 for host.
    category : str
        Category of all its rows.
    bytes : int
        Size of the shard.
    sha256 : str
        SHA-256 of the shard, in hexadecimal.
    """

    shard: Annotated[Name, Matching(_BELOW)]
    source: Name
    source_sha256: Digest
    rows: Count
    width: Count
    label: Annotated[int, Within(0, 1)]
    category: Name
    bytes: Count
    sha256: Digest


@dataclass(frozen=True)
class _Manifest:
    format: Literal[1]
    to: Name
    columns: list[Name]
    rows: Count
    width: Count
    classes: dict[str, Count]
    categories: dict[str, Count]
    shards: list[Shard]


@dataclass(frozen=True)
class _Line:
    """Line of the journal: a shard on disk, or the names of those to be made."""

    to: Name
    shard: Shard | None
    making: list[Name] | None = None


class Ledger:
    """The shards that an export folder is known to hold.

    Parameters
    ----------
    folder : ExportFolder
        The folder of the export.
    format_name : str
        Requested format.

    Raises
    ------
    PreflightError
        The folder holds an export in another format, or something else.
    """

    def __init__(self, folder: ExportFolder, format_name: str) -> None:
        self._folder = folder
        self._format = format_name
        self._journal = Journal(folder.journal)
        self.shards: dict[str, Shard] = {}
        self.hints: set[str] = set()
        self._making: set[str] | None = set()
        if not folder.root.is_dir():
            return
        formats = self._read()
        own = {folder.lock.name, folder.journal.name}
        present = {path.name for path in folder.root.iterdir()} - {folder.lock.name}
        if not formats and any(name in own or not is_litter(name) for name in present):
            raise PreflightError(
                [
                    f"{folder.root}: holds files that are not part of an export; name a new or an empty folder with -o"
                ]
            )
        if others := formats - {format_name}:
            raise PreflightError(
                [f"{folder.root}: holds an export to {', '.join(others)}; name another folder with -o"]
            )

    def is_own(self, name: str) -> bool:
        """Whether an export wrote a file of a shard's name, also if it was killed before it recorded that."""
        return self._making is None or name in self._making or name in self.shards

    def is_complete(self, names: Sequence[str]) -> bool:
        """Whether manifest and checksums are those of these shards, and nothing was begun after them."""
        folder = self._folder
        if set(self.shards) != set(names) or os.path.lexists(folder.journal):
            return False
        written = self._documents(names)
        return all(path.is_file() and read_input(path) == content for path, content in written.items())

    def begin(self, names: Collection[str], kept: Collection[str]) -> None:
        """Mark the folder as incomplete.

        Parameters
        ----------
        names : collection of str
            Shards of the export that begins; others that were written here are removed, so that readers of
            all files of the folder do not find them.
        kept : collection of str
            Shards that need not be made; all others are forgotten.
        """
        making = {"to": self._format, "shard": None, "making": sorted(set(names) - set(kept))}
        known = [
            shard for shard in self.shards.values() if shard.shard not in self.hints or shard.shard in kept
        ]
        self._journal.begin([making, *map(self._entry, known)])
        for path in self._folder.documents:
            path.unlink(missing_ok=True)
        for name in self.shards.keys() - set(names):
            self._folder.path_of(name).unlink(missing_ok=True)
        self.shards = {name: shard for name, shard in self.shards.items() if name in kept}

    def add(self, shard: Shard) -> None:
        """Record a shard on disk."""
        self.shards[shard.shard] = shard
        self._journal.append([self._entry(shard)])

    def finish(self, names: Sequence[str]) -> None:
        """Write checksums and manifest of the shards of an export, in their order."""
        for path, content in self._documents(names).items():
            write_bytes(path, content)
        self.close()
        self._folder.journal.unlink(missing_ok=True)

    def _documents(self, names: Sequence[str]) -> dict[Path, bytes | memoryview]:
        """Checksums and manifest as they are written."""
        shards = [self.shards[name] for name in names]
        manifest = document(self._content(shards))
        if self._format == "parquet":
            # A folder of Parquet files may contain nothing else.
            return {
                self._folder.parquet_manifest: parquet_without_rows(self._folder.path_of(names[0]), manifest)
            }
        sums = [(shard.sha256, shard.shard) for shard in shards]
        sums.append((hashlib.sha256(manifest).hexdigest(), self._folder.manifest.name))
        lines = "".join(_sum_line(*item) for item in sums)
        return {self._folder.checksums: lines.encode(), self._folder.manifest: manifest}

    def close(self) -> None:
        """Close the journal; what was recorded stays."""
        self._journal.close()

    def _entry(self, shard: Shard) -> dict[str, Any]:
        return {"to": self._format, "shard": asdict(shard)}

    def _content(self, shards: list[Shard]) -> dict[str, Any]:
        categories: Counter[str] = Counter()
        for shard in shards:
            categories[shard.category] += shard.rows
        classes = {
            name: sum(shard.rows for shard in shards if shard.label == label)
            for label, name in enumerate(CLASS_NAMES)
        }
        return {
            "format": _FORMAT,
            "to": self._format,
            "columns": _COLUMNS.split(", "),
            "rows": sum(shard.rows for shard in shards),
            "width": shards[0].width,
            "classes": classes,
            "categories": dict(sorted(categories.items())),
            "shards": [asdict(shard) for shard in shards],
        }

    def _read(self) -> set[str]:
        """Read manifest and journal, and return the formats that they name."""
        formats: set[str] = set()
        for kept in filter(None, map(self._manifest, self._folder.documents)):
            formats.add(kept.content.to)
            for shard in kept.content.shards:
                self._take(shard, is_sealed=kept.is_sealed)
        for entry, is_sealed in journal_lines(kept_lines(self._folder.journal)):
            try:
                line: _Line = checked(_Line, entry)
            except ValueError as error:
                raise RecordError(
                    f"{self._folder.journal}: {_WHAT} is damaged ({error}); {_NO_MANIFEST}"
                ) from error
            formats.add(line.to)
            if line.shard is not None:
                self._take(line.shard, is_sealed=is_sealed)
            if not is_sealed:
                # Earlier versions did not record what they were about to write.
                self._making = None
            elif self._making is not None:
                self._making.update(line.making or ())
        return formats

    def _manifest(self, path: Path) -> Kept[_Manifest] | None:
        if path.suffix == ".json":
            return read_record(path, _Manifest, _WHAT, _NO_MANIFEST)
        if path != self._folder.parquet_manifest or not path.is_file():
            return None
        try:
            plain, is_sealed = unsealed(text_of_parquet(path))
            return Kept(checked(_Manifest, plain), is_sealed)
        except ValueError as error:
            raise RecordError(f"{path}: {_WHAT} is damaged ({error}); {_NO_MANIFEST}") from error

    def _take(self, shard: Shard, *, is_sealed: bool) -> None:
        self.shards[shard.shard] = shard
        (self.hints.discard if is_sealed else self.hints.add)(shard.shard)


_WHAT = "the record of an export"
_NO_MANIFEST = "name a new folder with -o, or remove this one"


def _sum_line(digest: str, name: str) -> str:
    """One line as ``sha256sum`` writes it, which marks names with a backslash by one in front."""
    escaped = name.replace("\\", "\\\\")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"
