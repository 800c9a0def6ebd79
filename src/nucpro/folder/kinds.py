"""Kinds of folders, by name and content: a data folder, a part of one, a classifier, an encoder.

Commands that write refuse folders of another kind (:func:`require_place`); commands that read report the kind of a
folder that they cannot use. Only names and small files are read; nothing is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from nucpro.errors import DataError, PreflightError, UsageError
from nucpro.folder.paths import DataFolder, ExportFolder, walk
from nucpro.formats.opening import read_input
from nucpro.formats.records import decoded

__all__ = [
    "CARD_NAME",
    "CONFIG",
    "STATE_NAME",
    "Kind",
    "Known",
    "holds_data",
    "is_folder",
    "known_folder",
    "place_problems",
    "require_folder",
    "require_place",
    "require_sequences",
]

CARD_NAME = "model.json"
"""Card of a classifier; it is written last, so a folder with a card that fits its weights is complete."""
STATE_NAME = ".training.safetensors"
"""State of a training, in the folder of its classifier."""

CONFIG = "config.json"
"""Configuration of an encoder."""
_ADAPTER_CONFIG = "adapter_config.json"
_DATA_ENDS = (
    ".identified_nucleotide.fa",
    ".identified_protein.fa",
    ".identified.json",
    ".genomic.fna.gz",
    ".genomic.gbff.gz",
)
"""Ends of names of files that only data folders hold, in the folder itself or in one below."""
_MERGED = DataFolder(Path()).merge_root.name
_OF_RUNS = frozenset(
    path.name
    for folder in (DataFolder(Path()),)
    for path in (folder.checkpoint, folder.selection, folder.history)
)
_RECORDS = _OF_RUNS | {_MERGED}
"""Names that only data folders hold."""
_EXPORT = ExportFolder(Path())
_OF_FORMER_EXPORTS = frozenset(path.name for path in _EXPORT.former)
_OF_EXPORTS = frozenset(path.name for path in (*_EXPORT.documents, _EXPORT.journal)) - _OF_FORMER_EXPORTS
"""Names that only exports hold; those of earlier versions hold both of the more common names above."""
_VECTORS = re.compile(r"output_[1-9][0-9]*_(?:DNABERT_S|ESM)\.pt")
_MERGED_FILE = re.compile(r"output_[1-9][0-9]*_merged\.pt")
_SPLIT_ENDS = ("identified_nucleotide", "identified_protein")


class Kind(StrEnum):
    """Kinds of folders, in words for a message."""

    DATA = "a data folder"
    SPLIT = "a folder of split files and vectors"
    MERGED = "the folder of merged files"
    CLASSIFIER = "the folder of a classifier"
    ENCODER = "the folder of an encoder"
    EXPORT = "the folder of an export"
    CACHE = "a cache of models from the hub"


@dataclass(frozen=True)
class Known:
    """A folder that is known.

    Parameters
    ----------
    kind : Kind
        What it is.
    data : Path, optional
        The data folder, if it is one or a part of one and that is found.
    lies_in : bool
        Whether it is within such a folder, not such a folder itself.
    """

    kind: Kind
    data: Path | None = None
    lies_in: bool = False

    def __str__(self) -> str:
        is_part = self.kind is not Kind.DATA and self.data is not None
        return f"{'is within' if self.lies_in else 'is'} {self.kind}{f' of {self.data}' if is_part else ''}"


def known_folder(path: Path) -> Known | None:
    """Kind of a folder; None if unknown. A folder that is not there can be a part of a data folder.

    Parameters
    ----------
    path : Path
        Relative, absolute, or a symbolic link.
    """
    if _is_data(_names(path)):
        return Known(Kind.DATA, path)
    # A part may be a link to another place, or be behind a link.
    for name in (os.path.normpath(path.absolute()), os.path.realpath(path)):
        part = None
        with suppress(OSError):  # a name that no file system takes
            part = _part_with(Path(name))
        if part is not None:
            return part if path.is_absolute() or part.data is None else replace(part, data=_shown(part.data))
    names = set(_names(path))
    signs = {
        # Single files of these names may have been copied to any folder.
        Kind.MERGED: path.name.endswith("_merged") and any(map(_MERGED_FILE.fullmatch, names)),
        Kind.SPLIT: "output_1.fa" in names and any(map(_VECTORS.fullmatch, names)),
        Kind.CLASSIFIER: STATE_NAME in names or {CARD_NAME, "model.safetensors"} <= names,
        Kind.EXPORT: names >= _OF_FORMER_EXPORTS or not names.isdisjoint(_OF_EXPORTS),
        Kind.ENCODER: _ADAPTER_CONFIG in names or _is_config(path / CONFIG),
        Kind.CACHE: {"refs", "snapshots"} <= names or any(name.startswith("models--") for name in names),
    }
    return next((Known(kind) for kind, found in signs.items() if found), None)


def holds_data(root: Path) -> bool:
    """Whether a folder has records or files of a data folder, in itself or below."""
    with suppress(PreflightError):  # an unreadable file is reported where it is used
        return _is_data(_names(root)) or any(_is_data(names) for _, names in walk(root))
    return False


def _names(folder: Path) -> Iterator[str]:
    """Names in a folder; none if it cannot be read, which is reported where it is used."""
    with suppress(OSError), os.scandir(folder) as entries:
        yield from (entry.name for entry in entries)


def _is_data(names: Iterable[str]) -> bool:
    return any(name in _RECORDS or name.endswith(_DATA_ENDS) for name in names)


def _part_with(path: Path) -> Known | None:
    """Part of a data folder that an absolute path is, or is within."""
    for part in (path, *path.parents):
        if part.name == _MERGED and _is_merged(part):
            return Known(Kind.MERGED, part.parent, part != path)
        if part.name.endswith(_SPLIT_ENDS) and part.with_name(f"{part.name}.fa").is_file():
            recorded = (above for above in part.parents if not _RECORDS.isdisjoint(_names(above)))
            return Known(Kind.SPLIT, next(recorded, part.parent), part != path)
    return None


def _is_merged(folder: Path) -> bool:
    """Distinguish the folder of merged files from others of its name."""
    beside = (name for name in _names(folder.parent) if name != _MERGED)
    return _is_data(beside) or any(name.endswith("_merged") for name in _names(folder))


def _shown(folder: Path) -> Path:
    """Path below the working directory, if it is there."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _is_config(path: Path) -> bool:
    """Whether a file is the configuration of a model; other programs have files of that name."""
    with suppress(DataError, ValueError):
        content = decoded(read_input(path))
        return isinstance(content, dict) and "model_type" in content
    return False


def place_problems(folder: Path, purpose: str, allowed: Collection[Kind] = ()) -> list[str]:
    """Pre-flight problems: a command would write its files into a folder of another kind, or below a file.

    Parameters
    ----------
    folder : Path
        Folder that files are written to.
    purpose : str
        Name of a folder for these files, for the message.
    allowed : collection of Kind
        Kinds of folders that the command may write to.

    Returns
    -------
    list of str
        Problems, each in one message.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not is_folder(there):
        which = _no_folder(there) if there == folder else f"{there} {_no_folder(there)}"
        return [f"{folder}: {which}, not a folder; move it away, or name another folder"]
    known = known_folder(folder)
    if known is None or known.kind in allowed:
        return []
    return [f"{folder}: {known}, which takes no other files; name another folder, such as {purpose}"]


_OPTIONS = {Kind.CLASSIFIER: "--model", Kind.ENCODER: "--protein-model or --dna-model"}


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; a name that no file system takes is reported where it is opened."""
    with suppress(OSError):
        return path.is_dir()
    return False


def require_sequences(inputs: Iterable[Path]) -> None:
    """Raise if the folder of a model is given where files of sequences are.

    Raises
    ------
    UsageError
        The message names the option that takes it.
    """
    for path in inputs:
        known = known_folder(path) if is_folder(path) else None
        if known is not None and known.kind in _OPTIONS:
            raise UsageError(f"{path}: {known}, not a file of sequences; give it with {_OPTIONS[known.kind]}")


def require_place(folder: Path, purpose: str, allowed: Collection[Kind]) -> None:
    """Raise if a command would write its files into a folder of another kind; see :func:`place_problems`.

    Raises
    ------
    PreflightError
        The message names the folder, what it is, and another place.
    """
    if problems := place_problems(folder, purpose, allowed):
        raise PreflightError(problems)


def require_folder(root: Path) -> None:
    """Raise if a data folder does not exist, is another kind of folder, or only lies above a data folder.

    Raises
    ------
    PreflightError
        The message names the folder, and the data folder that may be meant.
    """
    if not root.is_dir():
        if not os.path.lexists(root):
            raise PreflightError([f"{root}: no such folder; give the path of the data folder"])
        raise PreflightError([f"{root}: {_no_folder(root)}, not a data folder{_meant(root.parent)}"])
    known = known_folder(root)
    if known is not None and known.kind is not Kind.DATA:
        raise PreflightError([f"{root}: {known}, not a data folder{_meant(root)}"])
    if known is None and (below := _data_below(root)) is not None:
        raise PreflightError([f"{root}: holds the data folder {below}, and is none itself; name {below}"])


def _data_below(root: Path) -> Path | None:
    """First folder below that records runs of its own; None if there is none, or folders cannot be read."""
    with suppress(PreflightError):
        folders = walk(root, lambda _, name, __: name.endswith(_SPLIT_ENDS))
        return next((folder for folder, _ in folders if not _OF_RUNS.isdisjoint(_names(folder))), None)
    return None


def _no_folder(path: Path) -> str:
    """What a path is that is no folder, in words."""
    is_dangling = path.is_symlink() and not path.exists()
    return f"is a link to {path.readlink()}, which does not exist" if is_dangling else "is a file"


def _meant(path: Path) -> str:
    """Remedy that names the data folder around a path."""
    known = known_folder(path)
    if known is None or known.data is None:
        return "; give the path of the data folder"
    return f"; name {known.data}"
