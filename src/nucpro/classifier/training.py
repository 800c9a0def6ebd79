"""The steps of ``nucpro train``: look at the data, read it once, split, fit, measure, keep.

The data folder's merged files come in; a model folder goes out, or three of them and their comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.curves import draw_curves, require_matplotlib
from nucpro.classifier.features import Features, place, read_features
from nucpro.classifier.fitting import Epoch, Fitted, Fitter, feed_of, fit_key, fitted_of, viral_margins
from nucpro.classifier.leakage import nearest_across, neighbours_line
from nucpro.classifier.metrics import (
    METRICS,
    Comparison,
    Measured,
    Resampled,
    Scored,
    compare,
    groups_per_class,
    resample,
)
from nucpro.classifier.model import CARD_NAME, Classifier, ModelCard, save
from nucpro.classifier.options import FEW_GROUPS, SplitBy, TrainingOptions
from nucpro.classifier.sources import Survey, survey
from nucpro.classifier.splits import PARTS, Grouping, Split, genomes_of, group, split, taxa_of
from nucpro.embedding.device import choose_device, device_problems, settled
from nucpro.errors import PreflightError, ValidationError
from nucpro.folder.paths import CLASS_NAMES
from nucpro.formats import remove_temporaries, write_document, write_text
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.progress import Show, silent
from nucpro.state.checkpoint import Checkpoint
from nucpro.state.lock import hold

__all__ = ["Trained", "train"]

logger = logging.getLogger(__name__)

_LOCK = ".training.lock"
_CURVES = "curves.png"
_HISTORY = "epochs.tsv"
_COMPARISON = "comparison.json"
_COMPARED = {
    "both": (SequenceType.DNA, SequenceType.PROTEIN),
    "dna": (SequenceType.DNA,),
    "protein": (SequenceType.PROTEIN,),
}


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run of ``nucpro train`` gave.

    Parameters
    ----------
    folders : dict of str to Path
        Model folders: one called ``model``, or those that were compared.
    comparison : Comparison
        Metrics of the test part with their intervals, and differences where several models were compared.
    drawn : str
        What was drawn for intervals: genomes, families, files or rows.
    """

    folders: Mapping[str, Path]
    comparison: Comparison
    drawn: str


@dataclass(frozen=True, eq=False)
class _Material:
    """Everything that trainings on one data folder share."""

    survey: Survey
    features: Features
    split: Split
    test_groups: NDArray[np.int64]
    drawn: str
    genomes: Grouping | None
    device: torch.device


def train(options: TrainingOptions, show: Show = silent) -> Trained:
    """Train on a data folder, measure on what was kept aside, and write the model.

    Whatever ends training, the folder holds the weights of the best epoch so far; the same call goes on where a
    stopped one ended, and gives what an unbroken one gives.

    Parameters
    ----------
    options : TrainingOptions
        What was asked for.
    show : callable, optional
        Takes the progress: files that are read, then epochs.

    Raises
    ------
    UsageError
        Options that cannot be followed here.
    PreflightError
        The data are not fit for training; all problems at once.
    DataError
        Files that are damaged or do not belong together.
    """
    options = settled(options)
    if problems := device_problems(options.device):
        raise PreflightError(problems)
    device = choose_device(options.device)
    if options.curves:
        require_matplotlib()
    found = survey(options.data_dir)
    logger.info(_found_line(found))
    chosen = _COMPARED if options.compare else {"model": options.sides}
    top = options.model_folder
    folders = {name: top / name if options.compare else top for name in chosen}
    with _working_folders([top, *folders.values()]):
        material = _prepare(found, options, device, show)
        measured = {}
        for name, sides in chosen.items():
            logger.info("Training on %s columns", " and ".join(sides))
            measured[name] = _Training(material, replace(options, sides=sides), folders[name]).run(show)
        comparison = compare(measured)
        if options.compare:
            write_document(top / _COMPARISON, _plain(comparison))
    return Trained(folders, comparison, material.drawn)


@contextmanager
def _working_folders(folders: Sequence[Path]) -> Iterator[None]:
    """Make folders, and hold the first one, which the others are or lie in."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"{folder}: cannot be made ({error.strerror}); name another folder with --output"
            raise PreflightError([problem]) from error
    with hold(folders[0] / _LOCK):
        for folder in folders:
            remove_temporaries(folder)
        yield


def _prepare(found: Survey, options: TrainingOptions, device: torch.device, show: Show) -> _Material:
    """Read and split; the same for all models of one data folder."""
    where = place(found.rows * found.files[0].width * 4, device, options.placement, options.model_folder)
    features = read_features(found, where, device, options.model_folder, show)
    groups = group(features.ids, features.files, features.file_names, options, found.organisms)
    genomes = _genomes(features, options)
    parts = split(groups, features.labels.numpy(), genomes, options)
    parts = _with_relations(parts, features, genomes or groups, taxa_of(genomes, found.organisms), device)
    for line in _split_lines(parts, options.groups):
        logger.info("%s", line)
    if parts.leak:
        logger.warning("Warning: %s", parts.leak)
    test_rows = parts.rows[PARTS.index("test")]
    # What is drawn for intervals: whole families where the split kept them whole.
    drawn, kind = groups, options.groups
    if genomes is not None and options.split_by not in (SplitBy.FAMILY, SplitBy.TAXON):
        drawn, kind = genomes, "genomes"
    test_groups = drawn.codes[test_rows]
    _judge_test_part(test_groups, features.labels.numpy()[test_rows], kind, options.compare)
    return _Material(found, features, parts, test_groups, kind, genomes, device)


def _with_relations(
    parts: Split, features: Features, genomes: Grouping, taxa: Grouping | None, device: torch.device
) -> Split:
    """Add to the summary how many taxa each part has, and how near test rows lie to training rows."""
    summary = {
        **parts.summary,
        "neighbours": nearest_across(features.matrix, parts, genomes, device, parts.summary["seed"]),
        "taxa": None,
    }
    if taxa is not None:
        of_parts = {name: np.unique(taxa.codes[rows]) for name, rows in zip(PARTS, parts.rows, strict=True)}
        shared = len(np.intersect1d(of_parts["train"], of_parts["test"]))
        summary["taxa"] = {**{name: len(found) for name, found in of_parts.items()}, "train_and_test": shared}
    return replace(parts, summary=summary)


def _judge_test_part(
    test_groups: NDArray[np.int64], labels: NDArray[np.int64], kind: str, compared: bool
) -> None:
    """Say when the test part has too few genomes (or families) for its metrics to mean much."""
    host, viral = groups_per_class(test_groups, labels)
    fewest, found = min(host, viral), f"the test part has {host} host and {viral} viral {kind}"
    if compared and fewest < 2:
        raise ValidationError(
            f"{found}; models can be compared on at least 2 of each class: keep more of them for the test with "
            "--test, extract more genomes, or train without --compare"
        )
    if fewest < FEW_GROUPS:
        logger.warning(
            "Warning: %s; with fewer than %d of a class its metrics say little about other genomes, and no "
            "intervals are given",
            found,
            FEW_GROUPS,
        )


def _genomes(features: Features, options: TrainingOptions) -> Grouping | None:
    """Genome of each row; None where ids do not say it and nothing that was asked for needs it."""
    try:
        return genomes_of(features.ids)
    except ValidationError:
        if options.split_by in (SplitBy.GENOME, SplitBy.FAMILY, SplitBy.TAXON):
            raise
        return None


class _Training:
    """One model: from its first weights to its folder."""

    def __init__(self, material: _Material, options: TrainingOptions, folder: Path) -> None:
        self._material = material
        self._options = options
        self._folder = folder
        self._test_rows = material.split.rows[PARTS.index("test")]
        columns = _columns(options.sides, material.survey)
        features = material.features
        matrix = features.matrix[:, columns]
        self._feed = feed_of(matrix, features.labels, material.device, options.batch_size)
        with torch.random.fork_rng([]):
            torch.manual_seed(options.seed)
            self._classifier = Classifier(matrix.shape[1]).to(material.device)
        key = fit_key(features.digest, material.split, options, columns)
        self._fitter = Fitter(self._feed, features.labels.numpy(), material.split, options, folder, key)

    def run(self, show: Show) -> Resampled:
        """Train, measure and save; give what was measured on the test part."""
        with ExitStack() as unless_done:
            unless_done.callback(self._save_so_far)
            fitted = self._fitter.fit(self._classifier, self._material.device, self._tell, show)
            logger.info("Training ended: %s; best epoch: %d", fitted.ended, fitted.best_epoch)
            test = self._score_test_part(fitted)
            options = self._options
            measured = resample(test, self._material.test_groups, options.bootstrap, options.seed)
            unless_done.pop_all()
        self._save(fitted, test, measured.measured)
        return measured

    def _save_so_far(self) -> None:
        """Save the best weights of a training that is interrupted."""
        state = self._fitter.fitted_so_far
        # A training that had ended before this run has its model, with what was measured of it.
        if state is None or (self._fitter.had_ended and (self._folder / CARD_NAME).exists()):
            return
        ended = self._fitter.ended or f"stopped after epoch {len(state.history)}"
        self._save(fitted_of(self._classifier, state, ended))

    def _score_test_part(self, fitted: Fitted) -> Scored:
        labels = self._material.features.labels.numpy()[self._test_rows]
        margins = viral_margins(fitted.classifier, self._feed, torch.from_numpy(self._test_rows))
        return Scored(labels, margins.numpy())

    def _tell(self, epoch: Epoch) -> None:
        found = epoch.validation
        logger.info(
            "[%d/%d] training loss %.4f; validation: loss %.4f, accuracy %.4f, AUROC %.4f%s",
            epoch.number,
            self._options.epochs,
            epoch.train_loss,
            found["loss"],
            found["accuracy"],
            found["auroc"],
            ", best so far" if epoch.is_best else "",
        )

    def _save(self, fitted: Fitted, test: Scored | None = None, measured: Measured | None = None) -> None:
        """Write the model folder: the model before its picture, which may fail."""
        write_text(self._folder / _HISTORY, _table(fitted.history))
        save(self._folder, fitted.classifier, _card(self._material, self._options, fitted, measured))
        if self._options.curves:
            draw_curves(self._folder / _CURVES, fitted.history, fitted.best_epoch, test)


def _columns(sides: Sequence[SequenceType], found: Survey) -> slice:
    """Columns of the merged files that a model reads."""
    first = 0 if SequenceType.DNA in sides else DNA_WIDTH
    return slice(first, found.files[0].width if SequenceType.PROTEIN in sides else DNA_WIDTH)


def _recorded_models(found: Survey) -> dict[str, str]:
    """Where the data folder's record says that the encoders are; an entry where they are those that made the rows."""
    records = Checkpoint(found.folder, read_only=True)
    models = {}
    for side in SequenceType:
        recipe, made_by = records.recipe_of(side), found.encoders[side.value] or {}
        if recipe is not None and recipe.model is not None and recipe.other_model(made_by) is None:
            models[side.value] = recipe.model[0]
    return models


def _card(material: _Material, options: TrainingOptions, fitted: Fitted, test: Measured | None) -> ModelCard:
    """Everything that is known about a model."""
    found, features = material.survey, material.features
    counts = [int(count) for count in torch.bincount(features.labels, minlength=2)]
    classifier = fitted.classifier
    return ModelCard(
        input_width=classifier.hidden.in_features,
        hidden_width=classifier.hidden.out_features,
        dropout=classifier.dropout.p,
        sides=tuple(side.value for side in options.sides),
        widths=found.widths,
        encoders=found.encoders,
        models=_recorded_models(found),
        chunk_length=found.chunk_length,
        data={
            "digest": features.digest,
            "files": len(found.files),
            "rows": sum(counts),
            "rows_by_class": dict(zip(CLASS_NAMES, counts, strict=True)),
            "genomes": None if material.genomes is None else len(material.genomes.names),
        },
        split=material.split.summary,
        training=_training_facts(options, fitted),
        metrics={
            "validation": {name: fitted.history[fitted.best_epoch - 1][name] for name in METRICS},
            "test": None if test is None else dict(test.values),
            "test_intervals": None if test is None else dict(test.intervals),
        },
    )


def _training_facts(options: TrainingOptions, fitted: Fitted) -> dict[str, Any]:
    names = ("seed", "batch_size", "momentum", "decay", "decay_every", "patience", "bootstrap")
    return {
        **{name: getattr(options, name) for name in names},
        "learning_rate": options.base_rate,
        "device": options.device.partition(":")[0],
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "ended": fitted.ended,
    }


def _table(history: Sequence[Mapping[str, Any]]) -> str:
    """TSV with one line an epoch."""
    lines = ["\t".join(history[0]), *("\t".join(str(value) for value in entry.values()) for entry in history)]
    return "\n".join(lines) + "\n"


def _found_line(found: Survey) -> str:
    width = " and ".join(f"{columns} {side}" for side, columns in found.widths.items())
    return f"Found {len(found.files)} merged files with {found.rows} rows of {width} columns"


def _split_lines(parts: Split, groups: str) -> Iterator[str]:
    taxa = parts.summary["taxa"]
    for name in PARTS:
        part = parts.summary[name]
        rows = ", ".join(f"{count} {label}" for label, count in part["rows"].items())
        line = f"{name.capitalize() + ':':12}{rows} rows"
        if groups != "rows":
            line += f" of {part['groups']} {groups}"
        yield line if taxa is None or groups == "taxa" else f"{line}, {taxa[name]} taxa"
    if taxa is not None and taxa["train_and_test"]:
        yield f"{taxa['train_and_test']} of {taxa['test']} taxa of the test part are also trained on"
    yield neighbours_line(parts.summary["neighbours"])


def _plain(comparison: Comparison) -> dict[str, Any]:
    """Metrics and differences with their intervals, in plain values."""
    return {
        "models": {name: _values(found) for name, found in comparison.models.items()},
        "differences": {f"{a} - {b}": _values(found) for (a, b), found in comparison.differences.items()},
    }


def _values(found: Measured) -> dict[str, Any]:
    return {name: {"value": found.values[name], "interval": found.intervals[name]} for name in METRICS}
