"""The steps of ``nucpro train``: survey the data, read it once, split, fit, evaluate, save.

The data folder's merged files come in; a model folder goes out, or three of them and their comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.card import (
    CURVES_NAMES,
    RECORD_NAME,
    WEIGHTS_NAME,
    ModelCard,
    read_training,
    write_training,
)
from nucpro.classifier.curves import draw_curves, require_matplotlib
from nucpro.classifier.fitting import Epoch, Fitted, Fitter, feed_of, fit_settings, fitted_of, viral_margins
from nucpro.classifier.material import Divided, divide, read_material
from nucpro.classifier.metrics import (
    Comparison,
    Measured,
    Resampled,
    Scored,
    called_by_group,
    compare,
    resample,
    temperature_of,
    threshold_for,
)
from nucpro.classifier.model import Classifier, columns_of, is_of_training, save
from nucpro.classifier.options import COLUMNS, METRICS, TrainingOptions
from nucpro.classifier.sources import Survey, survey
from nucpro.classifier.splits import PARTS, read_families
from nucpro.embedding.device import choose_device, device_problems, settled
from nucpro.errors import DataError, PreflightError, as_preflight, counted
from nucpro.folder.kinds import CARD_NAME, Kind, place_problems, require_folder
from nucpro.folder.paths import CLASS_NAMES
from nucpro.formats import made_first, remove_temporaries, replacing_problems, write_text
from nucpro.formats.opening import read_input
from nucpro.formats.records import parsed, write_record
from nucpro.formats.sequences import SequenceType
from nucpro.progress import Show, silent, timed
from nucpro.state.checkpoint import Checkpoint
from nucpro.state.history import record_model
from nucpro.state.lock import hold

__all__ = ["Trained", "train", "working_folders"]

logger = logging.getLogger(__name__)

_LOCK = ".training.lock"
_HISTORY = "epochs.tsv"
_COMPARISON = "comparison.json"
_TAXA = "test_taxa.tsv"


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


def train(options: TrainingOptions, show: Show = silent) -> Trained:
    """Train on a data folder, evaluate on the test part, and write the model.

    Whatever ends training, the folder contains the weights of the best epoch so far. The same call resumes an
    interrupted training, with the result of an uninterrupted one.

    Parameters
    ----------
    options : TrainingOptions
        What was asked for.
    show : callable, optional
        Takes the progress: files that are read, then epochs.

    Returns
    -------
    Trained
        Model folders, and the metrics of the test part.

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
    require_folder(options.data_dir)
    top = options.model_folder
    plans = _plans(options)
    folders = {plan.name: top / plan.name if len(plans) > 1 else top for plan in plans}
    _require_own(folders.values(), top, replace=options.replace)
    with timed("Checking merged files"):
        found = survey(options.data_dir)
    logger.info(_found_line(found))
    if options.families is not None:
        # A bad table is refused before all files are read.
        with as_preflight(DataError):
            read_families(options.families)
    with working_folders([top, *folders.values()]):
        material = read_material(found, options, device, top, show)
        divided, tested = None, {}
        for plan in plans:
            # All models that are compared have one split.
            if divided is None or plan.fold is not None:
                divided = divide(material, options, plan.fold)
            words = " and ".join(sequence_type.word for sequence_type in plan.sequence_types)
            logger.info("Training %s on %s columns", plan.name, words)
            chosen = replace(options, sequence_types=plan.sequence_types)
            tested[plan.name] = _Training(divided, chosen, folders[plan.name]).run(show)
        assert divided is not None
        comparison = _pooled(tested, options) if options.folds else compare(_resampled(tested))
        if len(plans) > 1:
            write_record(top / _COMPARISON, _plain(comparison))
    return Trained(folders, comparison, divided.drawn)


@dataclass(frozen=True)
class _Plan:
    """One of the models that are trained."""

    name: str
    sequence_types: tuple[SequenceType, ...]
    fold: int | None = None


def _plans(options: TrainingOptions) -> list[_Plan]:
    if options.compare:
        return [_Plan(name, chosen) for name, chosen in COLUMNS.items()]
    if options.folds:
        return [_Plan(f"fold_{fold + 1}", options.sequence_types, fold) for fold in range(options.folds)]
    return [_Plan("model", options.sequence_types)]


@dataclass(frozen=True, eq=False)
class _Tested:
    """Predictions of a model for its test part, and their metrics."""

    rows: Scored
    groups: NDArray[np.int64]
    resampled: Resampled


def _resampled(tested: Mapping[str, _Tested]) -> dict[str, Resampled]:
    return {name: found.resampled for name, found in tested.items()}


def _pooled(tested: Mapping[str, _Tested], options: TrainingOptions) -> Comparison:
    """Compare folds, and pool all their test rows; folds have different rows, so there are no differences."""
    parts = list(tested.values())
    margins = np.concatenate([part.rows.relative_margins for part in parts])
    rows = Scored(np.concatenate([part.rows.labels for part in parts]), margins)
    groups = np.concatenate([part.groups for part in parts])
    pooled = resample(rows, groups, options.bootstrap, options.seed)
    models = {name: found.measured for name, found in _resampled(tested).items()}
    return Comparison({**models, "all folds": pooled.measured}, {})


def _require_own(folders: Collection[Path], top: Path, *, replace: bool) -> None:
    """Refuse folders of others, and to replace files that no training wrote."""
    names = (WEIGHTS_NAME, CARD_NAME, _HISTORY, _TAXA, *CURVES_NAMES, RECORD_NAME)
    problems = place_problems(top, "model", {Kind.CLASSIFIER}) or [
        problem
        for folder in folders
        for problem in replacing_problems(
            [folder / name for name in names], lambda path: is_of_training(path.parent), replace=replace
        )
    ]
    if top not in folders:
        problems += replacing_problems([top / _COMPARISON], _is_comparison, replace=replace)
    if problems:
        raise PreflightError(problems)


def _is_comparison(path: Path) -> bool:
    try:
        return {"models", "differences"} <= parsed(read_input(path)).keys()
    except DataError:
        return False


@contextmanager
def working_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Make model folders, hold the lock of each, and remove what killed runs left there.

    Raises
    ------
    LockedError
        Another training or evaluation writes to one of them.
    PreflightError
        A folder cannot be written, or its file system cannot lock.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(folders):
            held.enter_context(made_first(folder))
            held.enter_context(hold(folder / _LOCK))
            remove_temporaries(folder)
        yield


class _Training:
    """One model: from its first weights to its folder."""

    def __init__(self, divided: Divided, options: TrainingOptions, folder: Path) -> None:
        self._divided = divided
        self._options = options
        self._folder = folder
        material = divided.material
        columns = columns_of(options.sequence_types, material.survey.widths)
        features = material.features
        matrix = features.matrix[:, columns]
        self._device = material.device
        self._labels = features.labels.numpy()
        self._feed = feed_of(matrix, features.labels, material.device, options.batch_size)
        with torch.random.fork_rng([]):
            torch.manual_seed(options.seed)
            self._classifier = Classifier(matrix.shape[1]).to(material.device)
        settings = fit_settings(features.digest, divided.split, options, columns)
        self._fitter = Fitter(self._feed, self._labels, divided.split, options, folder, settings)

    def run(self, show: Show) -> _Tested:
        """Train, evaluate and save; return the results on the test part."""
        with ExitStack() as unless_done:
            unless_done.callback(self._save_so_far)
            fitted = self._fitter.fit(self._classifier, self._device, self._tell, show)
            logger.info("Training ended: %s; best epoch: %d", fitted.ended, fitted.best_epoch)
            measured = self._measure(fitted)
            unless_done.pop_all()
        self._save(fitted, measured)
        return measured.tested

    def _save_so_far(self) -> None:
        """Save the best weights of a training that is interrupted."""
        state = self._fitter.fitted_so_far
        # A training that had ended before this run has its model, with what was measured of it.
        if state is None or (self._fitter.had_ended and (self._folder / CARD_NAME).exists()):
            return
        ended = self._fitter.ended or f"stopped after epoch {len(state.history)}"
        self._save(fitted_of(self._classifier, state, ended))

    def _margins(self, fitted: Fitted, part: str) -> Scored:
        rows = self._divided.split.rows[PARTS.index(part)]
        margins = viral_margins(fitted.classifier, self._feed, torch.from_numpy(rows))
        return Scored(self._labels[rows], margins.numpy())

    def _measure(self, fitted: Fitted) -> _Measurement:
        """Calibrate and choose the threshold on the validation part, then evaluate the test part, once."""
        raw = self._margins(fitted, "test")
        validation = self._margins(fitted, "validation")
        temperature = temperature_of(validation)
        threshold = self._threshold(validation.calibrated(temperature))
        test = raw.calibrated(temperature, threshold)
        options = self._options
        resampled = resample(test, self._divided.test_groups, options.bootstrap, options.seed)
        calibration = {
            "temperature": temperature,
            "threshold": threshold,
            "precision_at": options.precision_at,
            "viral_share_of_validation": round(float(validation.labels.mean()), 4),
        }
        return _Measurement(calibration, raw, _Tested(test, self._divided.test_groups, resampled))

    def _threshold(self, validation: Scored) -> float:
        wanted = self._options.precision_at
        if wanted is None:
            return 0.5
        threshold = threshold_for(validation, wanted)
        share = 100 * float(validation.labels.mean())
        if threshold is None:
            logger.warning("no threshold has a precision of %g on the validation part; 0.5 is used", wanted)
            return 0.5
        logger.info(
            "Threshold %g: precision %g on the validation part, of which %.0f%% are viral; where viruses are rarer, "
            "precision is lower",
            threshold,
            wanted,
            share,
        )
        return threshold

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

    def _save(self, fitted: Fitted, measured: _Measurement | None = None) -> None:
        """Write the model folder: the model before its picture, which may fail."""
        write_text(self._folder / _HISTORY, _table(fitted.history))
        test = None if measured is None else measured.tested.rows
        taxa = None if test is None else _table_of_taxa(self._divided, test)
        if taxa is None:
            (self._folder / _TAXA).unlink(missing_ok=True)
        else:
            write_text(self._folder / _TAXA, taxa)
        digest = save(self._folder, fitted.classifier, _card(self._divided, self._options, fitted, measured))
        # A training that had ended before this run keeps the time when it ended.
        if not self._fitter.had_ended or read_training(self._folder, digest) is None:
            write_training(self._folder, self._options.data_dir, digest)
            record_model(self._divided.material.survey.folder, self._folder)
        if self._options.curves:
            draw_curves(self._folder, fitted.history, fitted.best_epoch, test)


@dataclass(frozen=True, eq=False)
class _Measurement:
    """Everything that is measured of a trained model: `raw` is the test part before calibration."""

    calibration: dict[str, Any]
    raw: Scored
    tested: _Tested


def _table_of_taxa(divided: Divided, test: Scored) -> str | None:
    """TSV with one line per taxon and class of the test part; None where taxa are not recorded."""
    material = divided.material
    if material.taxa is None:
        return None
    organisms = {str(organism.taxon): organism.name for organism in material.survey.organisms.values()}
    counts = called_by_group(test, material.taxa.codes[divided.test_rows], len(material.taxa.names))
    lines: list[tuple[str, ...]] = [("taxon_id", "organism", "rows", "viral_rows", "called_viral", "right")]
    named = zip(material.taxa.names, counts.tolist(), strict=True)
    lines += [(taxon, organisms[taxon], *map(str, row)) for taxon, row in named if row[0]]
    return "".join("\t".join(line) + "\n" for line in lines)


def _recorded_models(found: Survey) -> dict[str, str]:
    """Recorded paths or hub ids of the encoders, for each one that made the rows."""
    records = Checkpoint(found.folder, read_only=True)
    models = {}
    for sequence_type in SequenceType:
        recipe, made_by = records.recipe_of(sequence_type), found.encoders[sequence_type.value] or {}
        if recipe is not None and recipe.model is not None and recipe.other_model(made_by) is None:
            models[sequence_type.value] = recipe.model[0]
    return models


def _card(
    divided: Divided, options: TrainingOptions, fitted: Fitted, measured: _Measurement | None
) -> ModelCard:
    """Everything that is known about a model."""
    material = divided.material
    found, features = material.survey, material.features
    counts = [int(count) for count in torch.bincount(features.labels, minlength=2)]
    classifier = fitted.classifier
    validation = {name: fitted.history[fitted.best_epoch - 1][name] for name in METRICS}
    card = ModelCard(
        input_width=classifier.hidden.in_features,
        hidden_width=classifier.hidden.out_features,
        dropout=classifier.dropout.p,
        sides=tuple(sequence_type.value for sequence_type in options.sequence_types),
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
        split=divided.split.summary,
        training=_training_facts(options, fitted),
        metrics={"validation": validation, **_test_metrics(divided, measured)},
    )
    return card if measured is None else replace(card, calibration=measured.calibration)


def _test_metrics(divided: Divided, measured: _Measurement | None) -> dict[str, Any]:
    names = ("test", "test_intervals", "confusion", "by_category", "uncalibrated")
    if measured is None:
        return dict.fromkeys(names)
    test, found = measured.tested.rows, measured.tested.resampled.measured
    categories = divided.material.categories
    counts = called_by_group(test, categories.codes[divided.test_rows], len(categories.names))
    columns = ("rows", "viral_rows", "called_viral", "right")
    named = zip(categories.names, counts.tolist(), strict=True)
    raw = measured.raw.metrics()
    values = (
        dict(found.values),
        dict(found.intervals),
        test.confusion,
        {name: dict(zip(columns, row, strict=True)) for name, row in named if row[0]},
        {name: raw[name] for name in ("loss", "calibration_error")},
    )
    return dict(zip(names, values, strict=True))


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
    """TSV with one line per epoch."""
    lines = ["\t".join(history[0]), *("\t".join(str(value) for value in entry.values()) for entry in history)]
    return "\n".join(lines) + "\n"


def _found_line(found: Survey) -> str:
    width = " and ".join(f"{columns} {SequenceType(name).word}" for name, columns in found.widths.items())
    return (
        f"Found {counted(len(found.files), 'merged file')} with {counted(found.rows, 'row')} of "
        f"{width} columns"
    )


def _plain(comparison: Comparison) -> dict[str, Any]:
    """Metrics and differences with their intervals, in plain values."""
    return {
        "models": {name: _values(found) for name, found in comparison.models.items()},
        "differences": {f"{a} - {b}": _values(found) for (a, b), found in comparison.differences.items()},
    }


def _values(found: Measured) -> dict[str, Any]:
    return {name: {"value": found.values[name], "interval": found.intervals[name]} for name in METRICS}
