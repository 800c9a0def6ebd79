"""The card of a trained classifier and the record of its training, read and written without torch.

Training and evaluation write both into the folder of a model (:mod:`nucpro.classifier.model`); prediction,
inspection and the report read them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from nucpro.classifier.options import LARGEST_BATCH, SplitBy
from nucpro.errors import ModelError, RecordError
from nucpro.folder.kinds import CARD_NAME
from nucpro.folder.paths import CLASS_NAMES
from nucpro.formats.opening import read_input
from nucpro.formats.records import (
    Digest,
    Matching,
    Name,
    Within,
    checked,
    read_record,
    unsealed,
    write_record,
)
from nucpro.formats.sequences import DNA_WIDTH, PROTEIN_WIDTH, SequenceType
from nucpro.genomes.taxonomy import RANKS
from nucpro.state.history import this_software

__all__ = [
    "CURVES_NAMES",
    "HIDDEN_WIDTH",
    "RECORD_NAME",
    "TRAIN_AGAIN",
    "WEIGHTS_NAME",
    "ModelCard",
    "TrainingRecord",
    "is_card",
    "models_in",
    "read_card",
    "read_training",
    "require_weights",
    "write_card",
    "write_training",
]

HIDDEN_WIDTH = 512
"""Columns between the two layers of VirNucPro's classifier."""
WEIGHTS_NAME = "model.safetensors"
"""The weights in a model folder."""
CURVES_NAMES = ("curves.png", "curves.svg")
"""Curves of a training in a model folder, where they were drawn."""
RECORD_NAME = "training.json"
"""The record of the training in a model folder: beside the card, so that equal trainings give equal cards."""
TRAIN_AGAIN = "train a model with nucpro train DATA, and name the folder that it writes"

_FORMAT = 1
_Width = Annotated[int, Within(1, 1 << 20)]
_Length = Annotated[str, Matching("[1-9][0-9]{0,18}")]
_Share = Annotated[float, Within(1e-9, 1 - 1e-9)]
_USED: Mapping[str, Any] = {
    "data.digest": Digest,
    "split.by": Annotated[str, Matching("|".join(SplitBy))],
    "split.rank": Annotated[str, Matching("|".join(RANKS))],
    "split.fold": tuple[Annotated[int, Within(1, 1 << 53)], Annotated[int, Within(3, 1 << 53)]],
    "split.seed": Annotated[int, Within(0, (1 << 32) - 1)],
    "split.fractions": Mapping[Literal["validation", "test"], _Share],
    "split.test_rows_sha256": Digest,
    "training.batch_size": Annotated[int, Within(2, LARGEST_BATCH)],
}
"""What evaluation reads of the entries that hold anything; a model without a split lacks them."""


@dataclass(frozen=True)
class ModelCard:
    """Everything that is known about a trained classifier; plain values only, and no times.

    Parameters
    ----------
    input_width, hidden_width : int
        Dimensions of the classifier.
    dropout : float
        Part of the hidden values that training dropped.
    sides : tuple of str
        The parts of a row, in the order of its columns: ``dna``, ``protein`` or both.
    widths : dict of str to int
        Columns per sequence type in the merged files that it was trained on, also of a type that is not used.
    encoders : dict of str to (dict or None)
        Per sequence type, the ``made_by`` of the vectors (:class:`nucpro.state.recipe.Recipe`): ``id``, ``revision``,
        ``weights_sha256``, architecture and options; None if no file has provenance.
    models : dict of str to str
        Per sequence type, the path or hub id of that model in the records of the data folder; empty if unknown.
    class_names : tuple of str
        Name of each output column.
    chunk_length : int or None
        Bases per full chunk of the training data; None if not recorded.
    data : dict
        ``digest`` (SHA-256 of what was trained on), ``files``, ``rows``, ``rows_by_class``, ``genomes``.
    split : dict
        ``by``, ``seed``, ``fractions``, rows and groups of each part, and ``leak``: a sentence on the test rows whose
        genomes were also trained on, or None.
    training : dict
        Options, seed, epochs that were run, the best one, and why it ended.
    metrics : dict of str to (dict or None)
        ``validation`` and ``test``, by the names of :data:`nucpro.classifier.options.METRICS`, and ``test_intervals``
        with both ends of each; None where not measured.
    """

    input_width: _Width
    hidden_width: _Width = HIDDEN_WIDTH
    dropout: Annotated[float, Within(0, 1)] = 0.5
    sides: tuple[Literal["dna", "protein"], ...] = (SequenceType.DNA.value, SequenceType.PROTEIN.value)
    widths: Mapping[str, _Width] = field(default_factory=lambda: {"dna": DNA_WIDTH, "protein": PROTEIN_WIDTH})
    encoders: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    models: Mapping[str, Name] = field(default_factory=dict)
    class_names: tuple[Name, ...] = CLASS_NAMES
    chunk_length: Annotated[int, Within(3, 1 << 40)] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 1.0, "threshold": 0.5})
    lengths: Mapping[_Length, Mapping[str, Any]] = field(default_factory=dict)


_LATER = {"models", "calibration", "lengths"}
"""Entries that cards of earlier versions lack."""


def write_card(folder: Path, card: ModelCard, weights_sha256: str) -> None:
    """Write the card of a model, whose weights are written already.

    Raises
    ------
    StoreError
        The folder cannot be written.
    """
    write_record(folder / CARD_NAME, {"format": _FORMAT, **asdict(card), "weights_sha256": weights_sha256})


def read_card(folder: Path) -> tuple[ModelCard, str | None]:
    """Read the card of a model folder.

    Parameters
    ----------
    folder : Path
        Model folder.

    Returns
    -------
    card : ModelCard
        Everything that is known about the model.
    weights_sha256 : str or None
        SHA-256 of its weights according to the card.

    Raises
    ------
    ModelError
        It is missing, damaged, or not a card of this format.
    """
    path = folder / CARD_NAME
    content = _content(path)
    digest = content.pop("weights_sha256", None)
    return _card_of(content, path), digest if isinstance(digest, str) else None


def models_in(folder: Path) -> list[Path]:
    """Folders of models in a folder, as a command that trains several makes them; sorted."""
    try:
        return sorted(path for path in folder.iterdir() if os.path.lexists(path / CARD_NAME))
    except OSError:
        return []


def require_weights(weights: Path, digest: str, expected: str | None) -> None:
    """Refuse weights that are not those of the card.

    Parameters
    ----------
    weights : Path
        The file.
    digest : str
        SHA-256 of its content.
    expected : str or None
        SHA-256 according to the card.

    Raises
    ------
    ModelError
        They differ.
    """
    if digest != expected:
        raise ModelError(
            f"{weights}: its SHA-256 is {digest[:12]}…, not the one in {CARD_NAME}: one of them was replaced or "
            f"truncated; {TRAIN_AGAIN}"
        )


def is_card(path: Path) -> bool:
    """Whether a file is a model card; its contents are not checked."""
    try:
        return bool(_content(path))
    except ModelError:
        return False


def _content(path: Path) -> dict[str, Any]:
    try:
        raw = read_input(path, ModelError)
    except ModelError as error:
        raise ModelError(f"{error}; {TRAIN_AGAIN}") from error
    try:
        content, _ = unsealed(raw)
    except ValueError as error:
        raise ModelError(f"{path}: cannot be read ({error}); {TRAIN_AGAIN}") from error
    version = content.pop("format", None)
    if type(version) is not int or version != _FORMAT:
        raise ModelError(f"{path}: is not a nucpro model card of format {_FORMAT}; {TRAIN_AGAIN}")
    return content


def _card_of(content: dict[str, Any], path: Path) -> ModelCard:
    known = {field.name for field in fields(ModelCard)}
    try:
        if content.keys() | _LATER != known:
            odd = ", ".join(sorted((content.keys() | _LATER) ^ known))
            raise ValueError(f"has missing or unknown entries: {odd}")
        card: ModelCard = checked(ModelCard, content)
        _check_card(card)
    except ValueError as error:
        raise ModelError(f"{path}: {error}; {TRAIN_AGAIN}") from error
    return card


def _check_card(card: ModelCard) -> None:
    """Check what prediction relies on, beside types and ranges."""
    if card.class_names != CLASS_NAMES:
        raise ValueError(f"classes are {card.class_names}, expected {CLASS_NAMES}")
    for name, (low, high) in {"temperature": (0, 1000), "threshold": (0, 1)}.items():
        value = checked(float, card.calibration.get(name), name)
        if not low < value < high:
            raise ValueError(f"{name} is {value!r}, expected more than {low}, below {high}")
    for place, kind in _USED.items():
        part, name = place.split(".")
        checked(kind | None, getattr(card, part).get(name), place)
    fold, folds = card.split.get("fold") or (0, 0)
    if fold > folds:
        raise ValueError(f"split.fold is {fold} of {folds}")
    if len(set(card.sides)) < len(card.sides):
        raise ValueError(f"its sequence types are {card.sides}, expected each once")
    widths = [card.widths.get(sequence_type) for sequence_type in card.sides]
    if None in widths or sum(cast(list[int], widths)) != card.input_width:
        raise ValueError(
            f"its sequence types {card.sides} have {widths} columns, not the {card.input_width} of input_width"
        )
    objects = {f"split.{part}": card.split.get(part) for part in ("train", "validation", "test")}
    objects |= {f"lengths.{length}.test": found.get("test") for length, found in card.lengths.items()}
    for place, content in objects.items():
        checked(dict[str, Any] | None, content, place)
    for sequence_type, made_by in card.encoders.items():
        for name in ("id", "revision", "weights_sha256", "precision"):
            checked(Name | None, (made_by or {}).get(name), f"encoders.{sequence_type}.{name}")


@dataclass(frozen=True)
class TrainingRecord:
    """When, on what and with which software a model was trained.

    Parameters
    ----------
    ended : str
        When training ended: UTC, ISO 8601.
    data : str
        Absolute path of the data folder.
    weights_sha256 : str
        SHA-256 of the weights; the record of other weights is ignored.
    software : dict of str to str
        Versions of Python, nucpro and packages.
    """

    ended: Name
    data: Name
    weights_sha256: Digest
    software: Mapping[str, Name] = field(default_factory=dict)

    @property
    def time(self) -> datetime:
        """:attr:`ended`, in UTC."""
        return datetime.fromisoformat(self.ended).astimezone(UTC)


def write_training(folder: Path, data: Path, weights_sha256: str) -> None:
    """Record that the training of a model ended now.

    Parameters
    ----------
    folder : Path
        The model folder.
    data : Path
        The data folder.
    weights_sha256 : str
        SHA-256 of the weights.

    Raises
    ------
    StoreError
        The folder cannot be written.
    """
    ended = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = TrainingRecord(ended, str(data.resolve()), weights_sha256, this_software())
    write_record(folder / RECORD_NAME, record)


def read_training(folder: Path, weights_sha256: str | None) -> TrainingRecord | None:
    """Read the record of a training; None if it is missing, damaged, or of other weights.

    Parameters
    ----------
    folder : Path
        Model folder.
    weights_sha256 : str or None
        SHA-256 of the weights that the model card names.

    Returns
    -------
    TrainingRecord or None
        When the training ended, on which data, and with which software.
    """
    try:
        kept = read_record(folder / RECORD_NAME, TrainingRecord, "the record of a training", "")
        if kept is None or kept.content.weights_sha256 != weights_sha256:
            return None
        kept.content.time  # noqa: B018 - a time that cannot be read is damage
    except (RecordError, ValueError, OverflowError):
        return None
    return kept.content
