"""Model specs: models are found, hashed and described without loading them, and without torch.

Options and checkpoint determine the recipe of its vectors; :mod:`nucpro.embedding.encoder` loads it. A run
with nothing to compute ends here: torch takes seconds to import.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from nucpro.errors import DimensionError, ModelError, UsageError
from nucpro.folder.kinds import Kind, is_folder, known_folder
from nucpro.formats.opening import path_of
from nucpro.formats.sequences import DNA_WIDTH, LIMITS, PROTEIN_WIDTH, SequenceType
from nucpro.models.architectures import architecture_of
from nucpro.models.config import ALL_TOKENS, MEAN_OF_LAST, RESIDUES_ONLY, Config, PooledSpan, Readout
from nucpro.models.tokens import Tokenizer
from nucpro.models.weights import ModelFiles, locate
from nucpro.options import AUTO, DEFAULT_MODELS, NAMED_PRECISIONS, Options, lasting_name
from nucpro.progress import timed
from nucpro.state.checkpoint import Checkpoint
from nucpro.state.recipe import Recipe, described

__all__ = [
    "Identified",
    "WeightsIdentity",
    "describe_model",
    "describe_options",
    "identify",
    "precision_of",
    "recipe_for",
    "require_residues",
]

logger = logging.getLogger(__name__)

_SPANS = {span.name: span for span in (RESIDUES_ONLY, ALL_TOKENS)}
_WIDTHS = {SequenceType.PROTEIN: PROTEIN_WIDTH, SequenceType.DNA: DNA_WIDTH}


@dataclass(frozen=True)
class Identified:
    """A model that was found, but not loaded.

    Parameters
    ----------
    files : ModelFiles
        The checkpoint on disk.
    tokenizer : Tokenizer
        Its tokens.
    recipe : Recipe
        Recipe of its vectors under the options of the run.
    readout : Readout
        Layers and pooling of its vectors.
    """

    files: ModelFiles
    tokenizer: Tokenizer
    recipe: Recipe
    readout: Readout = MEAN_OF_LAST

    def reading(self, readout: Readout) -> Identified:
        """The same model with another readout.

        Raises
        ------
        UsageError
            The model has no such layer, or its tokens are none of residues.
        """
        require_residues(readout, self.sequence_type)
        made_by = self.recipe.made_by
        count, span = int(made_by["layers"]), _SPANS[made_by["pooling"]]
        readout = readout.of(count)
        said = {**made_by, **readout.said(count, span)}
        recipe = replace(self.recipe, made_by=said, width=readout.parts * self.recipe.width)
        return replace(self, recipe=recipe, readout=readout)

    @property
    def sequence_type(self) -> SequenceType:
        """Sequence type that the model reads."""
        return SequenceType(self.recipe.kind)


def identify(
    options: Options,
    sequence_type: SequenceType | str,
    *,
    records: Checkpoint | None = None,
    offline: bool = False,
    files: ModelFiles | None = None,
    adapter: str | None = None,
) -> Identified:
    """Find the model for a sequence type, and describe it without loading it.

    Its weights are read once, or not at all if `records` has their digest.

    Parameters
    ----------
    options : Options
        Model, revision, precision and token dropout.
    sequence_type : SequenceType
        Sequence type that the model reads.
    records : Checkpoint, optional
        Of the data folder: the precision of its files is kept if none is requested.
    offline : bool
        Use the cache of downloads only.
    files : ModelFiles, optional
        The model, if it was located already.
    adapter : str, optional
        Folder of a LoRA adapter, merged into the model of the options; without one, into the base model that the
        adapter names.

    Returns
    -------
    Identified
        The model's files, config and tokenizer, and the recipe of its vectors.

    Raises
    ------
    ModelError
        The model cannot be found, or is not for this sequence type.
    DimensionError
        The model has the wrong width.
    """
    sequence_type = SequenceType(sequence_type)
    if adapter is not None and not options.asks_for_model(sequence_type):
        options, adapter = options.with_model(sequence_type, adapter, None), None
    name, revision = options.model_of(sequence_type)
    recorded = None if records is None else records.recipe_of(sequence_type)
    _require_recorded(name, sequence_type, recorded)
    _require_encoder(name)
    files = files or locate(name, revision=revision, adapter=adapter, offline=offline)
    if records is not None:
        files = replace(files, noted=records.digests(files.weights))
    architecture = architecture_of(files, sequence_type)
    config = architecture.config_of(files, options.token_dropout)
    # Other protein models may have other widths; the DNA columns of merged files are always 768.
    if config.width != _WIDTHS[sequence_type] and (
        sequence_type is SequenceType.DNA or name == DEFAULT_MODELS[sequence_type]
    ):
        raise DimensionError(_WIDTHS[sequence_type], config.width, "hidden size in config.json", name)
    tokenizer = architecture.load_tokenizer(files)
    with timed(f"Digest of {files.weights[0].name}"):
        made_by = describe_model(WeightsIdentity.of_files(files), config, tokenizer)
    precision, why = _precision_and_why(options, recorded)
    recipe = recipe_for(sequence_type, made_by, precision, config.pooled_span)
    logger.debug(
        "Found the %s model %s (%s) in %s: %d columns; precision %s, %s",
        sequence_type.word,
        made_by["id"],
        architecture.title,
        files.weights[0].parent,
        config.width,
        precision,
        why,
    )
    return Identified(files, tokenizer, replace(recipe, source=_source(name, files, options)))


def _require_encoder(model: str) -> None:
    """Refuse folders that are known to be of something else."""
    folder = path_of(model)
    known = known_folder(folder) if is_folder(folder) else None
    if known is not None and known.kind is not Kind.ENCODER:
        raise ModelError(
            f"{model}: {known}, not the folder of an encoder; give a folder with config.json and weights, or the id "
            "of a repository on the Hugging Face hub"
        )


def _require_recorded(model: str, sequence_type: SequenceType, recorded: Recipe | None) -> None:
    """Refuse a recorded model folder that no longer exists, with a description of the model."""
    folder = Path(model)
    if (
        recorded is not None
        and recorded.model == (model, None)
        and folder.is_absolute()
        and not folder.exists()
    ):
        raise ModelError(
            f"{model}: the {sequence_type.word} model of this data folder no longer exists "
            f"({described(recorded.made_by)}); give its present folder with --{sequence_type}-model"
        )


def _source(name: str, files: ModelFiles, options: Options) -> dict[str, Any]:
    """Where a model was found, and its token dropout option: used by later runs on a folder."""
    model = lasting_name(name)
    # A folder has no revision to request, even if its commit is known.
    revision = files.revision if model == name and not Path(model).exists() else None
    return {"model": model, "revision": revision, "token_dropout": options.token_dropout}


def require_residues(readout: Readout, sequence_type: SequenceType) -> None:
    """Refuse what needs a token per residue where the model has none.

    Raises
    ------
    UsageError
        It names the option.
    """
    option = "--per-residue" if readout.per_residue else "--long window" if readout.windows else None
    if option and sequence_type is SequenceType.DNA:
        raise UsageError(f"{option} is for proteins: a token of DNABERT-S covers several bases")


def recipe_for(
    sequence_type: SequenceType, model: dict[str, Any], precision: str, span: PooledSpan
) -> Recipe:
    """Recipe of vectors that a model, described by plain values, makes in a precision."""
    choices = describe_options(precision, span, LIMITS[sequence_type])
    return Recipe(sequence_type, {**model, **choices}, model["width"])


def precision_of(options: Options, recorded: Recipe | None = None) -> str:
    """Precision to compute in: the requested one, else that of the folder's files, else the device's default.

    Decided only here, before planning.

    Parameters
    ----------
    options : Options
        Precision and device.
    recorded : Recipe, optional
        Recipe of the folder's files, if a run is recorded.

    Returns
    -------
    str
        ``fp16``, ``bf16`` or ``fp32``: of weights and activations on a GPU; on a CPU of matrix products, and
        everything else is float32. A CPU computes in bf16 only on request (it keeps too few nearest
        neighbours: ``benchmarks/cpu_bf16.py``).
    """
    return _precision_and_why(options, recorded)[0]


def _precision_and_why(options: Options, recorded: Recipe | None) -> tuple[str, str]:
    if options.precision != AUTO:
        return options.precision, "as asked for"
    before = None if recorded is None else recorded.made_by.get("precision")
    if before in NAMED_PRECISIONS:
        return str(before), "as recorded in the folder"
    return "fp32" if options.device == "cpu" else "fp16", f"the default on {options.device}"


@dataclass(frozen=True)
class WeightsIdentity:
    """Identity of loaded weights.

    Parameters
    ----------
    id : str
        Repository on the hub, or the name of a folder, never its path.
    revision : str or None
        Commit hash if known.
    weights_sha256 : str
        Digest of the weights: of the files (:meth:`ModelFiles.digest`), or of the tensors of a model object
        (:func:`nucpro.embedding.encoder.identity_of`).
    adapter : dict
        ``adapter``, the name of the folder of a LoRA adapter, and ``adapter_sha256``, the digest of its weights and
        configuration; empty where there is none.
    """

    id: str
    revision: str | None
    weights_sha256: str
    adapter: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_files(cls, files: ModelFiles) -> WeightsIdentity:
        """Identify a checkpoint on disk; reads all of its bytes once.

        Parameters
        ----------
        files : ModelFiles
            The checkpoint.

        Returns
        -------
        WeightsIdentity
            Its identity.
        """
        return cls(files.id, files.revision, files.digest(), files.adapter_identity())


def describe_model(
    weights: WeightsIdentity, config: Config, tokenizer: Tokenizer
) -> dict[str, str | int | float | None]:
    """Plain values that identify the model of the vectors.

    Parameters
    ----------
    weights : WeightsIdentity
        Its weights.
    config : Config
        Its shape, and the options that it carries (token dropout).
    tokenizer : Tokenizer
        Its tokenizer.

    Returns
    -------
    dict
        ``id``, ``revision``, ``weights_sha256``, those of an adapter, the architecture's name
        and numbers, a digest of the vocabulary.
    """
    numbers: dict[str, Any] = asdict(cast(Any, config))
    return {
        "id": weights.id,
        "revision": weights.revision,
        "weights_sha256": weights.weights_sha256,
        **weights.adapter,
        "architecture": config.architecture,
        **numbers,
        "vocabulary_sha256": tokenizer.digest(),
    }


def describe_options(precision: str, span: PooledSpan, limit: int) -> dict[str, str | int]:
    """Plain values of the options that change vectors.

    Parameters
    ----------
    precision : str
        ``fp32``, ``fp16`` or ``bf16``.
    span : PooledSpan
        Tokens that are averaged into a vector.
    limit : int
        Length at which sequences are truncated, in residues or bases.

    Returns
    -------
    dict
        ``precision``, ``pooling`` and ``longest_input``.
    """
    return {"precision": precision, "pooling": span.name, "longest_input": limit}
