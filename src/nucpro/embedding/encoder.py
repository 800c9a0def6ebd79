"""From a model spec to vectors on disk: loading the model, and the unit of work, one FASTA file.

The same code serves all models: differences between models are in their modules, which
:mod:`nucpro.models.architectures` lists; protein and DNA differ in width, alphabet and length limit.
:mod:`nucpro.embedding.identification` finds and describes the model; loading comes after pre-flight.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nucpro.embedding.batches import Embedder, FloatMatrix, Vectors, prepare
from nucpro.embedding.device import PRECISIONS, choose_device, described_device, use_processors
from nucpro.embedding.identification import (
    Identified,
    WeightsIdentity,
    describe_model,
    identify,
    recipe_for,
)
from nucpro.errors import ExtractionError, FastaError, ModelError, UsageError, human_size
from nucpro.formats import write_vectors
from nucpro.formats.fasta import Records, read, require_usable
from nucpro.formats.sequences import ALPHABETS, LIMITS, SequenceType
from nucpro.machine import free_memory
from nucpro.models.architectures import architecture_of, use_kernels
from nucpro.models.config import PooledSpan, Readout
from nucpro.models.esm2 import Esm2
from nucpro.models.tensors import pool_states
from nucpro.models.tokens import ResidueTokenizer, Tokenizer
from nucpro.models.weights import ModelFiles
from nucpro.options import Options, precision_problem
from nucpro.progress import timed
from nucpro.state.history import Totals
from nucpro.state.recipe import Recipe

__all__ = ["FastaEncoder", "Identified", "identify", "identity_of", "load", "of_huggingface"]

logger = logging.getLogger(__name__)

_ALIKE = 1e-5
"""Largest relative difference of vectors (to their largest value) that rounding alone explains."""


@dataclass
class TokenCounts:
    """Token counts of an encoder and of all encoders made from it by ``limited``.

    Parameters
    ----------
    tokens, unknown : int
        Computed tokens, special ones included, and those unknown to the model.
    repeated : int
        Sequences that got the vector of an equal one.
    """

    tokens: int = 0
    unknown: int = 0
    repeated: int = 0


@dataclass
class _Writes:
    """Files that threads are writing now, and whether they may begin others."""

    count: int = 0
    has_stopped: bool = False
    lock: threading.Condition = field(default_factory=threading.Condition)


class FastaEncoder:
    """A loaded model with tokenizer and recipe, to turn a FASTA file into a file of vectors.

    Parameters
    ----------
    embedder : Embedder
        The model on its device.
    tokenizer : Tokenizer
        Residues or bases to token ids.
    recipe : Recipe
        What goes into the ``meta`` of files; its kind is the sequence type that the model reads.
    repeats_once : bool
        Compute equal sequences of a file once. Only for a way to compute that gives each sequence the same bytes
        whatever shares its batch.
    """

    def __init__(
        self, embedder: Embedder, tokenizer: Tokenizer, recipe: Recipe, *, repeats_once: bool = False
    ) -> None:
        self.embedder = embedder
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.sequence_type = SequenceType(recipe.kind)
        self.counts = TokenCounts()
        self._took: dict[Path, float] = {}
        self._limit = LIMITS[self.sequence_type]
        self._tokens_per_batch = embedder.tokens_per_batch
        self._repeats_once = repeats_once
        # Several files are under way at a time. Each step takes one of them, so that they reach the device in the
        # order in which they began: the first is done as early as it can be.
        self._read_lock, self._prepare_lock, self._device_lock = (threading.Lock() for _ in range(3))
        self._writes = _Writes()

    def __repr__(self) -> str:
        made_by, encoder = self.recipe.made_by, self.embedder.encoder
        return (
            f"<FastaEncoder {made_by['id']}: {self.sequence_type} sequences to {self.recipe.width} columns, "
            f"{made_by['precision']} on {encoder.device}>"
        )

    @property
    def totals(self) -> Totals:
        """Its counts so far, including encoders made from it."""
        counts = self.counts
        return Totals(self.embedder.splits, counts.tokens, counts.unknown, counts.repeated)

    def limited(self, limit: int, tokens_per_batch: int | None) -> FastaEncoder:
        """Encoder with the same model and another length limit or token budget.

        Parameters
        ----------
        limit : int
            Maximum length in residues or bases.
        tokens_per_batch : int or None
            Tokens per batch; None for the default of the device.

        Returns
        -------
        FastaEncoder
            An encoder that shares the weights.
        """
        other = copy(self)
        other._limit = limit
        other._tokens_per_batch = tokens_per_batch or self._tokens_per_batch
        other.recipe = self.recipe.cut_at(limit)
        return other

    def embed(self, records: Records) -> Vectors:
        """Vectors of records, in their order; safe to call from several threads.

        Parameters
        ----------
        records : Records
            Proteins or nucleotides, as the model requires.

        Returns
        -------
        Vectors
            Float32, shape ``[N, width]``.

        Raises
        ------
        FastaError
            Records that cannot be used.
        ExtractionError
            A value that is not finite, or a record that does not fit into memory.
        """
        self.require_usable(records)
        try:
            return self._vectors(records)
        except (FastaError, ExtractionError) as error:
            raise type(error)(f"{records.path}: {error}") from error

    def require_usable(self, records: Records) -> None:
        """Raise if records are empty, have duplicate ids, or hold what the model cannot read.

        Parameters
        ----------
        records : Records
            Records to check.

        Raises
        ------
        FastaError
            It names the records.
        """
        require_usable(records, ALPHABETS[self.sequence_type])

    def _vectors(self, records: Records) -> Vectors:
        readout = self.embedder.readout
        is_long = np.array([len(sequence) > self._limit for sequence in records.sequences])
        if not (readout.windows and is_long.any()):
            return self._computed(records)
        if readout.per_residue:
            return self._of_windows(records)
        began = time.perf_counter()
        matrix = np.empty((len(records), readout.parts * self.embedder.encoder.width), np.float32)
        if not is_long.all():
            matrix[~is_long] = self._computed(_some_of(records, ~is_long)).matrix
        states = self.reading(Readout(readout.layers, per_residue="float32"))
        found = states._of_windows(_some_of(records, is_long))
        matrix[is_long] = _pooled(found, readout)
        return Vectors(tuple(records.ids), matrix, 0, began)

    def _of_windows(self, records: Records) -> Vectors:
        """Vectors of residues, each the mean of those of the windows that it is in."""
        pieces = Records(records.path, [], [])
        for name, sequence in zip(records.ids, records.sequences, strict=True):
            for start in _window_starts(len(sequence), self._limit):
                pieces.ids.append(name)
                pieces.sequences.append(sequence[start : start + self._limit])
        found = self._computed(pieces)
        blocks = iter(found.by_record())
        residues = np.array([len(sequence) for sequence in records.sequences])
        rows = []
        for length in residues:
            starts = _window_starts(length, self._limit)
            windows = [next(blocks) for _ in starts]
            rows.append(_averaged(windows, starts, length) if len(starts) > 1 else windows[0])
        return Vectors(tuple(records.ids), np.concatenate(rows), 0, found.began, residues)

    def _computed(self, records: Records) -> Vectors:
        if not self._repeats_once or self.embedder.readout.per_residue:
            return self._computed_all(records)
        first_ids: dict[bytes, str] = {}
        for name, sequence in zip(records.ids, records.sequences, strict=True):
            first_ids.setdefault(sequence, name)
        if len(first_ids) == len(records):
            return self._computed_all(records)
        once = self._computed_all(Records(records.path, list(first_ids.values()), list(first_ids)))
        row_of = {sequence: row for row, sequence in enumerate(first_ids)}
        rows = [row_of[sequence] for sequence in records.sequences]
        with self._device_lock:
            self.counts.repeated += len(records) - len(first_ids)
        truncated = sum(len(sequence) > self._limit for sequence in records.sequences)
        return Vectors(tuple(records.ids), once.matrix[rows], truncated, once.began)

    def _computed_all(self, records: Records) -> Vectors:
        with self._prepare_lock:
            prepared = prepare(
                records.ids,
                records.sequences,
                self.tokenizer,
                max_residues=self._limit,
                tokens_per_batch=self._tokens_per_batch,
            )
        # One file at a time is put on the device; waiting for its result needs no lock.
        with self._device_lock:
            pending = self.embedder.submit(prepared)
            self.counts.tokens += len(prepared.token_ids)
            self.counts.unknown += prepared.unknown
        matrix = pending.result()
        return Vectors(prepared.names, matrix, prepared.truncated, pending.began, pending.residues)

    def extract(self, fasta: str | Path, output: str | Path) -> Vectors:
        """Make the file of vectors of a FASTA file.

        Parameters
        ----------
        fasta : str or Path
            FASTA file to read.
        output : str or Path
            File of vectors to write.

        Returns
        -------
        Vectors
            The vectors that were written.

        Raises
        ------
        FastaError, ExtractionError, StoreError
            The file cannot be read, computed or written, or its vectors are degenerate; nothing is left
            behind.
        """
        with self._read_lock:
            records = read(fasta)
        return self.store(records, Path(output))

    def store(self, records: Records, output: Path) -> Vectors:
        """Make the file of vectors of records that were read; see :meth:`extract`.

        Parameters
        ----------
        records : Records
            Records to embed.
        output : Path
            File of vectors to write.

        Returns
        -------
        Vectors
            The vectors that were written.
        """
        vectors = self.embed_checked(records)
        meta = self.recipe.meta(records.digest(), len(records))
        with self.writing():
            write_vectors(output, records.ids, vectors.matrix, meta, self.sequence_type)
        self._took[output] = time.perf_counter() - vectors.began
        return vectors

    def embed_checked(self, records: Records) -> Vectors:
        """Vectors of records that are to be stored: as :meth:`embed`, but degenerate vectors are refused.

        Parameters
        ----------
        records : Records
            Records to embed.

        Returns
        -------
        Vectors
            Float32, shape ``[N, width]``.

        Raises
        ------
        ModelError
            The encoder computes in another precision than its files would state.
        ExtractionError
            A vector is all zero, or records of different tokens have the same vector.
        """
        self._require_precision()
        vectors = self.embed(records)
        self._require_meaning(vectors.matrix, records)
        return vectors

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write a file within a ``with`` block, unless no more are to be written.

        Yields
        ------
        None
            While files may be written.

        Raises
        ------
        RuntimeError
            After :meth:`stop_writing`; nobody sees it, since the run has ended.
        """
        with self._writes.lock:
            if self._writes.has_stopped:
                raise RuntimeError("the run has ended")
            self._writes.count += 1
        try:
            yield
        finally:
            with self._writes.lock:
                self._writes.count -= 1
                self._writes.lock.notify_all()

    def stop_writing(self) -> None:
        """Wait for files that are being written, and start no more, including those of encoders made from this one."""
        with self._writes.lock:
            self._writes.has_stopped = True
            self._writes.lock.wait_for(lambda: not self._writes.count)

    def took(self, output: Path) -> float:
        """Seconds that a file just made by ``extract`` took, from its first batch on the device to the disk.

        Reported once, by this encoder or one made from it by ``limited``; 0 for a file that was not made.

        Parameters
        ----------
        output : Path
            The file.

        Returns
        -------
        float
            Seconds.
        """
        return self._took.pop(output, 0.0)

    def _require_precision(self) -> None:
        """Refuse to write files whose ``meta`` would name another precision than the one that is computed in."""
        stated, dtype = self.recipe.made_by["precision"], self.embedder.encoder.dtype
        if PRECISIONS[stated] != dtype:
            raise ModelError(
                f"the model {self.recipe.made_by['id']} is loaded in {str(dtype).removeprefix('torch.')}, but its "
                f"files would record {stated}; load it in {stated}, or ask for its own precision with --precision"
            )

    def reading(self, readout: Readout) -> FastaEncoder:
        """Make an encoder of the same model with other layers or poolings; its recipe stays.

        Parameters
        ----------
        readout : Readout
            Layers and poolings.

        Returns
        -------
        FastaEncoder
            An encoder that shares the weights.
        """
        other = copy(self)
        other.embedder = self.embedder.reading(readout)
        return other

    def _require_meaning(self, matrix: FloatMatrix, records: Records) -> None:
        """Refuse vectors that do not distinguish records, as a broken model or device gives them.

        Raises
        ------
        ExtractionError
            A vector is all zero, or records of different tokens have the same vector.
        """
        if self.embedder.readout.per_residue and not matrix.any():
            raise ExtractionError(
                f"{records.path}: the vectors of all residues, from {records.ids[0]!r} on, are zero; check model and "
                "device, then run again"
            )
        if not self.embedder.readout.tells_apart:
            return
        zero = np.flatnonzero(~matrix.any(axis=1))
        if zero.size:
            raise ExtractionError(
                f"{records.path}: the vector of record {records.ids[zero[0]]!r} is all zero ({zero.size} of "
                f"{len(records)} are); check model and device, then run again"
            )
        # Means of one constant over sequences of different lengths differ in their last bits.
        alike = np.abs(matrix - matrix[0]).max() <= _ALIKE * np.abs(matrix[0]).max()
        if alike and self._has_different_tokens(records):
            raise ExtractionError(
                f"{records.path}: all {len(records)} records, from {records.ids[0]!r} on, have the same vector of "
                f"width {matrix.shape[1]}; check model and device, then run again"
            )

    def _has_different_tokens(self, records: Records) -> bool:
        """Whether the tokens of the records differ: ambiguity codes, for example, may share a token."""
        if len({sequence[: self._limit] for sequence in records.sequences}) == 1:
            return False
        encoded = self.tokenizer.encode(records.ids, records.sequences, self._limit)
        tokens = np.split(encoded.tokens, np.cumsum(encoded.lengths)[:-1])
        return len({row.tobytes() for row in tokens}) > 1


def _window_starts(length: int, limit: int) -> list[int]:
    """Windows of a record: they overlap by half, and the last one may be shorter."""
    half = (limit + 1) // 2
    return list(range(0, max(length - limit, 0) + half, half)) if length > limit else [0]


def _averaged(windows: list[FloatMatrix], starts: list[int], length: int) -> FloatMatrix:
    """Vectors of the residues of a record: means over its windows, computed in float32."""
    sums = np.zeros((length, windows[0].shape[1]), np.float32)
    counts = np.zeros((length, 1), np.float32)
    for start, window in zip(starts, windows, strict=True):
        sums[start : start + len(window)] += window
        counts[start : start + len(window)] += 1
    return (sums / counts).astype(windows[0].dtype)


def _pooled(found: Vectors, readout: Readout) -> FloatMatrix:
    """Pool the states of residues, layer by layer."""
    assert found.residues is not None
    lengths, span = found.residues.tolist(), PooledSpan("residues alone", 0, 0)
    layers = torch.from_numpy(found.matrix).chunk(len(readout.layers), dim=1)
    parts = [pool_states(layer.contiguous(), lengths, span, readout.poolings) for layer in layers]
    matrix: FloatMatrix = torch.cat(parts, dim=1).numpy()
    return matrix


def _some_of(records: Records, rows: npt.NDArray[np.bool_]) -> Records:
    places = np.flatnonzero(rows)
    ids = [records.ids[place] for place in places]
    return Records(records.path, ids, [records.sequences[place] for place in places])


def load(identified: Identified, options: Options) -> FastaEncoder:
    """Load a model that was identified.

    Parameters
    ----------
    identified : Identified
        The model, from :func:`identify`.
    options : Options
        Device and tokens per batch.

    Returns
    -------
    FastaEncoder
        The encoder on its device.

    Raises
    ------
    ModelError
        The weights are damaged, not those that the config describes, were replaced since they were identified, or do
        not fit in the free memory.
    """
    device = choose_device(options.device)
    made_by = identified.recipe.made_by
    # The precision was decided before planning; nothing is computed unless this machine supports it.
    if problem := precision_problem(made_by["precision"], device.type):
        raise UsageError(problem)
    dtype = PRECISIONS[made_by["precision"]]
    logger.info(
        "Loading %s (%sweights %s…) on %s in %s",
        made_by["id"],
        f"revision {made_by['revision']}, " if made_by["revision"] else "",
        made_by["weights_sha256"][:12],
        device,
        str(dtype).removeprefix("torch."),
    )
    if device.type == "cpu":
        _require_memory(identified.files)
    architecture = architecture_of(identified.files, identified.sequence_type)
    config = architecture.config_of(identified.files, options.token_dropout)
    with timed(f"Loading {made_by['id']}"):
        model = architecture.load(identified.files, device=device, dtype=dtype, config=config)
    choice = use_kernels(model)
    if device.type == "cpu":
        use_processors(dtype)
    # Every file records the earlier digest; it must be that of the loaded weights.
    identified.files.require_unchanged()
    embedder = Embedder(model, options.tokens_per_batch, identified.readout)
    why = "as asked for" if options.tokens_per_batch else f"the default on {device.type}"
    logger.debug(
        "Batches of up to %d tokens, %s; %s", embedder.tokens_per_batch, why, described_device(device)
    )
    return FastaEncoder(
        embedder, identified.tokenizer, identified.recipe, repeats_once=choice.ignores_companions
    )


def _require_memory(files: ModelFiles) -> None:
    """Refuse weights that exceed the free memory: the system would kill the run without a message."""
    size, free = sum(path.stat().st_size for path in files.weights), free_memory()
    if free is not None and size > free:
        raise ModelError(
            f"model {files.id}: its weights take {human_size(size)}, but only {human_size(free)} of memory are free; "
            "free memory, raise the limit (the batch system's, the container's), or compute on a GPU"
        )


def of_huggingface(model: Any, tokenizer: Any) -> FastaEncoder:
    """Use an ESM-2 model object of transformers, on its device and in its precision.

    Parameters
    ----------
    model : torch.nn.Module
        What ``AutoModel.from_pretrained(...)`` returns.
    tokenizer
        Its tokenizer, of which only the vocabulary is used; None for that of all published ESM-2 models.

    Returns
    -------
    FastaEncoder
        The encoder on the device of the model object.

    Raises
    ------
    ModelError
        The object is not an ESM-2, or the vocabulary is not one of proteins.
    """
    encoder = Esm2.from_huggingface(model)
    choice = use_kernels(encoder)
    tokens = ResidueTokenizer()
    if tokenizer is not None:
        vocabulary = tokenizer.get_vocab()
        tokens = ResidueTokenizer(sorted(vocabulary, key=vocabulary.__getitem__), type(tokenizer).__name__)
    names = {dtype: name for name, dtype in PRECISIONS.items()}
    made_by = describe_model(identity_of(model), encoder.config, tokens)
    recipe = recipe_for(SequenceType.PROTEIN, made_by, names[encoder.dtype], encoder.config.pooled_span)
    return FastaEncoder(Embedder(encoder), tokens, recipe, repeats_once=choice.ignores_companions)


def identity_of(model: nn.Module) -> WeightsIdentity:
    """Identify a Hugging Face model object by its current tensors.

    Parameters
    ----------
    model : torch.nn.Module
        The object; its ``.config`` may contain its origin.

    Returns
    -------
    WeightsIdentity
        Its identity. The digest covers name, element type, shape and bytes of each tensor, so it differs
        from that of the files that the object was loaded from.
    """
    config = getattr(model, "config", None)
    name = PurePath(getattr(config, "_name_or_path", "") or type(model).__name__)
    is_repository = len(name.parts) == 2 and not name.is_absolute()
    commit = getattr(config, "_commit_hash", None)
    return WeightsIdentity(str(name) if is_repository else name.name, commit, _tensor_digest(model))


def _tensor_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
