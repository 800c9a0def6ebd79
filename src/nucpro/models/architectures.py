"""Supported encoder architectures, how to recognise them in a checkpoint, and how each computes.

``config.json`` comes from :mod:`nucpro.models.weights`; the entry goes to :mod:`nucpro.embedding.identification`, which
describes a model without torch, and to :mod:`nucpro.embedding.encoder`, which loads it. To add an encoder, write its
module and its entry here. Encoders do not import kernels: their forward by kernels is named here.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from nucpro.errors import ModelError
from nucpro.formats.sequences import SequenceType
from nucpro.models.config import (
    ESM2_TYPES,
    MOSAIC_BERT_TYPE,
    Config,
    Esm2Config,
    MosaicBertConfig,
    shown,
)
from nucpro.models.kernels import Choice, Fused, Way, choose_way
from nucpro.models.tokens import ResidueTokenizer, Tokenizer
from nucpro.models.weights import ModelFiles

if TYPE_CHECKING:
    import torch

    from nucpro.models.dna_tokens import DnaTokenizer
    from nucpro.models.encoder import PackedEncoder

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Loader",
    "architecture_of",
    "load_dna_tokenizer",
    "load_tokenizer",
    "sequence_type_of",
    "use_kernels",
    "way_of",
]

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """What loads the weights of an encoder."""

    def __call__(
        self, files: ModelFiles, *, device: torch.device, dtype: torch.dtype, config: Any
    ) -> PackedEncoder:
        """Load the encoder that a checked configuration describes."""
        ...


@dataclass(frozen=True)
class Architecture:
    """One kind of encoder: all that identifying, checking and loading a model needs.

    Parameters
    ----------
    title : str
        What the log calls it.
    sequence_type : SequenceType
        What it reads.
    model_types : tuple of str
        Values of ``model_type`` in ``config.json`` of this architecture, for this sequence type.
    config : type of Config
        Its configuration.
    read_config : callable
        From the content of ``config.json`` and the choice of token dropout to its configuration.
    load_tokenizer : callable
        From its files to its tokens.
    loader : str
        ``module:function`` of its :class:`Loader`. Named and not imported: torch, which it needs, takes seconds, and
        who only identifies a model can do without.
    fused : Fused, optional
        Its forward by kernels; an encoder that has none computes by its own.
    """

    title: str
    sequence_type: SequenceType
    model_types: tuple[str, ...]
    config: type[Config]
    read_config: Callable[[Mapping[str, Any], str], Config]
    load_tokenizer: Callable[[ModelFiles], Tokenizer]
    loader: str
    fused: Fused | None = None

    def config_of(self, files: ModelFiles, token_dropout: str) -> Config:
        """Configuration of a checkpoint, with a choice of token dropout.

        Parameters
        ----------
        files : ModelFiles
            The checkpoint.
        token_dropout : {'auto', 'on', 'off'}
            See :meth:`nucpro.models.config.Esm2Config.from_dict`.

        Raises
        ------
        ModelError
            It is not one of this architecture.
        """
        try:
            return self.read_config(files.config, token_dropout)
        except ModelError as error:
            raise ModelError(f"{files.folder}: {error}") from error

    @property
    def load(self) -> Loader:
        """From its files and configuration to the encoder with its weights; imports torch."""
        return cast(Loader, pkgutil.resolve_name(self.loader))


def load_tokenizer(files: ModelFiles) -> ResidueTokenizer:
    """Load the tokenizer of an ESM-2 checkpoint.

    Parameters
    ----------
    files : ModelFiles
        Path of the model.

    Returns
    -------
    ResidueTokenizer
        With the checkpoint's vocabulary, or that of all published ESM-2 models where it has none.

    Raises
    ------
    ModelError
        If the vocabulary is not that of a protein model, or larger than the model's token embedding.
    """
    tokenizer = ResidueTokenizer.from_file(files.vocabulary) if files.vocabulary else ResidueTokenizer()
    rows = Esm2Config.from_dict(files.config).vocabulary_size
    if len(tokenizer.vocabulary) > rows:
        raise ModelError(
            f"{files.id}: the vocabulary has {len(tokenizer.vocabulary)} tokens, but config.json has vocab_size "
            f"{rows}; they must belong together: fetch the model again (nucpro fetch-models FOLDER)"
        )
    return tokenizer


def load_dna_tokenizer(files: ModelFiles) -> DnaTokenizer:
    """Load the tokenizer of a DNABERT-S or DNABERT-2 checkpoint.

    Parameters
    ----------
    files : ModelFiles
        Path of the model.

    Returns
    -------
    DnaTokenizer
        As ``tokenizer.json`` describes it.

    Raises
    ------
    ModelError
        If there is no such file, it is not a tokenizer of nucleotides, or it has ids that the model's token
        embedding lacks.
    """
    # The library of its merges is needed for this sequence type alone.
    from nucpro.models.dna_tokens import DnaTokenizer  # noqa: PLC0415

    tokenizer = DnaTokenizer.from_file(files.folder / "tokenizer.json")
    rows = MosaicBertConfig.from_dict(files.config).vocabulary_size
    if tokenizer.largest_id >= rows:
        raise ModelError(
            f"{files.id}: tokenizer.json has ids up to {tokenizer.largest_id}, but config.json has vocab_size "
            f"{rows}; they must belong together: fetch the model again (nucpro fetch-models FOLDER)"
        )
    return tokenizer


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        title="ESM-2",
        sequence_type=SequenceType.PROTEIN,
        model_types=ESM2_TYPES,
        config=Esm2Config,
        read_config=Esm2Config.from_dict,
        load_tokenizer=load_tokenizer,
        loader="nucpro.models.esm2:load_esm2",
        fused=Fused("nucpro.models.fused", pads_heads=True, has_hopper_product=True),
    ),
    Architecture(
        title="DNABERT-S",
        sequence_type=SequenceType.DNA,
        model_types=(MOSAIC_BERT_TYPE,),
        config=MosaicBertConfig,
        # No MosaicBERT was trained with dropped tokens.
        read_config=lambda config, _token_dropout: MosaicBertConfig.from_dict(config),
        load_tokenizer=load_dna_tokenizer,
        loader="nucpro.models.mosaic_bert:load_mosaic_bert",
        fused=Fused("nucpro.models.mosaic_bert_fused", pads_heads=False, has_hopper_product=False),
    ),
)
"""Architectures of both sequence types."""


def architecture_of(files: ModelFiles, sequence_type: SequenceType) -> Architecture:
    """Find the architecture of a checkpoint.

    Parameters
    ----------
    files : ModelFiles
        The checkpoint.
    sequence_type : SequenceType
        What the model is to read.

    Returns
    -------
    Architecture
        Its entry of :data:`ARCHITECTURES`.

    Raises
    ------
    ModelError
        The ``model_type`` of its ``config.json`` is no architecture for this sequence type.
    """
    model_type = files.config.get("model_type")
    of_type = [known for known in ARCHITECTURES if known.sequence_type is sequence_type]
    for architecture in of_type:
        if model_type in architecture.model_types:
            return architecture
    allowed = ", ".join(f"{' or '.join(known.model_types)} ({known.title})" for known in of_type)
    raise ModelError(
        f"{files.id}: model_type is {shown(model_type)} in config.json; allowed for the {sequence_type.word} model: "
        f"{allowed}; name a model of one of these, or add its architecture (see CONTRIBUTING.md)"
    )


def sequence_type_of(files: ModelFiles) -> SequenceType:
    """Sequence type of a checkpoint, by the ``model_type`` of its ``config.json``.

    Raises
    ------
    ModelError
        It is of no kind that can be encoded with.
    """
    model_type = files.config.get("model_type")
    for architecture in ARCHITECTURES:
        if model_type in architecture.model_types:
            return architecture.sequence_type
    allowed = ", ".join(f"{' or '.join(known.model_types)} ({known.title})" for known in ARCHITECTURES)
    raise ModelError(f"{files.id}: model_type is {shown(model_type)} in config.json; allowed: {allowed}")


def way_of(config: Config, device: torch.device, dtype: torch.dtype) -> Choice:
    """How an encoder of a configuration computes on a device; see :func:`nucpro.models.kernels.choose_way`."""
    return choose_way(_entry_of(config).fused, config, device, dtype)


def use_kernels(model: PackedEncoder) -> Choice:
    """Give an encoder its forward by kernels if they can run, and log how it computes.

    Parameters
    ----------
    model : PackedEncoder
        With its weights on their device.

    Returns
    -------
    Choice
        What it computes by.
    """
    entry, choice = _entry_of(model.config), way_of(model.config, model.device, model.dtype)
    logger.info("%s on %s runs %s", entry.title, model.device, choice)
    if entry.fused is not None and choice.way is not Way.PLAIN:
        # Triton, which these import, comes with CUDA builds of torch only.
        fused = importlib.import_module(entry.fused.module)
        pool = importlib.import_module("nucpro.models.kernels.pool")
        model.run_by(fused.fused_forward(model, choice.way), pool.pool_states)
    return choice


def _entry_of(config: Config) -> Architecture:
    return next(known for known in ARCHITECTURES if isinstance(config, known.config))
