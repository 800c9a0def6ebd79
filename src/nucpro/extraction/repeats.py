"""Ids that more than one merged file holds: a training script, which reads all of them, would see their rows twice.

Goes over names of merged files and gives messages. Of the files outside the selection, of which there are few, all
ids are held, as digests of 8 bytes; those of the selected files are read one file after the other, so that memory
does not grow with the data set. A digest only says where to look: what is told was found by comparing the ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import StoreError, first_few
from nucpro.execution.workers import Workers
from nucpro.formats import read_ids

__all__ = ["repeated_ids"]

Digests = NDArray[np.uint64]

_BYTES = 8


@dataclass(frozen=True)
class _Suspect:
    """A file outside the selection, and files that seem to hold ids of it."""

    path: Path
    others: tuple[Path, ...]


def repeated_ids(outside: Sequence[Path], selected: Iterable[Path], workers: Workers) -> list[str]:
    """Find merged files outside the selection whose ids are also in other merged files.

    Parameters
    ----------
    outside, selected : paths
        Merged files that belong to no selected pair, and those that do; files that cannot be read are passed over.
    workers : Workers
        Where files are read.

    Returns
    -------
    list of str
        One message a file outside the selection, sorted.
    """
    if not outside:
        return []
    suspects = _suspects(dict(workers.map(_digests, outside)), workers.map(_digests, selected))
    return sorted(message for message in workers.map(_message, suspects) if message)


def _suspects(outside: dict[Path, Digests], selected: Iterable[tuple[Path, Digests]]) -> list[_Suspect]:
    paths = list(outside)
    digests = np.concatenate(list(outside.values()))
    owners = np.repeat(np.arange(len(paths)), [len(found) for found in outside.values()])
    order = np.argsort(digests, kind="stable")
    digests, owners = digests[order], owners[order]
    others: list[set[Path]] = [set() for _ in paths]
    for path, found in selected:
        for owner in np.unique(owners[np.isin(digests, found)]):
            others[owner].add(path)
    for start in np.flatnonzero(digests[1:] == digests[:-1]):
        one, two = owners[start], owners[start + 1]
        others[one].add(paths[two])
        others[two].add(paths[one])
    return [_Suspect(path, tuple(sorted(found))) for path, found in zip(paths, others, strict=True) if found]


def _digests(path: Path) -> tuple[Path, Digests]:
    """Digests of the ids of a file; of none where it cannot be read, which others report."""
    digests = (hashlib.blake2b(name.encode(), digest_size=_BYTES).digest() for name in _ids(path))
    return path, np.frombuffer(b"".join(digests), np.uint64)


def _ids(path: Path) -> list[str]:
    try:
        return read_ids(path)
    except (StoreError, OSError):
        return []


def _message(suspect: _Suspect) -> str | None:
    ids = _ids(suspect.path)
    names, repeated, files = set(ids), set(), []
    for other in suspect.others:
        shared = names.intersection(_ids(other))
        if shared:
            files.append(other)
            repeated |= shared
    if not files:
        return None
    first = next(name for name in ids if name in repeated)
    others = first_few([str(path) for path in files], 1)
    return (
        f"{suspect.path}: outside the selection, and {len(repeated)} of its {len(ids)} ids are also in {others} "
        f"(first: {first}); a training script would read their rows twice: remove it, or move it out of this folder"
    )
