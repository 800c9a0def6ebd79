"""From options to vectors on disk: which model, what identifies it, and the unit of work, one FASTA file.

Identification reads the checkpoint's config and hashes its weights; loading comes after pre-flight.
"""

from __future__ import annotations

import logging
import threading
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nucpro.embedding import Embedder, Vectors, prepare
from nucpro.errors import DimensionError, UsageError
from nucpro.fasta import RESIDUES, Records, read, require_usable
from nucpro.layout import MAX_RESIDUES, PROTEIN_WIDTH
from nucpro.models.config import Esm2Config
from nucpro.models.device import PRECISIONS, choose_device, choose_precision
from nucpro.models.esm2 import Esm2, load_esm2
from nucpro.models.identity import WeightsIdentity, describe_model, describe_options
from nucpro.models.tokens import ResidueTokenizer
from nucpro.models.weights import ModelFiles, locate
from nucpro.options import DEFAULT_MODEL, Options
from nucpro.recipe import Recipe
from nucpro.store import write_protein

__all__ = ["Identified", "ProteinEncoder", "device_problems", "identify", "load", "of_huggingface"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identified:
    """A model that was found, but not loaded.

    Parameters
    ----------
    files : ModelFiles
        The checkpoint on disk.
    tokenizer : ResidueTokenizer
        Its tokens.
    recipe : Recipe
        What identifies vectors that are made with it under the options of the run.
    """

    files: ModelFiles
    tokenizer: ResidueTokenizer
    recipe: Recipe


class ProteinEncoder:
    """A loaded protein model with everything that turns a FASTA file into a protein file.

    Parameters
    ----------
    embedder : Embedder
        The model on its device.
    tokenizer : ResidueTokenizer
        Residues to token ids.
    recipe : Recipe
        What goes into the ``meta`` of files.
    """

    def __init__(self, embedder: Embedder, tokenizer: ResidueTokenizer, recipe: Recipe) -> None:
        self.embedder = embedder
        self.tokenizer = tokenizer
        self.recipe = recipe
        self._max_residues = MAX_RESIDUES
        self._tokens_per_batch = embedder.tokens_per_batch
        self._device_lock = threading.Lock()

    def limited(self, max_residues: int, tokens_per_batch: int | None) -> ProteinEncoder:
        """Make an encoder with the same model that cuts elsewhere, or packs other batches."""
        other = copy(self)
        other._max_residues = max_residues
        other._tokens_per_batch = tokens_per_batch or self._tokens_per_batch
        made_by = {**self.recipe.made_by, "max_residues": max_residues}
        other.recipe = replace(self.recipe, made_by=made_by)
        return other

    def embed(self, records: Records) -> Vectors:
        """Vectors of records, in their order; safe to call from several threads.

        Raises
        ------
        FastaError
            Records that cannot be used.
        ExtractionError
            A value that is not finite, or a record that does not fit into memory.
        """
        require_usable(records, RESIDUES)
        prepared = prepare(
            records.ids,
            records.sequences,
            self.tokenizer,
            max_residues=self._max_residues,
            tokens_per_batch=self._tokens_per_batch,
        )
        # One file at a time is put on the device; waiting for its result needs no lock.
        with self._device_lock:
            pending = self.embedder.submit(prepared)
        return Vectors(prepared.names, pending.result(), prepared.truncated)

    def extract(self, fasta: Path, output: Path) -> Vectors:
        """Make the protein file of a FASTA file.

        Raises
        ------
        FastaError, ExtractionError, StoreError
            The file cannot be read, computed or written; nothing is left behind.
        """
        records = read(fasta)
        vectors = self.embed(records)
        write_protein(output, records.ids, vectors.matrix, self.recipe.meta(records.digest(), len(records)))
        return vectors


def identify(options: Options, *, offline: bool = False) -> Identified:
    """Find the protein model, and describe it without loading it.

    Parameters
    ----------
    options : Options
        Model, revision, precision and token dropout.
    offline : bool
        Use what is on this machine only.

    Raises
    ------
    ModelError
        The model cannot be found, or its config is not that of an ESM-2 model.
    DimensionError
        The default model has another width than it must have.
    """
    files = locate(options.protein_model, revision=options.revision, offline=offline)
    config = Esm2Config.from_dict(files.config, options.token_dropout)
    if options.protein_model == DEFAULT_MODEL and config.width != PROTEIN_WIDTH:
        raise DimensionError(f"{DEFAULT_MODEL}: hidden size in config.json", PROTEIN_WIDTH, config.width)
    tokenizer = ResidueTokenizer.from_file(files.vocabulary) if files.vocabulary else ResidueTokenizer()
    weights = WeightsIdentity.of_files(files)
    return Identified(files, tokenizer, _recipe(weights, config, tokenizer, options.precision_name))


def _recipe(
    weights: WeightsIdentity, config: Esm2Config, tokenizer: ResidueTokenizer, precision: str
) -> Recipe:
    made_by = {
        **describe_model(weights, config, tokenizer),
        **describe_options(config, precision, MAX_RESIDUES),
    }
    return Recipe("protein", made_by, config.width)


def device_problems(device: str) -> list[str]:
    """Why a device cannot be used, as pre-flight problems."""
    try:
        choose_device(device)
    except UsageError as error:
        return [str(error)]
    return []


def load(identified: Identified, options: Options) -> ProteinEncoder:
    """Load a model that was identified.

    Raises
    ------
    ModelError
        The weights are damaged, or not those that the config describes.
    """
    device = choose_device(options.device)
    made_by = identified.recipe.made_by
    logger.info(
        "Loading %s (revision %s, weights %s…) on %s in %s, token dropout %s",
        made_by["id"],
        made_by["revision"] or "unknown",
        made_by["weights_sha256"][:12],
        device,
        made_by["precision"],
        "on" if made_by["token_dropout"] else "off",
    )
    model = load_esm2(
        identified.files,
        device=device,
        dtype=choose_precision(options.precision, device),
        token_dropout=options.token_dropout,
    )
    return ProteinEncoder(Embedder(model, options.tokens_per_batch), identified.tokenizer, identified.recipe)


def of_huggingface(model: Any, tokenizer: Any) -> ProteinEncoder:
    """Take over an ESM-2 model object of transformers, on its device and in its precision.

    Parameters
    ----------
    model : torch.nn.Module
        What ``AutoModel.from_pretrained(...)`` returns.
    tokenizer
        Its tokenizer, of which only the vocabulary is used; None for that of all published ESM-2 models.

    Raises
    ------
    ModelError
        The object is not an ESM-2, or the vocabulary is not one of proteins.
    """
    encoder = Esm2.from_huggingface(model)
    tokens = ResidueTokenizer()
    if tokenizer is not None:
        vocabulary = tokenizer.get_vocab()
        tokens = ResidueTokenizer(sorted(vocabulary, key=vocabulary.__getitem__), type(tokenizer).__name__)
    names = {dtype: name for name, dtype in PRECISIONS.items()}
    recipe = _recipe(WeightsIdentity.of_object(model), encoder.config, tokens, names[encoder.dtype])
    return ProteinEncoder(Embedder(encoder), tokens, recipe)
