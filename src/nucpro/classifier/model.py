"""The classifier, and the folder that a trained one is kept in.

Trained weights come from :mod:`nucpro.classifier.fitting` and go, with their card, to ``model.safetensors`` and
``model.json`` in one folder, which prediction reads. A pickled model is never opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from nucpro.classifier.card import (
    HIDDEN_WIDTH,
    TRAIN_AGAIN,
    WEIGHTS_NAME,
    ModelCard,
    is_card,
    models_in,
    read_card,
    require_weights,
    write_card,
)
from nucpro.errors import DataError, DimensionError, ModelError, counted, reason_of
from nucpro.folder.kinds import CARD_NAME, STATE_NAME, Kind, known_folder
from nucpro.folder.paths import CLASS_NAMES, DataFolder
from nucpro.formats import cannot_write, write_bytes
from nucpro.formats.opening import is_litter, open_input, read_input
from nucpro.formats.records import Digest, Name, Within, checked, decoded
from nucpro.formats.sequences import DNA_WIDTH, PROTEIN_WIDTH, SequenceType

logger = logging.getLogger(__name__)

__all__ = [
    "STATE_NAME",
    "Classifier",
    "TrainingState",
    "columns_of",
    "is_of_training",
    "load",
    "read_state",
    "save",
    "write_state",
]

# The library lets through what torch makes of a shape that no tensor can have.
_DAMAGED = (safetensors.SafetensorError, ValueError, TypeError, RuntimeError)
_PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")


class Classifier(nn.Module):
    """VirNucPro's classifier: linear, batch norm, ReLU, dropout, linear.

    Parameters
    ----------
    input_width : int
        Columns of an input row.
    hidden_width : int
        Columns between the two layers.
    dropout : float
        Part of the hidden values that is dropped in training.
    """

    def __init__(self, input_width: int, hidden_width: int = HIDDEN_WIDTH, dropout: float = 0.5) -> None:
        super().__init__()
        self.hidden = nn.Linear(input_width, hidden_width)
        self.norm = nn.BatchNorm1d(hidden_width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_width, len(CLASS_NAMES))
        self.temperature = 1.0
        """What scores are divided by before softmax, for probabilities; training does not see it."""
        # As VirNucPro's train.py starts; biases stay as torch draws them.
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Give the scores before softmax.

        Parameters
        ----------
        rows : torch.Tensor
            float32 ``[N, input_width]``: DNA columns first, then protein, as in merged files.

        Returns
        -------
        torch.Tensor
            ``[N, 2]``; the column is the label: 0 host, 1 viral.

        Raises
        ------
        DimensionError
            Rows of another width.
        """
        if rows.shape[-1] != self.hidden.in_features:
            raise DimensionError(self.hidden.in_features, rows.shape[-1], "columns of the classifier's input")
        inner = F.relu(self.norm(self.hidden(rows)))
        return cast(torch.Tensor, self.output(self.dropout(inner)))

    @torch.inference_mode()
    def probabilities(self, rows: torch.Tensor | NDArray[np.float32]) -> torch.Tensor:
        """Probability of each class, as prediction shows it; the module must be in evaluation mode.

        Parameters
        ----------
        rows : torch.Tensor or ndarray
            As in :meth:`forward`; an array is taken to where the classifier is.

        Returns
        -------
        torch.Tensor
            float32 ``[N, 2]``, rows sum to 1: VirNucPro's ``score1`` (others) and ``score2`` (virus).
        """
        given = torch.as_tensor(rows, device=self.hidden.weight.device)
        return F.softmax(self(given).float() / self.temperature, dim=1)


def columns_of(sequence_types: Sequence[str], widths: Mapping[str, int]) -> slice:
    """Columns of merged rows that a model reads, by its sequence types and the widths of all."""
    dna = widths[SequenceType.DNA]
    first = 0 if SequenceType.DNA in sequence_types else dna
    return slice(first, dna + widths[SequenceType.PROTEIN] if SequenceType.PROTEIN in sequence_types else dna)


def save(folder: Path, classifier: Classifier, card: ModelCard) -> str:
    """Write a model folder; equal content gives equal bytes.

    Parameters
    ----------
    folder : Path
        Created if missing, in a folder that exists. A model in it is replaced.
    classifier : Classifier
        Its weights are written as float32.
    card : ModelCard
        Written last, with the SHA-256 of the weights.

    Returns
    -------
    str
        SHA-256 of the weights.

    Raises
    ------
    StoreError
        The folder cannot be written.
    """
    try:
        # Not its parents: if they were moved away meanwhile, nothing is written in their old place.
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    written = write_bytes(folder / WEIGHTS_NAME, safetensors.torch.save(tensors))
    write_card(folder, card, written.digest)
    return written.digest


def load(folder: str | Path) -> tuple[Classifier, ModelCard]:
    """Read a model folder.

    Parameters
    ----------
    folder : Path
        As :func:`save` wrote it.

    Returns
    -------
    classifier : Classifier
        On the CPU, in evaluation mode.
    card : ModelCard
        What is known about it.

    Raises
    ------
    ModelError
        There is no model, it is a pickle, it was truncated or changed, or it contradicts its card.
    """
    folder = Path(folder)
    _require_model(folder)
    _refuse_pickles(folder)
    card, expected = read_card(folder)
    weights = folder / WEIGHTS_NAME
    raw = read_input(weights, ModelError)
    require_weights(weights, hashlib.sha256(raw).hexdigest(), expected)
    with torch.device("meta"):  # the weights decide whether memory of the card's size is taken
        classifier = Classifier(card.input_width, card.hidden_width, card.dropout)
    _fill(classifier, raw, weights)
    classifier.temperature = float(card.calibration["temperature"])
    return classifier.eval(), card


def _require_model(folder: Path) -> None:
    """Refuse a folder without a model, and name the one of a data folder."""
    if not os.path.lexists(folder):
        raise ModelError(f"{folder}: no such folder; name one that nucpro train wrote")
    if (folder / CARD_NAME).exists() or not folder.is_dir():
        return
    inside, known = DataFolder(folder).model, known_folder(folder)
    if (inside / CARD_NAME).exists():
        raise ModelError(f"{folder}: a data folder; its model is {inside}")
    if known is not None and known.kind is not Kind.CLASSIFIER:
        raise ModelError(f"{folder}: {known}, not the folder of a classifier; {TRAIN_AGAIN}")
    if models := [path.name for path in models_in(folder)]:
        raise ModelError(
            f"{folder}: holds {counted(len(models), 'model')} ({', '.join(models)}); name one of them"
        )


def _refuse_pickles(path: Path) -> None:
    """Refuse what VirNucPro's training script saves, without looking into it: that would run what is in it."""
    found = [path] if path.is_file() else []
    if path.is_dir() and not (path / CARD_NAME).exists():
        found = sorted(
            entry for entry in path.iterdir() if entry.suffix in _PICKLES and not is_litter(entry.name)
        )
    if not found:
        return
    if found[0].suffix in _PICKLES:
        reason = (
            "a pickled model, which can run any program when it is opened, so it is not opened; those of VirNucPro "
            f"also take 3328 columns (ESM-2 3B beside DNABERT-S), merged files now have {DNA_WIDTH + PROTEIN_WIDTH}"
        )
    else:
        reason = "a file; a model is a folder with model.safetensors and model.json"
    raise ModelError(f"{found[0]}: {reason}; {TRAIN_AGAIN}")


def _fill(classifier: Classifier, raw: bytes, path: Path) -> None:
    try:
        tensors = safetensors.torch.load(raw)
    except _DAMAGED as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({reason_of(error)}); {TRAIN_AGAIN}"
        ) from error
    expected = {name: tuple(tensor.shape) for name, tensor in classifier.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise ModelError(f"{path}: holds {found}, expected {expected}; {TRAIN_AGAIN}")
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise ModelError(f"{path}: {wrong[0]} holds values that are not finite; {TRAIN_AGAIN}")
    classifier.to_empty(device="cpu").load_state_dict(tensors)


Tensors = Mapping[str, torch.Tensor]

_KINDS = ("weights", "best", "momentum")
_REMEDY = "start over with --replace"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A training after some epochs.

    Parameters
    ----------
    settings : dict
        Everything that decides the weights of an epoch, in plain values: data, columns, split and options.
    weights, best, momentum : dict of str to torch.Tensor
        Present weights, those of the best epoch, and momentum buffers.
    history : list of dict
        Metrics of each epoch that was finished.
    best_epoch : int
        Number of the best epoch, counted from 1.
    """

    settings: Mapping[str, Any]
    weights: Tensors
    best: Tensors
    momentum: Tensors
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0


@dataclass(frozen=True)
class _Header:
    """Metadata of a state, beside its tensors."""

    history: Annotated[list[dict[str, Any]], Within(1, 1 << 20)]
    best_epoch: Annotated[int, Within(1, 1 << 20)]
    sha256: Digest
    settings: dict[str, Any] | None = None
    key: Name | None = None


def write_state(folder: Path, state: TrainingState) -> None:
    """Write a state atomically."""
    tensors = {
        f"{kind}.{name}": tensor.detach().cpu().contiguous()
        for kind in _KINDS
        for name, tensor in getattr(state, kind).items()
    }
    # Weights and best weights may be one tensor, which the format does not allow.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    header = {"settings": dict(state.settings), "history": state.history, "best_epoch": state.best_epoch}
    # One key only: safetensors writes several in an order that differs from process to process.
    metadata = {"training": json.dumps({**header, "sha256": _digest(header, tensors)})}
    write_bytes(folder / STATE_NAME, safetensors.torch.save(tensors, metadata))


def read_state(folder: Path) -> TrainingState | None:
    """Read the state of a folder; None where there is none, or one of a version whose steps differ.

    Raises
    ------
    DataError
        The file is damaged, or not one of this program.
    """
    path = folder / STATE_NAME
    if not os.path.lexists(path):
        return None
    # The kind of file is checked before it is opened by name: opening a pipe would block.
    open_input(path).close()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            plain = decoded((file.metadata() or {}).get("training", "null").encode())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        header: _Header = checked(_Header, plain)
        if header.sha256 != _digest({name: plain[name] for name in plain if name != "sha256"}, tensors):
            raise ValueError("its SHA-256 is another: it was changed since it was written")
        if header.best_epoch > len(header.history):
            raise ValueError(f"its best epoch is {header.best_epoch} of {len(header.history)}")
        if header.settings is None:
            logger.warning("%s: is of an earlier version, whose steps differ; training starts over", path)
            return None
        parts = {
            kind: {
                name.removeprefix(f"{kind}."): t for name, t in tensors.items() if name.startswith(f"{kind}.")
            }
            for kind in _KINDS
        }
        return TrainingState(header.settings, **parts, history=header.history, best_epoch=header.best_epoch)
    except (*_DAMAGED, OSError) as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)}); {_REMEDY}") from error


def is_of_training(folder: Path) -> bool:
    """Whether training wrote what is in a folder: it holds the state of one, or the card of a model."""
    return os.path.lexists(folder / STATE_NAME) or is_card(folder / CARD_NAME)


def _digest(header: Mapping[str, Any], tensors: Tensors) -> str:
    """SHA-256 over the state that training resumes from."""
    content = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].numpy().tobytes())
    return content.hexdigest()
