"""HDF5 files of vectors of residues: one dataset per record, as programs for proteins read them.

The layout is that of UniProt's and bio_embeddings' files: at the top a dataset ``[L, D]`` for each record, called as
the record, with its id as the attribute ``original_id``. Names in HDF5 have no slash: one in an id becomes ``_``.
Vectors are kept in shards while they are computed (:mod:`nucpro.vectors.residues`); the file is written from them at
the end, a record at a time, and then gets its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nucpro.errors import UsageError
from nucpro.formats import cannot_write, sync_folder
from nucpro.formats.records import decoded
from nucpro.formats.sequences import SequenceType
from nucpro.vectors.inputs import InputFacts
from nucpro.vectors.outputs import META
from nucpro.vectors.residues import Sharded, dumped, lengths_of
from nucpro.vectors.work import Disk, allocated, own

__all__ = ["HDF5_SUFFIXES", "Hdf5"]

HDF5_SUFFIXES = (".h5", ".hdf5")
_FILE = "residues.h5"


class Hdf5(Sharded):
    """Vectors of residues, in one HDF5 file."""

    def require_name(self) -> None:
        """Refuse a folder, and any file where HDF5 cannot be written."""
        if self.output.is_dir():
            raise UsageError(f"--output is the folder {str(self.output)!r}; name a file in it")
        if find_spec("h5py") is None:
            raise UsageError(f"{self.output}: needs h5py; install the extra: pip install 'nucpro[hdf5]'")

    def unfit(self, facts: InputFacts, width: int) -> list[str]:
        """Two records that would have the same name."""
        known: dict[str, str] = {}
        for record in facts.ids:
            other = known.setdefault(_name(record), record)
            if other != record:
                return [
                    f"{self.output}: {other!r} and {record!r} would both be the dataset {_name(record)!r}, since "
                    "names in HDF5 have no slash; rename one of them, or name a folder with --output"
                ]
        return []

    def disk(self, facts: InputFacts, width: int) -> Disk:
        """Bytes of the file, of the shards that it is assembled from, and of the file that it replaces."""
        size = facts.read * self._row(width)
        return Disk(size, self._missing(facts, width), allocated([self.output]))

    def own_meta(self) -> Mapping[str, Any] | None:
        """``meta`` of the file."""
        import h5py  # noqa: PLC0415 - an extra

        if not self.output.is_file():
            return None
        try:
            with h5py.File(self.output, "r") as file:
                meta = decoded(str(file.attrs[META]).encode())
        except (OSError, KeyError, ValueError, RuntimeError):
            return None
        return own(meta) if isinstance(meta, dict) else None

    def finish(self, ids: list[str], meta: Mapping[str, Any], sequence_type: SequenceType) -> None:
        """Write the file from the shards, and rename it to its final name."""
        made = self.root / _FILE
        with _explained(self.output):
            self._write(made, meta)
            made.replace(self.output)
        sync_folder(self.output.parent)
        self.remove()

    def _write(self, made: Path, meta: Mapping[str, Any]) -> None:
        import h5py  # noqa: PLC0415
        from safetensors import safe_open  # noqa: PLC0415

        # Records are listed in their order, not by name.
        with h5py.File(made, "x", track_order=True) as file:
            file.attrs[META] = dumped(meta).decode()
            for number in range(len(self._parts)):
                with safe_open(self._shard(number), framework="numpy") as tensors:
                    rows, first = tensors.get_slice("vector"), 0
                    for record, length in lengths_of(self._shard(number)).items():
                        dataset = file.create_dataset(_name(record), data=rows[first : first + length])
                        dataset.attrs["original_id"] = record
                        first += length
        with made.open("rb+") as whole:
            os.fsync(whole.fileno())

    def _files(self) -> list[Path]:
        made = self.root / _FILE
        return [*super()._files(), *([made] if os.path.lexists(made) else [])]


def _name(record: str) -> str:
    """Name of a record's dataset; a lone dot is the group itself in HDF5."""
    return "_" if record == "." else record.replace("/", "_")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        # h5py reports some errors of the system as its own, with their text only.
        told = error if isinstance(error, OSError) and error.strerror else OSError(None, str(error))
        raise cannot_write(path, told) from error
