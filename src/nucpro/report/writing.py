"""Making a report: the sample is read, described, and written as a page and pictures."""

from __future__ import annotations

import importlib.util
import logging
import time
from pathlib import Path

from nucpro.errors import UsageError
from nucpro.execution.workers import Workers
from nucpro.formats import make_folder, write_text
from nucpro.report.geometry import describe
from nucpro.report.page import page
from nucpro.report.pictures import write_pictures
from nucpro.report.sample import read_sample
from nucpro.report.subject import Subject

__all__ = ["MOST_POINTS", "POINTS", "missing_packages", "write_report"]

logger = logging.getLogger(__name__)

POINTS = 20_000
"""Sequences on the map, unless another number is asked for."""
MOST_POINTS = 50_000
"""Most sequences on the map: what a browser opens at once, and what 2 GB of memory hold."""

_PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def missing_packages() -> list[str]:
    """Packages of the extra ``report`` that are not installed."""
    return [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]


def write_report(subject: Subject, workers: Workers, points: int = POINTS) -> Path:
    """Write ``report/report.html`` and pictures into the data folder.

    Parameters
    ----------
    subject : Subject
        What the report is about.
    workers : Workers
        Where files are read.
    points : int
        Sequences on the map, at most :data:`MOST_POINTS`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        A package is missing, or too many points were asked for.
    StoreError
        The folder cannot be written.
    """
    missing = missing_packages()
    if missing:
        raise UsageError(
            f"a report needs {' and '.join(missing)}, not installed here: pip install 'nucpro[report]'"
        )
    if not 0 <= points <= MOST_POINTS:
        raise UsageError(f"--points is {points}; allowed: 0 to {MOST_POINTS}")
    start = time.perf_counter()
    sample = read_sample((file.pair for file in subject.files), points, workers)
    read = time.perf_counter()
    geometry = describe(sample.vectors, sample.labels)
    folder = subject.folder.report
    make_folder(folder)
    path = folder / "report.html"
    write_text(path, page(subject, sample, geometry))
    write_pictures(folder, subject, sample, geometry)
    logger.info(
        "Report: %s (%d sequences of %d files; read in %.1f s, drawn in %.1f s)",
        path,
        len(sample),
        len(sample.pairs),
        read - start,
        time.perf_counter() - read,
    )
    return path
