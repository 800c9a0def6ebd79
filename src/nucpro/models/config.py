"""JSON files of a checkpoint, and the configurations of all encoders: the checked fields of its ``config.json``.

The files are found by :mod:`nucpro.models.weights`; a Hugging Face model object has a configuration too. Nothing here
needs torch: a model is identified without.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from nucpro.errors import ModelError, UsageError, shortened
from nucpro.formats.opening import UNKNOWN, looks_like, read_input

__all__ = [
    "ALL_TOKENS",
    "AUTO",
    "CUT",
    "ESM2_TYPES",
    "LONG_RECORDS",
    "MEAN",
    "MEAN_OF_LAST",
    "MOSAIC_BERT_TYPE",
    "POOLINGS",
    "REFUSE",
    "RESIDUES_ONLY",
    "RESIDUE_TYPES",
    "TOKEN_DROPOUT_CHOICES",
    "WINDOW",
    "Config",
    "Esm2Config",
    "MosaicBertConfig",
    "PooledSpan",
    "Readout",
    "positive",
    "read_json",
    "refuse_other_values",
    "required",
    "shown",
    "size",
]

_SHOWN = 60
_LARGEST_SIZE = 1_000_000
_MOST_LAYERS = 1_000
"""Encoder layers above which a configuration is taken to be damaged."""


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    file : Path
        ``config.json``, or the index of a sharded checkpoint.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    ModelError
        If the file cannot be read or holds anything else.
    """
    if not os.path.lexists(file):
        raise ModelError(f"{file}: is missing; fetch the model again (nucpro fetch-models FOLDER)")
    raw = read_input(file, ModelError)
    try:
        content = json.loads(raw.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        looks = looks_like(raw)
        reason = str(error) if looks in ("JSON", UNKNOWN) else f"it is {looks}"
        raise ModelError(
            f"{file}: cannot be read as JSON ({reason}); fetch the model again (nucpro fetch-models FOLDER)"
        ) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ModelError(
            f"{file}: holds a JSON {kind}, not an object; fetch the model again (nucpro fetch-models FOLDER)"
        )
    return content


def shown(value: object) -> str:
    """A value of a configuration for a message, of any length in the file."""
    return shortened(repr(value), _SHOWN)


def required(fields: Mapping[str, Any], name: str) -> Any:
    """Value of a field that must be there.

    Raises
    ------
    ModelError
        If it is not.
    """
    if name not in fields:
        raise ModelError(
            f"config.json: {name} is missing; fetch the model again (nucpro fetch-models FOLDER)"
        )
    return fields[name]


def size(fields: Mapping[str, Any], name: str, largest: int = _LARGEST_SIZE) -> int:
    """Value of a field that counts something, from 1 to ``largest``.

    Raises
    ------
    ModelError
        If it is missing or anything else.
    """
    value = required(fields, name)
    if type(value) is not int or not 1 <= value <= largest:
        raise ModelError(
            f"config.json: {name} is {shown(value)}; it must be a whole number from 1 to {largest:,}"
        )
    return value


def positive(fields: Mapping[str, Any], name: str) -> float:
    """Value of a field that is a positive, finite number.

    Raises
    ------
    ModelError
        If it is missing or anything else.
    """
    value = required(fields, name)
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise ModelError(f"config.json: {name} is {shown(value)}; it must be a positive number")
    return float(value)


def refuse_other_values(
    fields: Mapping[str, Any], wanted: Mapping[str, Any], which: str, others: str
) -> None:
    """Raise where a field has another value than all models of an architecture have; it may be missing.

    Parameters
    ----------
    fields : mapping
        The configuration.
    wanted : mapping
        The one value allowed for each field.
    which, others : str
        The architecture, and those that may have been given instead, in words.

    Raises
    ------
    ModelError
        If a field says otherwise.
    """
    for name, value in wanted.items():
        found = fields.get(name, value)
        if found != value:
            raise ModelError(
                f"config.json: {name} is {shown(found)}, but {which} has {value!r}; "
                f"this is another architecture ({others}), which is not supported"
            )


@dataclass(frozen=True)
class PooledSpan:
    """Which tokens of a sequence its vector is the mean of.

    Parameters
    ----------
    name : str
        What is left, in words; part of every file's ``meta``.
    skip_start, skip_end : int
        Tokens left out at either end of every sequence.
    """

    name: str
    skip_start: int
    skip_end: int


RESIDUES_ONLY = PooledSpan("mean of residues", skip_start=1, skip_end=1)
"""Everything but the first and the last token, ``<cls>`` and ``<eos>``."""
ALL_TOKENS = PooledSpan("mean of all tokens", skip_start=0, skip_end=0)
"""Every token, special ones included."""


MEAN = "mean"
POOLINGS = (MEAN, "max", "min", "std", "cls")
"""What can be made of the hidden states of a sequence, column by column: mean, largest, smallest and standard deviation
(of the population) over the pooled span, and the state of the first token."""


CUT, WINDOW, REFUSE = LONG_RECORDS = ("cut", "window", "refuse")
"""What happens to records that are longer than the model reads."""
RESIDUE_TYPES = ("float16", "float32")
"""Element types of vectors of residues."""


@dataclass(frozen=True)
class Readout:
    """What is taken of hidden states for a vector.

    Parameters
    ----------
    layers : tuple of int
        As in the ``hidden_states`` of transformers: 0 is the embedding, N the state after layer N, and the last one is
        that after the final norm, where the model has one; -1 is the last.
    poolings : tuple of str
        Of :data:`POOLINGS`. Columns are those of the first layer, one pooling after the other, then of the next layer.
    per_residue : str, optional
        One of :data:`RESIDUE_TYPES`: a vector of this element type for each residue, not pooled.
    windows : bool
        Read records longer than the limit in windows, and average the states of each residue over them.

    Raises
    ------
    UsageError
        A pooling that is unknown, nothing, or something twice; or one of what is not pooled.
    """

    layers: tuple[int, ...] = (-1,)
    poolings: tuple[str, ...] = (MEAN,)
    per_residue: str | None = None
    windows: bool = False

    def __post_init__(self) -> None:
        for option, values in (("--layer", self.layers), ("--pool", self.poolings)):
            if not values or len(set(values)) != len(values):
                shown = ",".join(map(str, values)) or "nothing"
                raise UsageError(f"{option} is {shown}; allowed: one or more, each once")
        unknown = [pooling for pooling in self.poolings if pooling not in POOLINGS]
        if unknown:
            raise UsageError(f"--pool is {unknown[0]}; allowed: {', '.join(POOLINGS)}, several with commas")
        if self.per_residue not in (None, *RESIDUE_TYPES):
            raise UsageError(f"--dtype is {self.per_residue}; allowed: {', '.join(RESIDUE_TYPES)}")
        if self.windows and "cls" in self.poolings:
            raise UsageError("--pool cls and --long window exclude each other: each window has a first token")
        if self.per_residue and self.poolings != (MEAN,):
            raise UsageError(
                "--pool and --per-residue exclude each other: vectors of residues are not pooled"
            )

    @property
    def parts(self) -> int:
        """How many times the width of a hidden state a vector has."""
        return len(self.layers) * len(self.poolings)

    @property
    def is_default(self) -> bool:
        """Whether it is the mean of the last layer."""
        return self == MEAN_OF_LAST

    @property
    def tells_apart(self) -> bool:
        """Whether different sequences have different vectors: words of the embedding alone, or the spread, may not."""
        has_context = any(layer != 0 for layer in self.layers)
        return has_context and not self.per_residue and set(self.poolings) != {"std"}

    def of(self, count: int) -> Readout:
        """Readout of a model with so many layers, with layers counted from 0; the last one stays -1.

        Raises
        ------
        UsageError
            The model has no such layer.
        """
        for layer in self.layers:
            if not -count - 1 <= layer <= count:
                raise UsageError(
                    f"--layer is {layer}; allowed: 0 (the embedding) to {count} (the last), or -1 to {-count - 1} "
                    "from the end"
                )
        counted = (layer % (count + 1) for layer in self.layers)
        return replace(self, layers=tuple(-1 if layer == count else layer for layer in counted))

    def said(self, count: int, span: PooledSpan) -> dict[str, Any]:
        """Plain values for ``meta`` of what differs from the mean of the last layer."""
        windows = {"long_records": "windows overlapping by half"} if self.windows else {}
        if replace(self, windows=False).is_default:
            return windows
        read_layers = [layer % (count + 1) for layer in self.layers]
        if self.per_residue:
            return {
                "pooling": "none",
                "element_type": self.per_residue,
                "read_layers": read_layers,
                **windows,
            }
        over = span.name.removeprefix(MEAN)
        names = ["first token" if name == "cls" else f"{name}{over}" for name in self.poolings]
        return {"pooling": " + ".join(names), "read_layers": read_layers, **windows}


MEAN_OF_LAST = Readout()
"""What the files of a data folder hold."""


class Config(Protocol):
    """Checked configuration of an encoder: a frozen dataclass whose fields are plain numbers.

    All of them go into the ``meta`` of files.
    """

    architecture: ClassVar[str]
    """Name of the architecture in ``meta``."""
    pooled_span: ClassVar[PooledSpan]
    """Tokens of a sequence that its vector is the mean of."""

    @property
    def vocabulary_size(self) -> int:
        """Rows of the token embedding."""
        ...

    @property
    def width(self) -> int:
        """Columns of a hidden state."""
        ...

    @property
    def layers(self) -> int:
        """Encoder layers."""
        ...

    @property
    def heads(self) -> int:
        """Attention heads."""
        ...

    @property
    def feed_forward_width(self) -> int:
        """Columns between the two products of the feed-forward part."""
        ...


AUTO = "auto"
"""The choice that follows the checkpoint."""
TOKEN_DROPOUT_CHOICES = (AUTO, "on", "off")
"""Allowed values of the option."""

# Defaults of each model_type's configuration class, for fields that the configuration lacks.
_TYPE_DEFAULTS: dict[str, dict[str, Any]] = {
    "esm": {"token_dropout": False, "position_embedding_type": "absolute"},
    "fast_esm": {"token_dropout": True, "position_embedding_type": "rotary"},
}
ESM2_TYPES = tuple(_TYPE_DEFAULTS)
"""Values of ``model_type`` of an ESM-2."""
_REQUIRED: dict[str, Any] = {
    "position_embedding_type": "rotary",
    "hidden_act": "gelu",
    "emb_layer_norm_before": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "is_folding_model": False,
}
"""Values that every ESM-2 has; a missing or null field means the same, but for position_embedding_type."""


@dataclass(frozen=True)
class Esm2Config:
    """Shape and options of an ESM-2 encoder.

    Parameters
    ----------
    vocabulary_size : int
        Rows of the token embedding.
    width : int
        Columns of a hidden state.
    layers, heads : int
        Encoder layers, and attention heads of each.
    feed_forward_width : int
        Columns between the two products of the feed-forward part.
    norm_epsilon : float
        Added to the variance in layer norms.
    rotary_base : float
        Base of the geometric series of rotary frequencies, used where the checkpoint does not hold them.
    token_dropout : bool
        Whether token embeddings are scaled by 0.88, as in training with dropped tokens.
    """

    architecture: ClassVar[str] = "esm2"
    pooled_span: ClassVar[PooledSpan] = RESIDUES_ONLY

    vocabulary_size: int
    width: int
    layers: int
    heads: int
    feed_forward_width: int
    norm_epsilon: float
    rotary_base: float
    token_dropout: bool

    @property
    def head_width(self) -> int:
        """Columns of one attention head."""
        return self.width // self.heads

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], token_dropout: str = AUTO) -> Self:
        """Check a configuration and take from it what an encoder needs.

        Parameters
        ----------
        config : mapping
            Content of ``config.json``.
        token_dropout : {'auto', 'on', 'off'}
            ``auto`` takes the value of the configuration; where it has none, ``fast_esm`` means on and
            ``esm`` off, as in their configuration classes.

        Returns
        -------
        Esm2Config
            The checked configuration.

        Raises
        ------
        ModelError
            If a field is missing or impossible, or the model is not an ESM-2.
        UsageError
            If ``token_dropout`` is none of the three.
        """
        fields = _with_defaults(config)
        refuse_other_values(fields, _REQUIRED, "every ESM-2", "ESM-1, ESMFold or a derivative")
        sizes = {
            "vocabulary_size": size(fields, "vocab_size"),
            "width": size(fields, "hidden_size"),
            "layers": size(fields, "num_hidden_layers", _MOST_LAYERS),
            "heads": size(fields, "num_attention_heads"),
            "feed_forward_width": size(fields, "intermediate_size"),
        }
        if sizes["width"] % (2 * sizes["heads"]):
            raise ModelError(
                f"config.json: hidden_size {sizes['width']} cannot be shared by {sizes['heads']} attention "
                "heads: each needs the same, even number of columns"
            )
        return cls(
            **sizes,
            norm_epsilon=positive(fields, "layer_norm_eps"),
            rotary_base=positive({"rope_theta": 10000.0} | fields, "rope_theta"),
            token_dropout=_token_dropout(fields, token_dropout),
        )

    @classmethod
    def from_object(cls, model: object, token_dropout: str = AUTO) -> Self:
        """Take the configuration of a Hugging Face model object.

        Parameters
        ----------
        model : object
            With an attribute ``config`` that has ``to_dict()``.
        token_dropout : {'auto', 'on', 'off'}
            See :meth:`from_dict`.

        Returns
        -------
        Esm2Config
            The checked configuration.

        Raises
        ------
        ModelError
            If there is no such attribute, or as :meth:`from_dict` says.
        """
        to_dict = getattr(getattr(model, "config", None), "to_dict", None)
        if to_dict is None:
            raise ModelError(
                f"a {type(model).__name__} has no .config, so its shape is unknown; give a Hugging Face "
                "ESM-2 model, such as AutoModel.from_pretrained(...) returns"
            )
        return cls.from_dict(to_dict(), token_dropout)


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    model_type = config.get("model_type")
    if model_type not in ESM2_TYPES:
        raise ModelError(
            f"config.json: model_type is {shown(model_type)}; allowed are {' and '.join(ESM2_TYPES)}: "
            "this is not an ESM-2 checkpoint"
        )
    given = {name: value for name, value in config.items() if value is not None}
    return _TYPE_DEFAULTS[model_type] | given


def _token_dropout(fields: Mapping[str, Any], choice: str) -> bool:
    if choice not in TOKEN_DROPOUT_CHOICES:
        raise UsageError(
            f"token dropout {choice!r} is unknown; allowed are {', '.join(TOKEN_DROPOUT_CHOICES)}"
        )
    if choice != AUTO:
        return choice == "on"
    value = fields["token_dropout"]
    if not isinstance(value, bool):
        raise ModelError(f"config.json: token_dropout is {shown(value)}; it must be true or false")
    return value


MOSAIC_BERT_TYPE = "bert"
"""Value of ``model_type`` of a MosaicBERT."""
_MOSAIC_BERT_REQUIRED = {"hidden_act": "gelu", "is_decoder": False, "add_cross_attention": False}


@dataclass(frozen=True)
class MosaicBertConfig:
    """Shape of a MosaicBERT encoder.

    Parameters
    ----------
    vocabulary_size : int
        Rows of the token embedding.
    token_types : int
        Rows of the token type embedding, of which the first is added to every token.
    width : int
        Columns of a hidden state.
    layers, heads : int
        Encoder layers, and attention heads of each.
    feed_forward_width : int
        Columns of the gate, and of what it gates.
    norm_epsilon : float
        Added to the variance in layer norms.
    """

    architecture: ClassVar[str] = "mosaic_bert"
    pooled_span: ClassVar[PooledSpan] = ALL_TOKENS
    """All tokens, ``[CLS]`` and ``[SEP]`` included: what existing DNABERT-S files hold."""

    vocabulary_size: int
    token_types: int
    width: int
    layers: int
    heads: int
    feed_forward_width: int
    norm_epsilon: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Check a configuration and take from it what an encoder needs.

        Parameters
        ----------
        config : mapping
            Content of ``config.json``, with the field names of transformers' ``BertConfig``. Fields on positions
            (``position_embedding_type``, ``alibi_starting_size``) mean nothing: every MosaicBERT has ALiBi, at
            any length.

        Returns
        -------
        MosaicBertConfig
            The checked configuration.

        Raises
        ------
        ModelError
            If a field is missing or impossible, or the model is not a BERT.
        """
        fields = {name: value for name, value in config.items() if value is not None}
        model_type = fields.get("model_type")
        if model_type != MOSAIC_BERT_TYPE:
            raise ModelError(
                f"config.json: model_type is {shown(model_type)}; allowed is {MOSAIC_BERT_TYPE}: "
                "this is not a DNABERT-S or DNABERT-2 checkpoint"
            )
        refuse_other_values(
            fields, _MOSAIC_BERT_REQUIRED, "every MosaicBERT", "a decoder, or a BERT of another kind"
        )
        width, heads = size(fields, "hidden_size"), size(fields, "num_attention_heads")
        if width % heads:
            raise ModelError(
                f"config.json: hidden_size {width} cannot be shared by {heads} attention heads: "
                "each needs the same number of columns"
            )
        return cls(
            vocabulary_size=size(fields, "vocab_size"),
            token_types=size(fields, "type_vocab_size"),
            width=width,
            layers=size(fields, "num_hidden_layers", _MOST_LAYERS),
            heads=heads,
            feed_forward_width=size(fields, "intermediate_size"),
            norm_epsilon=positive(fields, "layer_norm_eps"),
        )
