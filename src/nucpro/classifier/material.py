"""Data shared by training and evaluation on one data folder: its rows, read once, and their split.

The survey of :mod:`nucpro.classifier.sources` comes in; rows go to training, the test part also to whoever measures
a model again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.features import Features, place, read_features
from nucpro.classifier.leakage import nearest_across, neighbours_line
from nucpro.classifier.metrics import groups_per_class
from nucpro.classifier.options import FEW_GROUPS, SplitBy, TrainingOptions
from nucpro.classifier.sources import Survey
from nucpro.classifier.splits import PARTS, Grouping, Split, genomes_of, group, split, taxa_of
from nucpro.errors import DataError, ValidationError, as_preflight
from nucpro.folder.paths import NO_CATEGORY, category_of
from nucpro.progress import Show

__all__ = ["Divided", "Material", "divide", "read_material"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Material:
    """All rows of a data folder.

    Parameters
    ----------
    survey : Survey
        Its files.
    features : Features
        Their rows.
    groups : Grouping
        Groups that are kept together in the split.
    genomes, taxa : Grouping or None
        Organism of each row, if ids and the data set record it.
    device : torch.device
        Where trainings run.
    """

    survey: Survey
    features: Features
    groups: Grouping
    genomes: Grouping | None
    taxa: Grouping | None
    device: torch.device

    @property
    def categories(self) -> Grouping:
        """Category of each row."""
        names = [category_of(name) or NO_CATEGORY for name in self.features.file_names]
        return Grouping.of(names).over(self.features.files)


@dataclass(frozen=True, eq=False)
class Divided:
    """Rows with their parts.

    Parameters
    ----------
    material : Material
        All rows.
    split : Split
        The parts.
    test_groups : ndarray of int64, shape [N]
        What is drawn for intervals, of each row of the test part.
    drawn : str
        What that is: genomes, families, files or rows.
    """

    material: Material
    split: Split
    test_groups: NDArray[np.int64]
    drawn: str

    @property
    def test_rows(self) -> NDArray[np.int64]:
        """Numbers of the rows of the test part."""
        return self.split.rows[PARTS.index("test")]


def read_material(
    found: Survey, options: TrainingOptions, device: torch.device, scratch: Path, show: Show
) -> Material:
    """Read all rows, and what they belong to.

    Parameters
    ----------
    found : Survey
        The files.
    options : TrainingOptions
        Where features are stored, and which rows stay together.
    device : torch.device
        For features on the device.
    scratch : Path
        Folder for features on disk.
    show : callable
        Called with the progress.

    Returns
    -------
    Material
        Features, groups and taxa of all rows.

    Raises
    ------
    UsageError, DataError
        See :func:`nucpro.classifier.features.read_features`.
    PreflightError
        Rows cannot be grouped; see :func:`nucpro.classifier.splits.group`.
    """
    where = place(found.rows * found.files[0].width * 4, device, options.placement, scratch)
    features = read_features(found, where, device, scratch, show)
    genomes = _genomes(features)
    with as_preflight(DataError):
        groups = group(features.ids, features.files, features.file_names, options, found.organisms, genomes)
    return Material(found, features, groups, genomes, taxa_of(genomes, found.organisms), device)


def _genomes(features: Features) -> Grouping | None:
    """Genome of each row; None if ids do not contain it."""
    try:
        return genomes_of(features.ids)
    except ValidationError:
        return None


def divide(material: Material, options: TrainingOptions, fold: int | None = None) -> Divided:
    """Split rows into parts, and report leakage between them.

    Parameters
    ----------
    material : Material
        All rows.
    options : TrainingOptions
        Sizes and seed.
    fold : int, optional
        Which of ``options.folds`` is tested, from 0; the next one validates.

    Returns
    -------
    Divided
        Rows of each part, and what is known about leakage.

    Raises
    ------
    ValidationError
        Too few groups, or models are to be compared on fewer than two of a class.
    """
    features, genomes = material.features, material.genomes
    labels = features.labels.numpy()
    parts = _with_relations(material, split(material.groups, labels, genomes, options, fold))
    for line in _split_lines(parts, options.groups):
        logger.info("%s", line)
    if parts.leak:
        logger.warning("%s", parts.leak)
    # What is drawn for intervals: whole families where the split kept them whole.
    drawn, kind = material.groups, options.groups
    if genomes is not None and options.split_by not in (SplitBy.FAMILY, SplitBy.TAXON):
        drawn, kind = genomes, "genomes"
    test_rows = parts.rows[PARTS.index("test")]
    divided = Divided(material, parts, drawn.codes[test_rows], kind)
    if options.folds is None:
        _judge_test_part(divided, labels[test_rows], compared=options.compare)
    return divided


def _with_relations(material: Material, parts: Split) -> Split:
    """Add to the summary how many taxa each part has, and the similarity of test rows to training rows."""
    matrix, genomes, taxa = material.features.matrix, material.genomes or material.groups, material.taxa
    summary = {
        **parts.summary,
        "neighbours": nearest_across(matrix, parts, genomes, material.device, parts.summary["seed"]),
        "taxa": None,
    }
    if taxa is not None:
        of_parts = {name: np.unique(taxa.codes[rows]) for name, rows in zip(PARTS, parts.rows, strict=True)}
        shared = len(np.intersect1d(of_parts["train"], of_parts["test"]))
        summary["taxa"] = {**{name: len(found) for name, found in of_parts.items()}, "train_and_test": shared}
    return replace(parts, summary=summary)


def _judge_test_part(divided: Divided, labels: NDArray[np.int64], *, compared: bool) -> None:
    """Warn if the test part has too few genomes (or families) for its metrics to generalise."""
    host, viral = groups_per_class(divided.test_groups, labels)
    fewest, found = min(host, viral), f"{divided.drawn} of the test part: {host} host, {viral} viral"
    if compared and fewest < 2:
        raise ValidationError(
            f"{found}; models can be compared on at least 2 of each class: keep more of them for the test with "
            "--test, extract more genomes, or train without --compare"
        )
    if fewest < FEW_GROUPS:
        logger.warning(
            "%s; with fewer than %d of a class the metrics say little about other genomes, and no "
            "intervals are given",
            found,
            FEW_GROUPS,
        )


def _split_lines(parts: Split, groups: str) -> Iterator[str]:
    taxa = parts.summary["taxa"]
    for name in PARTS:
        part = parts.summary[name]
        rows = ", ".join(f"{count} {label}" for label, count in part["rows"].items())
        line = f"{name.capitalize() + ':':12}{rows} rows"
        if groups != "rows":
            line += f"; {groups}: {part['groups']}"
        yield line if taxa is None or groups == "taxa" else f"{line}; taxa: {taxa[name]}"
    if taxa is not None and taxa["train_and_test"]:
        yield f"Taxa of the test part that are also trained on: {taxa['train_and_test']} of {taxa['test']}"
    yield neighbours_line(parts.summary["neighbours"])
