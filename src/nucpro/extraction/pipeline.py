"""The order of the work: what the commands do, step by step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nucpro.errors import NucproError, PreflightError, ValidationError
from nucpro.export import Exported, export
from nucpro.extraction.dna_job import DnaJob
from nucpro.extraction.job import Progress
from nucpro.extraction.protein_job import ProteinJob
from nucpro.extraction.summary import Statistics, discovery_lines, outside_lines, state_lines
from nucpro.extraction.validation import FileVerdict, ValidationTask, expected_width, validate_file
from nucpro.options import Options
from nucpro.report import POINTS
from nucpro.state import lock

__all__ = ["embed_dna", "export_folder", "make_dna_first", "report", "run", "status", "validate_folder"]

logger = logging.getLogger(__name__)

Show = Callable[[Progress], Any]


def run(options: Options, show: Show = lambda _: None) -> Statistics:
    """Do the whole job: discover, check, extract, merge, validate.

    Parameters
    ----------
    options : Options
        What was asked for. With ``with_dna``, missing DNABERT-S files are made first.
    show : callable
        Called before the first and after every file.

    Raises
    ------
    NucproError
        See the steps of :class:`nucpro.extraction.job.Job`.
    """
    if options.with_dna:
        make_dna_first(options, show)
    with ProteinJob(options) as job:
        if _make_vectors(job, show):
            job.audit()
            job.validate()
        return job.statistics


def _make_vectors(job: ProteinJob | DnaJob, show: Show) -> bool:
    """Everything up to vectors on disk; False for a dry run, which ends before anything is touched."""
    job.discover()
    job.check()
    job.show()
    if job.options.dry_run:
        return False
    job.prepare()
    job.load_model()
    show(job.progress)
    for _ in job.extract():
        show(job.progress)
    job.finish()
    return True


def make_dna_first(options: Options, show: Show = lambda _: None) -> None:
    """Make missing DNABERT-S files, after everything that a run needs beside them was checked.

    Raises
    ------
    NucproError
        See the steps of :class:`nucpro.extraction.job.Job`.
    """
    with ProteinJob(replace(options, dry_run=True)) as job:
        job.discover()
        job.check()
    embed_dna(options, show)


def embed_dna(options: Options, show: Show = lambda _: None) -> Statistics:
    """Make the DNABERT-S files of a data folder that are missing or stale.

    Parameters
    ----------
    options : Options
        What was asked for.
    show : callable
        Called before the first and after every file.

    Raises
    ------
    NucproError
        See the steps of :class:`nucpro.extraction.job.Job`.
    """
    with DnaJob(options) as job:
        if _make_vectors(job, show):
            job.validate()
        return job.statistics


def report(options: Options, points: int = POINTS) -> Path:
    """Write the report of a data folder as it lies on disk; changes nothing else, and loads no model.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences a file and the selection.
    points : int
        Sequences on the map.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    PreflightError
        There is no such folder.
    UsageError
        The extra ``report`` is not installed.
    StoreError
        The page cannot be written.
    """
    with ProteinJob(replace(options, dry_run=True), needs_model=False) as job:
        try:
            job.discover()
        except NucproError as error:
            # Nothing to show of files; the runs and what is wrong are still worth a page.
            job.take(())
            problems = error.problems if isinstance(error, PreflightError) else (str(error),)
            for problem in problems:
                logger.warning("Warning: the page shows no files: %s", problem)
            return job.report(problems, points=points)
        recipe = job.checkpoint.recipe_of(job.side)
        inputs = job.inputs()
        items = () if recipe is None else job.compare(recipe).items
        notes = [f"Stale: {reason}" for item in items for reason in item.reasons]
        return job.report(inputs, notes, points)


def validate_folder(options: Options) -> list[FileVerdict]:
    """Validate everything in a data folder, whoever made it; changes nothing and loads no model.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences a file and the selection.

    Raises
    ------
    PreflightError
        There is nothing to validate.
    ValidationError
        All faults.
    """
    with ProteinJob(replace(options, dry_run=True), needs_model=False) as job:
        pairs = job.discover().pairs
        if job.census.problems:
            raise ValidationError("\n".join(job.census.problems))
        width = expected_width(pairs)
        verdicts = list(job.workers.map(validate_file, [ValidationTask(pair, width) for pair in pairs]))
        job.judge(verdicts, width)
        return verdicts


def export_folder(options: Options, format_name: str, output: Path | None = None) -> Exported:
    """Export the merged rows of the selected files; changes nothing of them, and loads no model.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences a file and the selection.
    format_name : str
        One of :data:`nucpro.export.FORMATS`.
    output : Path, optional
        Folder to write; by default one named after the format, below ``export`` in the data folder.

    Raises
    ------
    PreflightError
        The data folder holds no full viral file, or half-made split folders.
    NucproError
        See :func:`nucpro.export.export`.
    """
    with ProteinJob(replace(options, dry_run=True), needs_model=False) as job:
        pairs = job.discover().pairs
        if job.census.problems:
            raise PreflightError(job.census.problems)
        return export(pairs, output or job.folder.exports / format_name, format_name, job.workers)


def status(options: Options) -> list[str]:
    """Where a data folder stands: done, stale, missing, outside the selection, problems.

    Changes nothing, and works while a run is at work.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences a file and the selection.

    Returns
    -------
    list of str
        Lines to show.

    Raises
    ------
    PreflightError
        There is no such folder, or it holds no full viral file.
    """
    with ProteinJob(replace(options, dry_run=True), needs_model=False) as job:
        selection = job.discover()
        problems = job.inputs()
        recipe = job.checkpoint.recipe_of(job.side)
        lines = [f"Run: {lock.state(job.folder.lock)}"]
        if recipe is None:
            lines.append("No run is recorded here yet; nucpro extract --dry-run shows what a run would do")
            lines += [f"Warning: {warning}" for warning in selection.warnings]
        else:
            plan = job.compare(recipe)
            lines += [*discovery_lines(selection, plan), *state_lines(plan)]
        lines += outside_lines(job.outside())
        return lines + [f"Problem: {problem}" for problem in problems]
