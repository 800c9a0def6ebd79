"""Which encoders a classifier needs, and whether those at hand are the ones that it was trained with.

The card of a classifier comes in (:mod:`nucpro.classifier.card`); identified encoders go to
:mod:`nucpro.prediction.running`, which loads them when everything else was checked. A classifier says
something about the vectors of its own encoders only, so any others are refused.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.classifier.card import ModelCard
from nucpro.embedding.identification import Identified
from nucpro.errors import DimensionError, ModelError, UsageError
from nucpro.execution.engine import Loader
from nucpro.folder.kinds import CARD_NAME
from nucpro.formats.opening import read_input
from nucpro.formats.records import document, unsealed
from nucpro.formats.sequences import SequenceType
from nucpro.options import DEFAULT_MODELS, Options
from nucpro.prediction.options import PredictionOptions
from nucpro.prediction.verdict import Scorer
from nucpro.state.recipe import described

if TYPE_CHECKING:
    from nucpro.classifier.model import Classifier

__all__ = ["Models", "digest_of_card", "find_models"]

logger = logging.getLogger(__name__)

_OPTION_NAMES = {SequenceType.DNA: "--dna-model", SequenceType.PROTEIN: "--protein-model"}


@dataclass(frozen=True)
class Models:
    """A classifier with the encoders that it was trained with, which are not loaded yet.

    Parameters
    ----------
    classifier : Classifier
        On the CPU, in evaluation mode.
    card : ModelCard
        What is known about it.
    card_sha256 : str
        Digest of the card as it was trained.
    identified : dict of SequenceType to Identified
        The encoders that it needs, in the order of its columns.
    options : Options
        What they are loaded with.
    """

    classifier: Classifier
    card: ModelCard
    card_sha256: str
    identified: Mapping[SequenceType, Identified]
    options: Options

    def load_scorer(self, path: Path, loader: Loader) -> Scorer:
        """Load the encoders, and put the classifier beside them.

        Parameters
        ----------
        path : Path
            The input, for messages.
        loader : callable
            Loads an encoder.

        Raises
        ------
        ModelError
            Weights are damaged, or were replaced since they were identified.
        """
        loaded = {
            sequence_type: loader(found, self.options) for sequence_type, found in self.identified.items()
        }
        return Scorer(path, loaded, self.classifier)


def find_models(options: PredictionOptions) -> tuple[Models | None, list[str]]:
    """Read the classifier, find its encoders and compare them with its card.

    Returns
    -------
    models : Models or None
        None where there are problems.
    problems : list of str
        What is wrong, each as a whole message.

    Raises
    ------
    UsageError
        A model is given for columns that the classifier does not read.
    """
    from nucpro.classifier.model import load  # noqa: PLC0415 - imports torch
    from nucpro.embedding.identification import identify  # noqa: PLC0415

    try:
        digest = digest_of_card(options.model) if (options.model / CARD_NAME).is_file() else ""
        classifier, card = load(options.model)
        if digest_of_card(options.model) != digest:
            return None, [f"{options.model}: was replaced while it was read; run again"]
    except ModelError as error:
        return None, [str(error)]
    sequence_types = [SequenceType(name) for name in card.sides]
    for sequence_type in set(SequenceType) - set(sequence_types):
        read = " and ".join(card.sides)
        options.require_no_model(
            sequence_type, f"only for a classifier of such columns; {options.model} reads {read} columns"
        )
    unnamed = [
        sequence_type for sequence_type in sequence_types if not _is_named(sequence_type, card, options)
    ]
    if unnamed:
        return None, [_unnamed(sequence_type, card, options) for sequence_type in unnamed]
    encoding = _encoding_options(card, options)
    problems: list[str] = []
    identified: dict[SequenceType, Identified] = {}
    for sequence_type in sequence_types:
        try:
            identified[sequence_type] = identify(encoding, sequence_type)
        except (ModelError, DimensionError, UsageError) as error:
            problems.append(str(error))
        else:
            problems += _other_model(identified[sequence_type], card, options.model)
    if problems:
        return None, problems
    return Models(classifier, card, digest, identified, encoding), []


def digest_of_card(model: Path) -> str:
    """SHA-256 of a classifier's card as it was trained: what is measured of it later changes no score."""
    raw = read_input(model / CARD_NAME, ModelError)
    with suppress(ValueError):  # a damaged card is refused when it is loaded
        content, _ = unsealed(raw)
        if content.get("lengths"):
            raw = document({**content, "lengths": {}})
    return hashlib.sha256(raw).hexdigest()


def _asked_for(sequence_type: SequenceType, options: PredictionOptions) -> str | None:
    return options.dna_model if sequence_type is SequenceType.DNA else options.protein_model


def _is_named(sequence_type: SequenceType, card: ModelCard, options: PredictionOptions) -> bool:
    """Whether the path of the encoder of a sequence type is known."""
    return _asked_for(sequence_type, options) is not None or _known_as(sequence_type, card) is not None


def _known_as(sequence_type: SequenceType, card: ModelCard) -> str | None:
    """Path or hub id of an encoder from the card; None if it is unknown or no longer there."""
    place = card.models.get(sequence_type.value)
    if place is not None and os.path.exists(place):  # noqa: PTH110 - a name that no file system takes is nowhere
        return place
    name = _id_of(sequence_type, card)
    return name if "/" in name else None


def _id_of(sequence_type: SequenceType, card: ModelCard) -> str:
    return str((card.encoders.get(sequence_type) or {}).get("id", ""))


def _unnamed(sequence_type: SequenceType, card: ModelCard, options: PredictionOptions) -> str:
    name = _id_of(sequence_type, card)
    known = f"by {described(card.encoders[sequence_type.value] or {})}" if name else "by an unknown model"
    place = card.models.get(sequence_type.value)
    gone = f", which is no longer in {place}" if place else ""
    return (
        f"{options.model}: the {sequence_type.word} vectors that it was trained on were made {known}{gone}; "
        f"give that model with {_OPTION_NAMES[sequence_type]}"
    )


def _encoding_options(card: ModelCard, options: PredictionOptions) -> Options:
    """Options under which the encoders make vectors as those of the training data."""
    made_by = {sequence_type: card.encoders.get(sequence_type) or {} for sequence_type in SequenceType}
    names = {
        sequence_type: _asked_for(sequence_type, options)
        or _known_as(sequence_type, card)
        or DEFAULT_MODELS[sequence_type]
        for sequence_type in SequenceType
    }
    revisions = {SequenceType.DNA: options.dna_revision, SequenceType.PROTEIN: options.revision}
    for sequence_type in SequenceType:
        if (
            names[sequence_type] == _id_of(sequence_type, card)
            and _asked_for(sequence_type, options) is None
            and revisions[sequence_type] is None
        ):
            revisions[sequence_type] = made_by[sequence_type].get("revision")
    encoding = Options(
        protein_model=names[SequenceType.PROTEIN],
        revision=revisions[SequenceType.PROTEIN],
        dna_model=names[SequenceType.DNA],
        dna_revision=revisions[SequenceType.DNA],
        device=options.device,
        precision=_precision(made_by, options),
        token_dropout=_token_dropout(made_by[SequenceType.PROTEIN].get("token_dropout")),
        tokens_per_batch=options.tokens_per_batch,
    )
    return encoding.anywhere() if options.uses_cluster else encoding


def _precision(made_by: Mapping[SequenceType, Mapping[str, Any]], options: PredictionOptions) -> str:
    """Precision of the training data where nothing else is asked for; a CPU computes in fp32."""
    if options.precision != "auto" or options.device == "cpu":
        return options.precision
    return str(
        made_by[SequenceType.PROTEIN].get("precision") or made_by[SequenceType.DNA].get("precision") or "auto"
    )


def _other_model(found: Identified, card: ModelCard, model: Path) -> list[str]:
    """Why an encoder is not the one that a classifier was trained with."""
    sequence_type, own = found.sequence_type, found.recipe.made_by
    if found.recipe.width != card.widths[sequence_type]:
        return [
            f"{model}: takes {card.widths[sequence_type]} {sequence_type.word} columns, "
            f"{own['id']} gives {found.recipe.width}; give the encoder of its training data with "
            f"{_OPTION_NAMES[sequence_type]}"
        ]
    trained = card.encoders.get(sequence_type)
    if trained is None:
        logger.warning(
            "%s does not say which model computed the %s vectors it was trained on; "
            "scores are meaningful only if it was %s",
            model,
            sequence_type,
            own["id"],
        )
        return []
    difference = found.recipe.other_model(trained)
    if difference is not None:
        return [
            f"{model}: was trained on {sequence_type.word} vectors of {described(trained)}, and the encoder here is "
            f"{described(own)}: {difference}; give the encoder of its training data with "
            f"{_OPTION_NAMES[sequence_type]}"
        ]
    if trained.get("precision") != own["precision"]:
        logger.warning(
            "%s was trained on %s vectors in %s, these are computed in %s: scores differ by rounding",
            model,
            sequence_type,
            trained.get("precision"),
            own["precision"],
        )
    return []


def _token_dropout(recorded: object) -> str:
    return {True: "on", False: "off"}[recorded] if isinstance(recorded, bool) else "auto"
