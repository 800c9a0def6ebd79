"""Subject of a report: a data folder as plain records.

A survey fills these in (:mod:`nucpro.report.writing`); the sections of the page and the pictures read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nucpro.folder.paths import CATEGORIES, DataFolder, FilePair
from nucpro.report.classifier import FolderModel
from nucpro.state.history import Run

__all__ = ["CategoryCount", "FileState", "Output", "Subject"]


class Output(StrEnum):
    """State of the merged file of a pair."""

    VALIDATED = "validated"
    MADE = "not validated"
    MISSING = "missing"


@dataclass(frozen=True)
class FileState:
    """One selected file pair.

    Parameters
    ----------
    pair : FilePair
        The pair.
    records : int
        Records of its nucleotide file.
    output : Output
        Its merged file: validated and unchanged since, there, or missing.
    """

    pair: FilePair
    records: int
    output: Output


@dataclass(frozen=True)
class CategoryCount:
    """Files of one category.

    Parameters
    ----------
    category : str
        Its name.
    files, records : int
        Selected files, and records in them.
    outputs : Counter of Output
        Files by what is known of them.
    """

    category: str
    files: int
    records: int
    outputs: Counter[Output]


@dataclass(frozen=True)
class Subject:
    """A data folder as it is on disk.

    Parameters
    ----------
    folder : DataFolder
        The folder.
    files : sequence of FileState
        The selected files, in the order of work; empty where none could be selected.
    reason : str
        Why these hosts; see :class:`nucpro.folder.selection.Selection`.
    notes : sequence of str
        Warnings of the selection, and what is stale.
    problems : sequence of str
        Problems that prevent a run, or that validation found.
    outside : int
        Protein and merged files that belong to no selected pair.
    runs : sequence of Run
        The history, the oldest run first.
    models : sequence of FolderModel
        Classifiers that were trained on the folder.
    """

    folder: DataFolder
    files: Sequence[FileState]
    reason: str
    notes: Sequence[str]
    problems: Sequence[str]
    outside: int
    runs: Sequence[Run]
    models: Sequence[FolderModel] = ()

    @property
    def categories(self) -> list[CategoryCount]:
        """Counts of each category that has files, viral first."""
        found = []
        for category in CATEGORIES:
            of_category = [file for file in self.files if file.pair.category == category]
            if of_category:
                outputs = Counter(file.output for file in of_category)
                records = sum(file.records for file in of_category)
                found.append(CategoryCount(category, len(of_category), records, outputs))
        return found

    def records(self, label: int) -> int:
        """Records of a class."""
        return sum(file.records for file in self.files if file.pair.label == label)

    @property
    def last_extraction(self) -> Run | None:
        """The last run that made protein files; None if there is none."""
        made = (run for run in reversed(self.runs) if run.files and run.facts.get("side") == "protein")
        return next(made, None)
