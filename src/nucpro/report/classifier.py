"""Classifiers in a report: the models that were trained on a data folder, from their cards and curves.

The default model folder and the folders in the history are read (:mod:`nucpro.classifier.card`); the section of
the page is made from that. A card that cannot be read is one line of the page.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nucpro.classifier.card import (
    CURVES_NAMES,
    WEIGHTS_NAME,
    ModelCard,
    models_in,
    read_card,
    read_training,
    require_weights,
)
from nucpro.classifier.options import SCORES
from nucpro.errors import DataError, ModelError, NucproError, counted
from nucpro.folder.kinds import CARD_NAME
from nucpro.folder.paths import CLASS_NAMES, DataFolder
from nucpro.formats.opening import file_digest, read_input
from nucpro.formats.records import checked, part_of
from nucpro.formats.sequences import SequenceType
from nucpro.report.charts import Markup, element, items, join, table
from nucpro.report.sample import Sample
from nucpro.state import history

__all__ = ["FolderModel", "classifiers", "find_models"]

_SHOWN = 12
_LARGEST_PICTURE = 4 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADLINES = ("accuracy", "auroc", "auprc", "mcc")
_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "mcc": "MCC",
    "f1": "F1",
    "calibration_error": "calibration error",
}
_NONE = "n/a"
_REMEDY = "To train on the present data: nucpro train DATA"


@dataclass(frozen=True)
class FolderModel:
    """A model that was trained on a data folder.

    Parameters
    ----------
    name : str
        Its folder: relative to the data folder where it is within it.
    card : ModelCard or None
        None where it cannot be read.
    trained : str
        When training ended (UTC), and where that is known from.
    problem : str
        What is wrong with the model, or how its training data differ from the present ones; empty for nothing.
    curves : bytes
        Its curves as PNG; empty where there are none.
    """

    name: str
    card: ModelCard | None
    trained: str
    problem: str
    curves: bytes = b""


def find_models(folder: DataFolder, rows: Mapping[str, int] | None) -> list[FolderModel]:
    """Read the models that were trained on a data folder, the default one first, then the latest training.

    Parameters
    ----------
    folder : DataFolder
        The data folder.
    rows : dict of str to int, optional
        Rows of the present merged files by class; None where they are not known.
    """
    default = folder.model
    named = [default, *models_in(default), *reversed(history.models(folder))]
    folders: dict[Path, Path] = {}
    for path in named:
        if os.path.lexists(path / CARD_NAME):
            folders.setdefault(path.resolve(), path)
    files = len(folder.merged_files()) if folders else 0
    return [_read(path, folder, files, rows) for path in folders.values()]


def _read(path: Path, folder: DataFolder, files: int, rows: Mapping[str, int] | None) -> FolderModel:
    name = str(path.relative_to(folder.root) if path.is_relative_to(folder.root) else path)
    try:
        card, expected = read_card(path)
        weights = path / WEIGHTS_NAME
        require_weights(weights, file_digest(weights, ModelError), expected)
        record = read_training(path, expected)
        changed = (path / CARD_NAME).stat().st_mtime
    except (NucproError, OSError) as error:
        return FolderModel(name, None, "", str(error))
    if record is None:
        trained = f"{datetime.fromtimestamp(changed, UTC):%Y-%m-%d %H:%M} UTC (time of {CARD_NAME})"
    else:
        trained = f"{record.time:%Y-%m-%d %H:%M} UTC"
    return FolderModel(name, card, trained, _difference(card, files, rows), _picture(path / CURVES_NAMES[0]))


def _difference(card: ModelCard, files: int, rows: Mapping[str, int] | None) -> str:
    """How the selection of a model differs from the present one; empty where it does not."""
    then, classes = card.data.get("files"), card.data.get("rows_by_class")
    if then == files and rows in (None, classes):
        return ""
    now = counted(files, "merged file", ",") + ("" if rows is None else f", {_classes(rows)}")
    return (
        f"Trained on another selection than that of the folder: {_counted(then, 'merged file')}, {_classes(classes)}; "
        f"now {now}. {_REMEDY}"
    )


def _picture(path: Path) -> bytes:
    """Content of a PNG; nothing for other files, and for one that is too large for a page."""
    try:
        content = read_input(path) if path.stat().st_size <= _LARGEST_PICTURE else b""
    except (DataError, OSError):
        return b""
    return content if content.startswith(_PNG) else b""


def classifiers(models: Sequence[FolderModel], sample: Sample) -> Markup:
    """Write the section: a table where there are several models, then each model."""
    shown = models[:_SHOWN]
    more = [f"… and {len(models) - _SHOWN:,} more"] if len(models) > _SHOWN else []
    headers = ["model", "trained (UTC)", "sequence types", *(f"#{_title(name)}" for name in _HEADLINES)]
    several = table("Models, on their test parts", headers, [_row(model) for model in shown])
    return join(
        (
            several if len(models) > 1 else Markup(),
            *(_model(model, sample, is_only=len(models) == 1) for model in shown),
            items(more, class_="messages"),
        )
    )


def _row(model: FolderModel) -> Sequence[object]:
    if model.card is None:
        return (model.name, "cannot be read", _NONE, *(_NONE for _ in _HEADLINES))
    test = part_of(model.card.metrics, "test")
    return (
        model.name,
        model.trained,
        _columns(model.card),
        *(_number(test.get(name)) for name in _HEADLINES),
    )


def _model(model: FolderModel, sample: Sample, *, is_only: bool) -> Markup:
    problems = [model.problem] if model.problem else []
    if model.card is not None:
        problems += _other_encoders(model.card, sample)
    problem = items(problems, class_="messages")
    if model.card is None:
        return join((element("h3", model.name), problem))
    content = join((items(list(_sentences(model, model.card))), *_tables(model.card), _curves(model)))
    if is_only:
        return join((element("h3", model.name), problem, content))
    return join((element("details", element("summary", model.name), content), problem))


def _other_encoders(card: ModelCard, sample: Sample) -> Iterator[str]:
    """Sequence types whose vectors in the folder are of other weights than those that a model was trained on."""
    for kind, meta, _ in sample.metas:
        then, now = card.encoders.get(kind) or {}, part_of(meta or {}, "made_by")
        weights = then.get("weights_sha256"), now.get("weights_sha256")
        if kind in card.sides and None not in weights and weights[0] != weights[1]:
            old, new = (str(digest)[:12] for digest in weights)
            yield (
                f"Trained on {kind.word} vectors of {then.get('id')} (weights {old}…), but the folder contains "
                f"those of {now.get('id')} (weights {new}…). {_REMEDY}"
            )


def _sentences(model: FolderModel, card: ModelCard) -> Iterator[str]:
    """Describe when, on what and how a model was trained, its threshold and its calibration."""
    data, split, training = card.data, card.split, card.training
    genomes = f" from {_counted(data.get('genomes'), 'genome')}" if data.get("genomes") is not None else ""
    yield (
        f"Trained: {model.trained}, on {_columns(card)} columns ({card.input_width:,}) of "
        f"{_counted(data.get('rows'), 'row')} in {_counted(data.get('files'), 'merged file')}{genomes}: "
        f"{_classes(data.get('rows_by_class'))}."
    )
    rank = f" ({split['rank']})" if split.get("rank") else ""
    parts = (
        f"{part} {_classes(part_of(split, part).get('rows'))}" for part in ("train", "validation", "test")
    )
    yield f"Split by {_plain(split.get('by'))}{rank}: {'; '.join(parts)}."
    if split.get("leak"):
        yield f"Leakage: {_plain(split['leak'])}."
    yield (
        f"Training: {_counted(training.get('epochs'), 'epoch')}, the best one is {_plain(training.get('best_epoch'))}; "
        f"{_plain(training.get('ended'))}."
    )
    yield _threshold(card.calibration)
    yield _calibration(card)


def _threshold(calibration: Mapping[str, Any]) -> str:
    threshold, wanted = _number(calibration.get("threshold"), "g"), calibration.get("precision_at")
    if wanted is None:
        return f"Threshold: {threshold}, the default."
    if threshold == "0.5":
        return f"Threshold: {threshold}: no other reached a precision of {_number(wanted, 'g')} on the validation part."
    return f"Threshold: {threshold}, chosen for a precision of {_number(wanted, 'g')} on the validation part."


def _calibration(card: ModelCard) -> str:
    before, after = part_of(card.metrics, "uncalibrated"), part_of(card.metrics, "test")
    if not before:
        return "Calibration: none recorded."
    return (
        f"Calibration: temperature {_number(card.calibration.get('temperature'))}, fitted on the validation part; "
        f"calibration error on the test part {_number(before.get('calibration_error'))} before, "
        f"{_number(after.get('calibration_error'))} after."
    )


def _tables(card: ModelCard) -> Iterator[Markup]:
    test, validation = part_of(card.metrics, "test"), part_of(card.metrics, "validation")
    if not test:
        yield element("p", "The test part was not evaluated: training did not end.")
    intervals = part_of(card.metrics, "test_intervals")
    rows = [
        (_title(name), _number(test.get(name)), _interval(intervals.get(name)), _number(validation.get(name)))
        for name in SCORES
    ]
    yield table("Metrics", ["metric", "#test", "#95% interval", "#validation"], rows)
    if confusion := part_of(card.metrics, "confusion"):
        cells = [
            (
                f"{name} rows",
                *(_plain(confusion.get(f"{_right(name, called)}_{called}")) for called in CLASS_NAMES),
            )
            for name in CLASS_NAMES
        ]
        yield table("Confusion matrix, test part", ["", *(f"#called {name}" for name in CLASS_NAMES)], cells)
    lengths = [
        (
            length,
            _plain(found.get("frames")),
            *(_number(part_of(found, "test").get(name)) for name in _HEADLINES),
        )
        for length, found in card.lengths.items()
    ]
    if lengths:
        headers = ["#bases", "#frames", *(f"#{_title(name)}" for name in _HEADLINES)]
        yield table("Test genomes at other chunk lengths", headers, lengths)


def _right(name: str, called: str) -> str:
    return "true" if name == called else "false"


def _curves(model: FolderModel) -> Markup:
    if not model.curves:
        return Markup()
    data = base64.b64encode(model.curves).decode("ascii")
    text = "Losses by epoch; ROC, precision against recall and calibration on the test part"
    return element(
        "figure",
        element("img", src=f"data:image/png;base64,{data}", alt=text, class_="picture"),
        element("figcaption", text),
    )


def _columns(card: ModelCard) -> str:
    return " and ".join(SequenceType(sequence_type).word for sequence_type in card.sides)


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric)


def _number(value: object, form: str = ".4f") -> str:
    try:
        return format(checked(float, value), form)
    except ValueError:
        return _NONE


def _interval(ends: object) -> str:
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != len(CLASS_NAMES):
        return _NONE
    return " to ".join(map(_number, ends))


def _plain(value: object) -> str:
    return _NONE if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _counted(value: object, noun: str) -> str:
    return counted(value, noun, ",") if isinstance(value, int) else f"{_plain(value)} {noun}s"


def _classes(rows: object) -> str:
    """Rows of each class in words, viral first."""
    if not isinstance(rows, Mapping):
        return "an unknown number of rows"
    return " and ".join(f"{_plain(rows.get(name))} {name}" for name in reversed(CLASS_NAMES))
