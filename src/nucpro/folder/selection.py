"""Which files are used: all full viral files, and a balanced choice of full host files.

Pure functions of file pairs and their record counts; the result is recorded in the data folder before
work starts (:func:`save`) and reused by later runs (:func:`load`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nucpro.errors import PreflightError, RecordError, counted
from nucpro.folder.paths import HOST_CATEGORIES, SEED, VIRAL, DataFolder, FilePair
from nucpro.formats.records import Count, Name, read_record, write_record
from nucpro.options import HostSelection

__all__ = ["Recorded", "Selection", "draw_hosts", "load", "save", "select"]


@dataclass(frozen=True)
class Selection:
    """The files of a run.

    Parameters
    ----------
    viral, hosts : tuple of FilePair
        Full files, naturally sorted.
    reason : str
        How the hosts were chosen: ``recorded``, ``existing``, ``seeded`` or ``all``.
    warnings : tuple of str
        Warnings for the summary about the balance of classes.
    """

    viral: tuple[FilePair, ...]
    hosts: tuple[FilePair, ...]
    reason: str
    warnings: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[FilePair, ...]:
        """All files in the order of work: viral first."""
        return self.viral + self.hosts


@dataclass(frozen=True)
class Recorded:
    """A selection that an earlier run recorded.

    Parameters
    ----------
    sequences_per_file : int
        Records of a full file then.
    hosts : tuple of str
        Keys of the chosen host files (:attr:`nucpro.folder.paths.FilePair.key`).
    reason : str
        Why they were chosen then.
    viral : tuple of str
        Keys of the viral files then.
    format : int
        Version of this record.
    """

    sequences_per_file: Count
    hosts: tuple[Name, ...]
    reason: Name
    viral: tuple[Name, ...] = field(default=(), compare=False)
    format: Literal[1] = 1


def draw_hosts(full: Sequence[FilePair], viral_count: int) -> list[FilePair]:
    """Sample host files: the same share from every category, then as many in total as there are viral files.

    Both samples come from one generator seeded with :data:`nucpro.folder.paths.SEED` over naturally sorted
    paths, so the listing order of the file system has no influence.

    Parameters
    ----------
    full : sequence of FilePair
        Full host files of any order.
    viral_count : int
        V, the number of full viral files. ceil(V/7) are sampled from each category, then V of those.

    Returns
    -------
    list of FilePair
        The sample, naturally sorted.
    """
    generator = random.Random(SEED)
    share = math.ceil(viral_count / len(HOST_CATEGORIES))
    drawn: list[FilePair] = []
    for category in HOST_CATEGORIES:
        candidates = _sorted(pair for pair in full if pair.category == category)
        drawn += generator.sample(candidates, min(share, len(candidates)))
    return _sorted(generator.sample(drawn, min(viral_count, len(drawn))))


def select(
    full: Sequence[FilePair],
    has_output: Callable[[FilePair], bool],
    recorded: Recorded | None,
    how: HostSelection = HostSelection.AUTO,
) -> Selection:
    """Choose the files of a run.

    Parameters
    ----------
    full : sequence of FilePair
        All full files of the data folder that belong to a category.
    has_output : callable
        Whether a host file has a DNABERT-S, ESM or merged file, so that it was chosen before.
    recorded : Recorded or None
        The selection that an earlier run recorded.
    how : HostSelection
        ``auto`` uses the recorded selection, else the existing files, else a new sample.

    Returns
    -------
    Selection
        The files, the reason for the host files, and warnings.

    Raises
    ------
    PreflightError
        No full viral file, or a recorded host file that is no longer there or no longer full.
    """
    viral = _sorted(pair for pair in full if pair.category == VIRAL)
    hosts = _sorted(pair for pair in full if pair.category in HOST_CATEGORIES)
    if not viral:
        raise PreflightError(
            ["no full viral split file was found; at least one is needed (see --sequences-per-file)"]
        )
    chosen, reason = _choose(hosts, len(viral), has_output, recorded, how)
    return Selection(tuple(viral), tuple(chosen), reason, tuple(_warnings(viral, hosts, chosen, reason)))


def _choose(
    hosts: list[FilePair],
    viral_count: int,
    has_output: Callable[[FilePair], bool],
    recorded: Recorded | None,
    how: HostSelection,
) -> tuple[list[FilePair], str]:
    if how is HostSelection.AUTO and recorded is not None:
        return _as_recorded(hosts, recorded), "recorded"
    if how is HostSelection.ALL:
        return hosts, "all"
    existing = [pair for pair in hosts if has_output(pair)] if how is not HostSelection.SEEDED else []
    if existing or how is HostSelection.EXISTING:
        return existing, "existing"
    return draw_hosts(hosts, viral_count), "seeded"


def _as_recorded(hosts: list[FilePair], recorded: Recorded) -> list[FilePair]:
    by_key = {pair.key: pair for pair in hosts}
    gone = [key for key in recorded.hosts if key not in by_key]
    if gone:
        raise PreflightError(
            [
                f"{key}: chosen by an earlier run (of files of "
                f"{counted(recorded.sequences_per_file, 'record')}), but not among "
                "the full files of this one; bring it back, give that --sequences-per-file, or select again with "
                "--host-selection existing or seeded"
                for key in gone
            ]
        )
    return [by_key[key] for key in recorded.hosts]


def _warnings(
    viral: Sequence[FilePair], hosts: Sequence[FilePair], chosen: Collection[FilePair], reason: str
) -> list[str]:
    warnings = []
    if reason == "seeded":
        share = math.ceil(len(viral) / len(HOST_CATEGORIES))
        for category in HOST_CATEGORIES:
            available = sum(pair.category == category for pair in hosts)
            if available < share:
                warnings.append(
                    f"{category} has {counted(available, 'full file')}, fewer than its share of {share}"
                )
    if len(chosen) < len(viral):
        few = f"only {counted(len(chosen), 'host file')} for {counted(len(viral), 'viral file')}"
        warnings.append(f"{few}: the classes are unbalanced")
    return warnings


def _sorted(pairs: Iterable[FilePair]) -> list[FilePair]:
    return sorted(pairs, key=lambda pair: pair.order)


def save(folder: DataFolder, selection: Selection, sequences_per_file: int) -> None:
    """Record a selection in the data folder, unless it is already recorded there."""
    if selection.reason == "recorded":
        return
    keys = {"viral": [pair.key for pair in selection.viral], "hosts": [pair.key for pair in selection.hosts]}
    size = {"reason": selection.reason, "sequences_per_file": sequences_per_file}
    write_record(folder.selection, {"format": 1, **size, **keys})


_WHAT = "the recorded selection"
_REMEDY = "restore it from a backup, or remove it so that the files that have outputs are selected again"


def load(folder: DataFolder) -> Recorded | None:
    """Recorded selection of a data folder; None if none was recorded.

    Raises
    ------
    RecordError
        The record is damaged; it decides which files are used, so it is never guessed.
    """
    kept = read_record(folder.selection, Recorded, _WHAT, _REMEDY)
    if kept is None:
        return None
    if not kept.is_sealed:
        raise RecordError(f"{folder.selection}: {_WHAT} is damaged (it has no checksum); {_REMEDY}")
    keys = [*kept.content.viral, *kept.content.hosts]
    if len(set(keys)) < len(keys):
        raise RecordError(f"{folder.selection}: {_WHAT} is damaged (it names a file twice); {_REMEDY}")
    return kept.content
