"""From the merged files of a data folder to a folder of shards: one file a time and worker, whole or not at all.

Pairs come from the selection of a data folder, bytes from :mod:`nucpro.export.formats`; what is known goes to
:mod:`nucpro.export.manifest`. A run that was killed is simply run again: a shard stays if it and the merged file it
was made from still have the SHA-256 that was recorded.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from nucpro.errors import DimensionError, PreflightError, counted
from nucpro.execution.runner import Committed, Runner
from nucpro.execution.workers import Workers
from nucpro.export.formats import FORMATS, Rows, require_installed, rows_of
from nucpro.export.manifest import Ledger, Shard
from nucpro.extraction.preflight import space_problems, writing_problems
from nucpro.extraction.survey import read_only_survey
from nucpro.folder.kinds import Kind, place_problems
from nucpro.folder.paths import ExportFolder, FilePair
from nucpro.formats import make_folder, remove_temporaries, replacing_problems, write_bytes
from nucpro.options import Options
from nucpro.progress import Meter, Show, silent, tracked
from nucpro.state.checkpoint import changed_files

__all__ = ["Exported", "export", "export_folder"]

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Parameters
    ----------
    folder : Path
        Its path.
    rows, width : int
        Shape of all vectors together.
    shards, made : int
        Files in all, and those of them that this run wrote.
    bytes : int
        Size of all shards.
    """

    folder: Path
    rows: int
    width: int
    shards: int
    made: int
    bytes: int


@dataclass(frozen=True)
class _Task:
    """One pair, for a worker: what to make, where, and what is recorded about existing files."""

    pair: FilePair
    name: str
    path: Path
    format_name: str
    known: Shard | None = None
    is_hint: bool = False


def export_folder(
    options: Options,
    format_name: str,
    output: Path | None = None,
    show: Show = silent,
    *,
    replacing: bool = False,
) -> Exported:
    """Export the merged rows of the selected files; changes nothing of them, and loads no model.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences per file and the selection.
    format_name : str
        One of :data:`nucpro.export.FORMATS`.
    output : Path, optional
        Folder to write; by default one named after the format, below ``export`` in the data folder.
    show : callable, optional
        Takes the progress.
    replacing : bool
        Replace files of a shard's name that no export wrote.

    Returns
    -------
    Exported
        Folder, shards and rows.

    Raises
    ------
    PreflightError
        The data folder holds no full viral file, or half-made split folders.
    NucproError
        See :func:`export`.
    """
    with read_only_survey(options, show=show) as survey:
        pairs = survey.discover().pairs
        if survey.inventory.problems:
            raise PreflightError(survey.inventory.problems)
        target = output or survey.folder.exports / format_name
        return export(pairs, target, format_name, survey.workers, show, replacing=replacing)


def export(
    pairs: Sequence[FilePair],
    folder: Path,
    format_name: str,
    workers: Workers,
    show: Show = silent,
    *,
    replacing: bool = False,
) -> Exported:
    """Write the merged rows of file pairs as shards, one per pair, with a manifest and checksums.

    Parameters
    ----------
    pairs : sequence of FilePair
        In the order of the manifest; each must have its merged file.
    folder : Path
        New, empty, or of an earlier export to the same format, which is continued or brought up to date.
    format_name : str
        One of :data:`nucpro.export.FORMATS`.
    workers : Workers
        Where files are read and written; each holds one in memory.
    show : callable, optional
        Takes the progress.
    replacing : bool
        Replace files of a shard's name that no export wrote.

    Returns
    -------
    Exported
        Totals of the export as it is now.

    Raises
    ------
    UsageError
        The format is unknown, or its package is not installed.
    PreflightError
        Merged files are missing, or the folder cannot be used: all problems at once.
    StoreError
        A merged file is damaged, or a shard cannot be written.
    DimensionError
        Merged files differ in width.
    """
    target = ExportFolder(folder)
    tasks = _tasks(pairs, target, format_name, replacing=replacing)
    make_folder(folder)
    with Runner(target.lock) as runner, closing(Ledger(target, format_name)) as ledger:
        tasks = [
            replace(task, known=ledger.shards.get(task.name), is_hint=task.name in ledger.hints)
            for task in tasks
        ]
        made = _make_all(runner, tasks, target, ledger, workers, show)
    shards = list(ledger.shards.values())
    return Exported(
        folder=folder,
        rows=sum(shard.rows for shard in shards),
        width=shards[0].width,
        shards=len(shards),
        made=made,
        bytes=sum(shard.bytes for shard in shards),
    )


def _tasks(
    pairs: Sequence[FilePair], target: ExportFolder, format_name: str, *, replacing: bool
) -> list[_Task]:
    """Check everything that can be checked before anything is written."""
    suffix = require_installed(format_name).suffix
    names = [target.shard_of(pair, suffix) for pair in pairs]
    tasks = [
        _Task(pair, name, target.path_of(name), format_name) for pair, name in zip(pairs, names, strict=True)
    ]
    missing = [pair.merged for pair in pairs if not pair.merged.is_file()]
    problems = [] if pairs else ["no file pairs to export; choose some with --host-selection"]
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        again = f"nucpro extract {shlex.quote(str(pairs[0].source.data_dir))}"
        problems.append(f"{counted(len(missing), 'merged file')} missing; make them with {again}: {shown}")
    problems += place_problems(target.root, "export", {Kind.EXPORT}) + writing_problems([target.root])
    if not missing:
        write = sum(pair.merged.stat().st_size for pair in pairs)
        there = sum(task.path.stat().st_size for task in tasks if task.path.is_file())
        problems += space_problems({target.root: (write, there)})
    if problems:
        raise PreflightError(problems)
    # Raises where the folder holds something else, before a lock file is put into it.
    ledger = Ledger(target, format_name)
    own = {task.path for task in tasks if ledger.is_own(task.name)}
    problems = replacing_problems((task.path for task in tasks), own.__contains__, replace=replacing)
    problems += replacing_problems(target.documents, lambda _: True, replace=replacing)
    if problems:
        raise PreflightError(problems)
    return tasks


def _make_all(
    runner: Runner, tasks: list[_Task], target: ExportFolder, ledger: Ledger, workers: Workers, show: Show
) -> int:
    """Make what is not there as it must be; the number of shards that were written."""
    names = [task.name for task in tasks]
    looked = tracked(workers.map(_kept, tasks), len(tasks), "Checking existing shards", show)
    kept = {name for name in looked if name is not None}
    to_make = [task for task in tasks if task.name not in kept]
    logger.debug("%s as recorded and unchanged, %d to write", counted(len(kept), "file"), len(to_make))
    if not to_make and ledger.is_complete(names):
        return 0
    ledger.begin(names, kept)
    for folder in sorted({target.root, *(task.path.parent for task in tasks)}):
        make_folder(folder)
        remove_temporaries(folder)

    def commit(shard: Shard) -> Committed:
        _require_width(shard, ledger)
        ledger.add(shard)
        return Committed(f"Exported {shard.source} ({counted(shard.rows, 'row')})")

    meter = Meter(show, "Exporting", len(tasks), done=len(kept))
    made = workers.map(_make, to_make)
    for _ in runner.each(made, commit, meter, done=len(kept), total=len(tasks)):
        pass
    ledger.finish(names)
    return len(to_make)


def _kept(task: _Task) -> str | None:
    """Name of an unchanged shard of an unchanged merged file; else None."""
    known = task.known
    if known is None or changed_files({task.path: known.sha256, task.pair.merged: known.source_sha256}):
        return None
    if task.is_hint and _shard_of(task, rows_of(task.pair), task.path.stat().st_size, known.sha256) != known:
        return None
    return task.name


def _make(task: _Task) -> Shard:
    rows = rows_of(task.pair)
    written = write_bytes(task.path, FORMATS[task.format_name].encode(rows))
    return _shard_of(task, rows, written.size, written.digest)


def _shard_of(task: _Task, rows: Rows, size: int, digest: str) -> Shard:
    return Shard(
        shard=task.name,
        source=rows.source,
        source_sha256=rows.digest,
        rows=len(rows.ids),
        width=rows.vectors.shape[1],
        label=rows.label,
        category=rows.category,
        bytes=size,
        sha256=digest,
    )


def _require_width(shard: Shard, ledger: Ledger) -> None:
    first = next(iter(ledger.shards.values()), shard)
    if shard.width != first.width:
        what = f"width of its vectors, where {first.source} has the other; run nucpro extract DATA again"
        raise DimensionError(first.width, shard.width, what, shard.source)
