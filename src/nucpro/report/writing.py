"""Making a report of a data folder, at the end of a run or at any time.

The content of the folder comes from a survey; a sample of its merged rows is read, described, and written as
a page and pictures.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nucpro.errors import DataError, NucproError, PreflightError, UsageError, counted
from nucpro.execution.workers import Workers
from nucpro.extraction.preflight import writing_problems
from nucpro.extraction.survey import Survey, read_only_survey
from nucpro.extraction.validation import known_verdict
from nucpro.folder.kinds import place_problems
from nucpro.folder.paths import CLASS_NAMES, DataFolder, FilePair
from nucpro.formats import make_folder, remove_temporaries, replacing_problems, write_text
from nucpro.formats.opening import read_input
from nucpro.options import Options
from nucpro.progress import Progress, Show, silent
from nucpro.report import LAYOUTS, MOST_POINTS, POINTS
from nucpro.report.classifier import find_models
from nucpro.report.geometry import describe, missing_package
from nucpro.report.page import page
from nucpro.report.pictures import PICTURES, PICTURES_OF_ROWS, write_pictures
from nucpro.report.sample import read_sample
from nucpro.report.subject import FileState, Output, Subject
from nucpro.state.history import DONE, FAILED, read

__all__ = ["report_at_end", "report_folder", "write_report"]

logger = logging.getLogger(__name__)

PAGE = "report.html"
OF_A_PAGE = b": report of nucpro</title>"
"""Marker in the head of every report of every version."""
_HEAD = 8192

_PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def _missing_packages() -> list[str]:
    """Packages of the extra ``report`` that are not installed."""
    return [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]


def report_folder(
    options: Options,
    points: int = POINTS,
    show: Show = silent,
    output: Path | None = None,
    *,
    replace: bool = False,
    layout: str = LAYOUTS[0],
) -> Path:
    """Write the report of a data folder as it is on disk; changes nothing else, and loads no model.

    Parameters
    ----------
    options : Options
        The folder, the number of sequences per file and the selection.
    points : int
        Sequences on the map.
    show : callable, optional
        Called with the progress.
    output : Path, optional
        Folder of the page; by default ``report`` in the data folder.
    replace : bool
        Replace files of a report's names that no report wrote.
    layout : {"pca", "umap"}
        Method of the map.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    PreflightError
        There is no such folder, files of somebody else have the names, or the page would show no files though
        merged files exist, or an older page shows some, or there are too few sequences for UMAP.
    UsageError
        The extra ``report``, or ``maps`` for UMAP, is not installed.
    StoreError
        The page cannot be written.
    """
    _require_options(points, layout)
    with read_only_survey(options, show=show) as survey:
        _require_own(output or survey.folder.report, replace=replace)
        try:
            survey.discover()
        except NucproError as error:
            # Nothing to show of files; the runs and what is wrong are still worth a page.
            survey.take(())
            problems = error.problems if isinstance(error, PreflightError) else (str(error),)
            subject = _subject(survey, problems)
            _require_files(subject, output)
            for problem in problems:
                logger.warning("the page shows no files: %s", problem)
            return write_report(subject, survey.workers, points, show, output, layout)
        recipe = survey.records.recipe_of(survey.sequence_type)
        inputs = survey.inputs()
        items = () if recipe is None else survey.compare(recipe).items
        notes = [f"Stale: {reason}" for item in items for reason in item.reasons]
        subject = _subject(survey, inputs, notes)
        _require_files(subject, output)
        return write_report(subject, survey.workers, points, show, output, layout)


def _require_options(points: int, layout: str) -> None:
    if missing := _missing_packages():
        raise UsageError(
            f"a report needs {' and '.join(missing)}, not installed here: pip install 'nucpro[report]'"
        )
    if package := missing_package(layout):
        raise UsageError(f"--layout {layout} needs {package}, not installed here: pip install 'nucpro[maps]'")
    if not 0 <= points <= MOST_POINTS:
        raise UsageError(f"--points is {points}; allowed: 0 to {MOST_POINTS}")


def _require_own(folder: Path, *, replace: bool) -> None:
    """Refuse folders of another kind, and files that no report wrote; the page is written before its figures."""
    page_file = folder / PAGE
    try:
        is_own = page_file.is_file() and OF_A_PAGE in read_input(page_file)[:_HEAD]
    except DataError:
        is_own = False
    files = [page_file, *(folder / name for name in PICTURES)]
    problems = place_problems(folder, "report") or [
        *replacing_problems(files, lambda _: is_own, replace=replace),
        *writing_problems([folder]),
    ]
    if problems:
        raise PreflightError(problems)


def _require_files(subject: Subject, output: Path | None) -> None:
    """Refuse a page without files where no run is recorded, or files are there, so that it replaces no page of them.

    Raises
    ------
    PreflightError
        The problem, and the number of merged files.
    """
    if any(file.output is not Output.MISSING for file in subject.files):
        return
    merged, target = len(subject.folder.merged_files()), output or subject.folder.report
    if merged:
        why = f"{subject.folder.merge_root}: {counted(merged, 'merged file')}, and the report would show none"
    elif any((target / name).exists() for name in PICTURES_OF_ROWS):
        why = f"{target}: holds a report that shows files, and this one would show none"
    elif subject.runs:
        return
    else:
        why = f"{subject.folder.root}: no run is recorded here, and there are no vectors to show"
    raise PreflightError([*subject.problems, f"{why}; nothing was written"])


def report_at_end(survey: Survey, problems: Sequence[str]) -> None:
    """Write the report of a run; the data are what they are without it, so nothing here fails the run."""
    missing = _missing_packages()
    if missing:
        logger.info("No report: %s not installed (pip install 'nucpro[report]')", " and ".join(missing))
        return
    try:
        subject = _subject(survey, problems)
        if subject.runs and subject.runs[-1].how is None:
            # This run, which records how it ended only after its last line.
            subject.runs[-1].how = FAILED if problems else DONE
        _require_own(survey.folder.report, replace=False)
        write_report(subject, survey.workers)
    except (NucproError, OSError, MemoryError) as error:
        reasons = error.problems if isinstance(error, PreflightError) else [error]
        logger.warning("No report: %s", "; ".join(map(str, reasons)))


def _subject(survey: Survey, problems: Sequence[str], notes: Sequence[str] = ()) -> Subject:
    records = survey.inventory.records
    files = [FileState(pair, records[pair], _output_of(survey, pair)) for pair in survey.pairs]
    return Subject(
        folder=survey.folder,
        files=files,
        reason=survey.selection.reason,
        notes=(*survey.selection.warnings, *notes),
        problems=problems,
        outside=len(survey.outside()),
        runs=read(survey.folder),
        models=find_models(survey.folder, _merged_rows(survey.folder, files)),
    )


def _merged_rows(folder: DataFolder, files: Sequence[FileState]) -> dict[str, int] | None:
    """Rows of all merged files by class; None where some are of no selected file, so that nobody counted them."""
    made = [file for file in files if file.output is not Output.MISSING]
    if len(made) != len(folder.merged_files()):
        return None
    return {
        name: sum(file.records for file in made if file.pair.label == label)
        for label, name in enumerate(CLASS_NAMES)
    }


def _output_of(survey: Survey, pair: FilePair) -> Output:
    if known_verdict(survey.records, pair) is not None:
        return Output.VALIDATED
    return Output.MADE if pair.merged.exists() else Output.MISSING


def write_report(
    subject: Subject,
    workers: Workers,
    points: int = POINTS,
    show: Show = silent,
    output: Path | None = None,
    layout: str = LAYOUTS[0],
) -> Path:
    """Write ``report.html`` and pictures.

    Parameters
    ----------
    subject : Subject
        What the report is about.
    workers : Workers
        Workers that read files.
    points : int
        Sequences on the map, at most :data:`MOST_POINTS`.
    show : callable, optional
        Called with the progress.
    output : Path, optional
        Folder to write; by default ``report`` in the data folder.
    layout : {"pca", "umap"}
        Method of the map.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        A package is missing, or too many points were asked for.
    PreflightError
        There are too few sequences for UMAP.
    DataError
        The data folder was removed meanwhile.
    StoreError
        The folder cannot be written.
    """
    _require_options(points, layout)
    start = time.perf_counter()
    sample = read_sample((file.pair for file in subject.files), points, workers, show)
    read = time.perf_counter()
    drawing = partial(Progress, total=3, unit="parts", message="Drawing the report")
    show(drawing(0))
    geometry = describe(sample.vectors, sample.labels, layout)
    show(drawing(1))
    folder = output or subject.folder.report
    if not subject.folder.root.is_dir():
        raise DataError(
            f"{subject.folder.root}: was removed or renamed during the report; run again with its present path"
        )
    make_folder(folder)
    remove_temporaries(folder, spare_living=True)
    path = folder / PAGE
    write_text(path, page(subject, sample, geometry))
    show(drawing(2))
    write_pictures(folder, subject, sample, geometry)
    show(drawing(3))
    logger.info(
        "Report: %s (%s of %s; read in %.1f s, drawn in %.1f s)",
        path,
        counted(len(sample), "sequence"),
        counted(len(sample.pairs), "file"),
        read - start,
        time.perf_counter() - read,
    )
    return path
