"""Folders of vectors of residues: shards of neighbouring records, and an index with the position of each record.

A shard is a safetensors file with one tensor, ``vector`` ``[R, D]``: the residues of its first record, then those of
the next. Each is written by whoever computed it, as soon as it is computed; the folder takes its name when all shards
and ``index.json`` are in it. The first line of the index is all of it but the records, which take one line each::

    {"format":1,"meta":{...},"element_type":"float16","width":1280,"shards":[{"file":...},...],"records":{
    "id":[shard, first row, rows],
    ...
    }}
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nucpro.errors import NucproError, StoreError, UsageError
from nucpro.formats import Written, cannot_write, remove_temporaries, replace_file, sync_folder
from nucpro.formats.atomic import TEMPORARY_MARK
from nucpro.formats.opening import file_digest, open_input
from nucpro.formats.records import Count, Digest, Name, checked, decoded
from nucpro.formats.sequences import SequenceType
from nucpro.state.checkpoint import Fingerprint
from nucpro.vectors.inputs import InputFacts, Part
from nucpro.vectors.outputs import FORMATS, META, write_tensor
from nucpro.vectors.work import Disk, Made, Work, allocated, own

if TYPE_CHECKING:
    from nucpro.embedding.encoder import FastaEncoder

__all__ = ["INDEX", "Sharded", "Shards", "dumped", "lengths_of", "write_shard"]

INDEX = "index.json"
_FORMAT: Literal[1] = 1
_RECORDS = b',"records":{\n'
_SHARD = re.compile(r"residues-\d{5,}\.safetensors")


@dataclass(frozen=True)
class _Shard:
    """A file of a folder; ``bytes`` is its size."""

    file: Name
    bytes: Count
    sha256: Digest
    records: Count
    residues: Count


@dataclass(frozen=True)
class _Head:
    """First line of an index."""

    format: Literal[1]
    meta: dict[str, Any]
    element_type: Name
    width: Count
    shards: list[_Shard]


class Sharded(Work):
    """Vectors of residues, kept in shards while they are computed.

    Parameters
    ----------
    output : Path
        What will be made of the shards.
    element_type : str
        One of :data:`nucpro.models.config.RESIDUE_TYPES`.
    """

    def __init__(self, output: Path, element_type: str) -> None:
        super().__init__(output)
        self._element_type = element_type

    @property
    def compute(self) -> Callable[[FastaEncoder, Part], Made]:
        """Write the shard of a part, where it is computed."""
        return partial(write_shard, self.root.absolute())

    def commit(self, number: int, made: Written) -> None:
        """Record a shard that is on disk.

        Raises
        ------
        StoreError
            It is not there: a worker of a cluster wrote it somewhere else.
        """
        stamp = Fingerprint.of(self._shard(number))
        if stamp is None or stamp.size != made.size:
            raise StoreError(
                f"{self._shard(number)}: was written, but is missing here; with --engine ray, name an output on a file "
                "system that all nodes share"
            )
        self._note(number, {"sha256": made.digest, "stamp": stamp.as_list()})

    def _shard(self, number: int) -> Path:
        return self.root / _name(number)

    def _files(self) -> list[Path]:
        names = _names(self.root)
        return [self.root / name for name in names if _SHARD.fullmatch(name) or _is_temporary(name)]

    def _prepare(self) -> None:
        remove_temporaries(self.root)
        wanted = {self._shard(number) for number in range(len(self._parts))}
        for path in self._files():
            if path not in wanted:
                path.unlink()

    def _is_kept(self, number: int, entry: Mapping[str, Any]) -> bool:
        path = self._shard(number)
        stamp = Fingerprint.of(path)
        if stamp is None or stamp.as_list() == entry.get("stamp"):
            return stamp is not None
        return file_digest(path) == entry.get("sha256")

    def _row(self, width: int) -> int:
        return width * np.dtype(self._element_type).itemsize

    def _missing(self, facts: InputFacts, width: int) -> int:
        """Bytes of the shards that are not there."""
        return max(0, facts.read * self._row(width) - allocated(self._files()))


class Shards(Sharded):
    """Vectors of residues, in a folder of shards."""

    def require_name(self) -> None:
        """Refuse the name of a file."""
        if not self.output.name or self.output.suffix in FORMATS:
            raise UsageError(
                f"--output is {str(self.output)!r}; with --per-residue it is the name of a folder to create, without "
                f"{self.output.suffix or 'dots alone'}"
            )

    def target_problems(self, *, replace: bool) -> list[str]:
        """Why the folder cannot be replaced: this command made none of it, or not all."""
        if self.output.is_symlink() or (self.output.exists() and not self.output.is_dir()):
            return [f"{self.output}: is not a folder, and is never replaced; name another place"]
        if self.output.is_mount():
            return [f"{self.output}: is a mount point, which no folder can replace; name a new folder in it"]
        names = _names(self.output)
        if all(map(_is_own, names)) and (not names or self._is_replaced or self._head() is not None):
            return []
        return [
            f"{self.output}: is a folder, and there is no record that this command wrote all of it; name another "
            "place, or move it away"
        ]

    def problems(self, recipe_key: str, *, replace: bool) -> list[str]:
        """Why a run cannot resume or start here: the folder, or the one to be replaced, belongs to another run."""
        problems = super().problems(recipe_key, replace=replace)
        if not replace and not self._is_replaced and _names(self.output):
            problems.append(
                f"{self.output}: holds vectors of other records, of another model or with other options; name another "
                "place, or replace them with --replace"
            )
        return problems

    @property
    def _is_replaced(self) -> bool:
        """Whether a run was killed while it put its folder in the place of another."""
        return (self.root / INDEX).exists()

    def unfit(self, facts: InputFacts, width: int) -> list[str]:
        """Nothing: a folder takes any number of shards."""
        return []

    def disk(self, facts: InputFacts, width: int) -> Disk:
        """Bytes of the shards that are not there; a folder that is replaced is kept beside them to the end."""
        replaced = allocated(self.output / name for name in _names(self.output))
        return Disk(self._missing(facts, width), 0, replaced)

    def own_meta(self) -> Mapping[str, Any] | None:
        """``meta`` of the folder, if no shard lacks."""
        head = self._head()
        if head is None:
            return None
        for shard in head.shards:
            stamp = Fingerprint.of(self.output / shard.file)
            if stamp is None or stamp.size != shard.bytes:
                return None
        return head.meta

    def finish(self, ids: list[str], meta: Mapping[str, Any], sequence_type: SequenceType) -> None:
        """Write the index, and rename the folder to its final name."""
        self._write_index(meta)
        self._journal.close()
        # The index goes first: what is left of it after a stop is no folder of vectors.
        try:
            for name in sorted(_names(self.output)):
                (self.output / name).unlink()
            self.root.rename(self.output)
        except OSError as error:
            raise cannot_write(self.output, error) from error
        sync_folder(self.output.parent)
        self._remove_records()

    def remove_left(self) -> None:
        """Remove what a run that was killed at its very end left."""
        super().remove_left()
        self._remove_records()

    def _remove_records(self) -> None:
        with suppress(OSError):
            for path in (self._journal_path, self._lock):
                (self.output / path.name).unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        index = self.root / INDEX
        return [*super()._files(), *([index] if os.path.lexists(index) else [])]

    def _write_index(self, meta: Mapping[str, Any]) -> None:
        entries = self._entries()
        shards, blocks = [], []
        for number in range(len(self._parts)):
            lengths = lengths_of(self._shard(number))
            size, digest = self._shard(number).stat().st_size, entries[number]["sha256"]
            shards.append(_Shard(_name(number), size, digest, len(lengths), sum(lengths.values())))
            blocks.append(b",\n".join(_lines(number, lengths)))
        head = _Head(_FORMAT, dict(meta), self._element_type, self._width, shards)
        with replace_file(self.root / INDEX) as target:
            target.write(dumped(asdict(head))[:-1] + _RECORDS)
            for block in blocks[:-1]:
                target.write(block + b",\n")
            target.write(blocks[-1] + b"\n}}\n")

    def _head(self) -> _Head | None:
        """First line of the index of a folder that this command made; None where there is none."""
        try:
            with open_input(self.output / INDEX, StoreError) as file:
                line = file.readline()
            head: _Head = checked(_Head, decoded(line.removesuffix(_RECORDS) + b"}"), INDEX)
        except (NucproError, ValueError, OSError):
            return None
        return None if own(head.meta) is None else head


def write_shard(folder: Path, encoder: FastaEncoder, part: Part) -> Made:
    """Compute the vectors of the residues of a part, and write its shard into a folder."""
    vectors = encoder.embed_checked(part.records)
    assert vectors.residues is not None
    metadata = {
        META: dumped(encoder.recipe.meta(part.records.digest(), len(part.records))).decode(),
        "id": dumped(part.records.ids).decode(),
        "length": dumped(vectors.residues.tolist()).decode(),
    }
    with encoder.writing():
        written = write_tensor(folder / _name(part.number), vectors.matrix, metadata)
    return Made(written, time.perf_counter() - vectors.began)


def lengths_of(shard: Path) -> dict[str, int]:
    """Residues of each record of a shard, by id, in order."""
    from safetensors import safe_open  # noqa: PLC0415 - torch-free, and not needed by other outputs

    with safe_open(shard, framework="numpy") as tensors:
        metadata = tensors.metadata()
    return dict(zip(json.loads(metadata["id"]), json.loads(metadata["length"]), strict=True))


def _lines(shard: int, lengths: Mapping[str, int]) -> Iterator[bytes]:
    row = 0
    for name, length in lengths.items():
        yield dumped(name) + b":" + dumped([shard, row, length])
        row += length


def _name(number: int) -> str:
    return f"residues-{number:05d}.safetensors"


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and TEMPORARY_MARK in name


def _is_own(name: str) -> bool:
    return name in (INDEX, ".lock", "parts.jsonl") or _SHARD.fullmatch(name) is not None


def dumped(value: object) -> bytes:
    """JSON of a value; equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
