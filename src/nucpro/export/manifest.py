"""What is known about the shards of an export: a journal while it is made, a manifest and checksums when it is done.

Facts come from :mod:`nucpro.export.exporting`. The manifest is there only while the export is complete; whoever
reads the folder needs nothing else to check it (``sha256sum -c _SHA256SUMS``). Neither holds times: equal work
gives equal bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from nucpro.errors import PreflightError
from nucpro.export.formats import parquet_without_rows, text_of_parquet
from nucpro.folder.paths import CLASS_NAMES, ExportFolder
from nucpro.formats import document, parsed, write_bytes
from nucpro.formats.opening import is_litter, read_kept
from nucpro.state.checkpoint import Journal, journal_entries

__all__ = ["Ledger", "Shard"]

_FORMAT = 1
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

    shard: str
    source: str
    source_sha256: str
    rows: int
    width: int
    label: int
    category: str
    bytes: int
    sha256: str


class Ledger:
    """The shards that an export folder is known to hold.

    Parameters
    ----------
    folder : ExportFolder
        The folder of the export.
    format_name : str
        Format that is wanted.

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
        if not folder.root.is_dir():
            return
        found = list(self._found())
        own = {folder.lock.name, folder.journal.name}
        present = {path.name for path in folder.root.iterdir()} - {folder.lock.name}
        if not found and any(name in own or not is_litter(name) for name in present):
            raise PreflightError(
                [f"{folder.root}: holds files that are no export; name a new or an empty folder with -o"]
            )
        if others := {name for name, _ in found} - {format_name}:
            raise PreflightError(
                [f"{folder.root}: holds an export to {', '.join(others)}; name another folder with -o"]
            )
        self.shards = {shard.shard: shard for _, shard in found if shard is not None}

    @property
    def is_complete(self) -> bool:
        """Whether manifest and checksums are there, and nothing was begun after them."""
        return all(path.is_file() for path in self._own) and not self._folder.journal.exists()

    @property
    def _own(self) -> tuple[Path, ...]:
        """What says that the export is complete: nothing but Parquet lies in a folder of Parquet files."""
        folder = self._folder
        return (
            (folder.parquet_manifest,) if self._format == "parquet" else (folder.checksums, folder.manifest)
        )

    def begin(self, names: Collection[str], kept: Collection[str]) -> None:
        """Say that the folder is not complete any more.

        Parameters
        ----------
        names : collection of str
            Shards of the export that begins; others that were written here are removed, so that readers of
            all files of the folder do not find them.
        kept : collection of str
            Shards that need not be made; all others are forgotten.
        """
        self._journal.begin([self._entry(shard) for shard in (None, *self.shards.values())])
        for path in (*self._own, *self._folder.former):
            path.unlink(missing_ok=True)
        for name in self.shards.keys() - set(names):
            self._folder.path_of(name).unlink(missing_ok=True)
        self.shards = {name: shard for name, shard in self.shards.items() if name in kept}

    def add(self, shard: Shard) -> None:
        """Record a shard that lies on disk."""
        self.shards[shard.shard] = shard
        self._journal.append([self._entry(shard)])

    def finish(self, names: Sequence[str]) -> None:
        """Write checksums and manifest of the shards of an export, in their order."""
        shards = [self.shards[name] for name in names]
        manifest = document(self._content(shards))
        if self._format == "parquet":
            like = self._folder.path_of(names[0])
            write_bytes(self._folder.parquet_manifest, parquet_without_rows(like, manifest))
        else:
            sums = [(shard.sha256, shard.shard) for shard in shards]
            sums.append((hashlib.sha256(manifest).hexdigest(), self._folder.manifest.name))
            write_bytes(self._folder.checksums, "".join(_sum_line(*item) for item in sums).encode())
            write_bytes(self._folder.manifest, manifest)
        self.close()
        self._folder.journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the journal; what was recorded stays."""
        self._journal.close()

    def _entry(self, shard: Shard | None) -> dict[str, Any]:
        return {"to": self._format, "shard": asdict(shard) if shard else None}

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

    def _found(self) -> Iterator[tuple[str, Shard | None]]:
        """Formats and shards that manifest and journal tell of; what is damaged is unknown."""
        folder = self._folder
        texts = [_bytes_of(path) for path in (folder.manifest, folder.former[0])]
        if folder.parquet_manifest.is_file():
            texts.append(text_of_parquet(folder.parquet_manifest))
        for content in map(parsed, texts):
            if isinstance(content.get("shards"), list):
                yield from ((str(content.get("to")), _shard(entry)) for entry in content["shards"])
        for entry in journal_entries(read_kept(self._folder.journal), or_plain=True):
            if "to" in entry:
                yield str(entry["to"]), _shard(entry.get("shard"))


def _sum_line(digest: str, name: str) -> str:
    """One line as ``sha256sum`` writes it, which marks names with a backslash by one in front."""
    escaped = name.replace("\\", "\\\\")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _shard(entry: object) -> Shard | None:
    if not isinstance(entry, dict) or entry.keys() != {field.name for field in fields(Shard)}:
        return None
    kinds = {"rows": int, "width": int, "label": int, "bytes": int}
    if not all(isinstance(value, kinds.get(name, str)) for name, value in entry.items()):
        return None
    # A path that leads out of the folder is none of ours: shards of no use are removed.
    path = PurePosixPath(entry["shard"])
    return None if path.is_absolute() or ".." in path.parts else Shard(**entry)
