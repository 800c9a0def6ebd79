"""Vectors for a list of sequences: token-budget batches, asynchronous execution, pooling, out-of-memory retries.

:func:`prepare` tokenises and packs sequences from :mod:`nucpro.formats.fasta`, in a worker if needed;
:class:`Embedder` queues the batches on the device without waiting for them; vectors are returned in input
order and written by :mod:`nucpro.formats`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from nucpro.errors import ExtractionError, UsageError, counted
from nucpro.models.config import MEAN_OF_LAST, PooledSpan, Readout
from nucpro.models.tensors import to_device
from nucpro.models.tokens import EncodedSequences, Tokenizer

if TYPE_CHECKING:
    from nucpro.models.encoder import PackedEncoder

__all__ = [
    "MAX_RESIDUES",
    "Embedder",
    "Encoder",
    "FloatMatrix",
    "Pending",
    "Prepared",
    "Vectors",
    "default_tokens_per_batch",
    "embed",
    "plan_batches",
    "prepare",
]

logger = logging.getLogger(__name__)

MAX_RESIDUES = 1024
"""Length in residues at which a sequence is truncated."""

FloatMatrix = npt.NDArray[np.float32]
"""Vectors, one row per record."""
IntVector = npt.NDArray[np.int64]

_GIB = 2**30
_BATCHES_AHEAD = 2
"""Batches queued on a GPU beyond the one it computes: the GPU never idles, and the driver's own queue never fills.
A full queue would block every other thread that calls the driver, for example to fetch finished vectors."""


class Encoder(Protocol):
    """Computes hidden states from packed token ids."""

    @property
    def width(self) -> int:
        """Columns of a hidden state."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the encoder."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the encoder."""
        ...

    def pool(self, hidden: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        """Vectors of sequences, float32 ``[N, width]``, from hidden states ``[T, width]``."""
        ...

    def __call__(self, tokens: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        """Hidden states ``[T, width]`` of ids ``[T]``."""
        ...


@dataclass(frozen=True)
class Prepared:
    """Sequences as batches ready for the device.

    Parameters
    ----------
    names : tuple of str
        Record ids in input order.
    token_ids : torch.Tensor
        int32 ids ``[T]``, packed in plan order: longest sequence first, equal lengths in input order.
    lengths : numpy.ndarray
        int64 ``[N]``: tokens of each sequence, in plan order.
    order : numpy.ndarray
        int64 ``[N]``: input row of each sequence, in plan order.
    bounds : tuple of int
        Batch k holds the sequences ``bounds[k]`` to ``bounds[k + 1]`` (exclusive) of the plan.
    truncated : int
        Sequences that were too long and were truncated.
    unknown : int
        Tokens unknown to the model.
    """

    names: tuple[str, ...]
    token_ids: torch.Tensor
    lengths: IntVector
    order: IntVector
    bounds: tuple[int, ...]
    truncated: int
    unknown: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return len(self.token_ids)

    @property
    def batches(self) -> list[slice]:
        """Batches as slices of the plan."""
        return [slice(*pair) for pair in pairwise(self.bounds)]

    def residues(self, span: PooledSpan) -> IntVector:
        """Residues of each sequence: tokens that are in the span, int64 ``[N]`` in input order."""
        counts = np.empty_like(self.lengths)
        counts[self.order] = self.lengths - span.skip_start - span.skip_end
        return counts

    def residue_rows(self, span: PooledSpan) -> IntVector:
        """Row of each token among the residues of all sequences in input order, -1 of others; int64 ``[T]``."""
        counts = self.residues(span)
        first = (np.cumsum(counts) - counts)[self.order]
        place = np.arange(self.tokens) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        place -= span.skip_start
        is_residue = (place >= 0) & (place < np.repeat(counts[self.order], self.lengths))
        return np.where(is_residue, np.repeat(first, self.lengths) + place, -1)


@dataclass(frozen=True)
class Vectors:
    """Vectors of some records.

    Parameters
    ----------
    names : tuple of str
        Record ids in input order.
    matrix : numpy.ndarray
        float32 ``[N, width]``, one row per record; or ``[R, width]`` of the readout's element type, one row per residue
        in the order of the records.
    truncated : int
        Records that were too long and were truncated.
    began : float
        When the device started their first batch, by this process's :func:`time.perf_counter`.
    residues : numpy.ndarray, optional
        int64 ``[N]``: rows of each record, if there is one row per residue.
    """

    names: tuple[str, ...]
    matrix: npt.NDArray[Any]
    truncated: int
    began: float
    residues: IntVector | None = None

    def by_record(self) -> list[npt.NDArray[Any]]:
        """Rows of the residues of each record: views of the matrix, where there is one row per residue.

        Returns
        -------
        list of ndarray
            One array of shape ``[residues, width]`` per record.
        """
        assert self.residues is not None
        return np.split(self.matrix, np.cumsum(self.residues)[:-1])


def default_tokens_per_batch(device: torch.device) -> int:
    """Token budget of a batch, fixed for each class of devices, so that equal input gives equal bytes there.

    Parameters
    ----------
    device : torch.device
        Where the encoder computes.

    Returns
    -------
    int
        Tokens. On CUDA 65,536 keep the matrix products at their limit and need about 2.5 GiB for a model of
        650 million parameters in half precision; devices with less than 12 GiB get a quarter. On a CPU,
        batches that stay in its cache are faster: 2,048 tokens by 5 to 8% over 4,096.
    """
    if device.type != "cuda":
        return 2_048
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return 65_536 if memory >= 12 * _GIB else 16_384


def plan_batches(lengths: IntVector, budget: int) -> tuple[int, ...]:
    """Divide a sequence of lengths into as few batches as the budget allows, as evenly as possible.

    Parameters
    ----------
    lengths : numpy.ndarray
        int64 ``[N]``: tokens of each sequence.
    budget : int
        Largest sum of a batch. A longer sequence gets its own batch.

    Returns
    -------
    tuple of int
        First sequence of each batch, and N at the end; ``(0,)`` if there are no sequences.
    """
    ends = np.cumsum(lengths)
    latest = _greedy_bounds(ends, budget)
    # The same from the other end: the earliest bounds for which the rest fits into the remaining batches.
    earliest = [len(lengths) - bound for bound in _greedy_bounds(np.cumsum(lengths[::-1]), budget)][::-1]
    bounds = [0]
    for low, high in zip(earliest[1:], latest[1:], strict=True):
        done = int(ends[bounds[-1] - 1]) if bounds[-1] else 0
        share = (int(ends[-1]) - done) / (len(latest) - len(bounds))
        nearest = bounds[-1] + 1 + int(np.argmin(np.abs(ends[bounds[-1] : high] - (done + share))))
        bounds.append(min(max(nearest, low), _furthest(ends, bounds[-1], budget)))
    return tuple(bounds)


def prepare(
    names: Sequence[str],
    sequences: Sequence[bytes],
    tokenizer: Tokenizer,
    *,
    max_residues: int = MAX_RESIDUES,
    tokens_per_batch: int,
) -> Prepared:
    """Tokenise sequences and plan their batches; a pure function of its arguments.

    Parameters
    ----------
    names : sequence of str
        Record ids.
    sequences : sequence of bytes
        Residues or bases of each record.
    tokenizer : Tokenizer
        The encoder's.
    max_residues : int
        Longer sequences are truncated there and counted.
    tokens_per_batch : int
        Budget of a batch, special tokens included.

    Returns
    -------
    Prepared
        Every record once.

    Raises
    ------
    FastaError
        If a record cannot be tokenised.
    UsageError
        If a limit is below 1, or names and sequences differ in number.
    """
    if len(names) != len(sequences):
        raise UsageError(
            f"{counted(len(names), 'name')} for {counted(len(sequences), 'sequence')}; each sequence needs one name"
        )
    if max_residues < 1 or tokens_per_batch < 1:
        raise UsageError(
            f"max residues {max_residues} and tokens per batch {tokens_per_batch} must both be at least 1"
        )
    encoded = tokenizer.encode(names, sequences, max_residues)
    order = np.argsort(-encoded.lengths, kind="stable")
    lengths = encoded.lengths[order]
    return Prepared(
        names=tuple(names),
        token_ids=torch.from_numpy(_reordered(encoded, order)),
        lengths=lengths,
        order=order,
        bounds=plan_batches(lengths, tokens_per_batch),
        truncated=encoded.truncated,
        unknown=encoded.unknown,
    )


class Embedder:
    """Runs prepared sequences through an encoder.

    Parameters
    ----------
    encoder : Encoder
        An encoder with its weights on its device.
    tokens_per_batch : int, optional
        Budget for callers that prepare for this embedder; by default that of the device.
    readout : Readout, optional
        Layers and pooling of vectors; by default the mean of the last layer. Any other needs a
        :class:`nucpro.models.encoder.PackedEncoder`.
    """

    def __init__(
        self, encoder: Encoder, tokens_per_batch: int | None = None, readout: Readout | None = None
    ) -> None:
        self.encoder = encoder
        self.readout = readout or MEAN_OF_LAST
        self.tokens_per_batch = tokens_per_batch or default_tokens_per_batch(encoder.device)
        self._counts: Counter[str] = Counter()

    @property
    def splits(self) -> int:
        """Batches that did not fit into memory and were halved, by this embedder and all that share its counts."""
        return self._counts["splits"]

    def reading(self, readout: Readout) -> Embedder:
        """Make one of the same encoder with another readout; both share their counts.

        Parameters
        ----------
        readout : Readout
            Layers and poolings.

        Returns
        -------
        Embedder
            An embedder that shares the encoder and the counts.
        """
        other = copy(self)
        other.readout = readout
        return other

    @torch.inference_mode()
    def submit(self, prepared: Prepared) -> Pending:
        """Queue all batches on the device.

        Parameters
        ----------
        prepared : Prepared
            The sequences.

        Returns
        -------
        Pending
            The vectors, which CUDA may still be computing when this returns.

        Raises
        ------
        ExtractionError
            If the encoder fails on a batch, or one record alone does not fit into memory.
        """
        with _current(self.encoder.device):
            return self._submit(prepared, self.encoder.device)

    def _submit(self, prepared: Prepared, device: torch.device) -> Pending:
        tokens = to_device(prepared.token_ids, device)
        starts = np.concatenate(([0], np.cumsum(prepared.lengths)))
        rows = _Rows(prepared, self.span if self.readout.per_residue else None, device)
        width = self.readout.parts * self.encoder.width
        kind = getattr(torch, self.readout.per_residue or "float32")
        matrix = torch.empty(rows.count, width, dtype=kind, device=device)
        waiting = prepared.batches[::-1]
        queued: deque[torch.cuda.Event] = deque()
        began = _moment(device)
        while waiting:
            batch = waiting.pop()
            span = slice(starts[batch.start], starts[batch.stop])
            vectors = self._vectors(tokens[span], prepared, batch)
            if vectors is None:
                middle = (batch.start + batch.stop) // 2
                waiting += [slice(middle, batch.stop), slice(batch.start, middle)]
            else:
                rows.put(matrix, vectors, batch, span)
                _wait_for_room(queued, device)
        return Pending(prepared, matrix, began, rows.residues)

    @property
    def span(self) -> PooledSpan:
        """Tokens of a sequence that are its residues."""
        return cast("PackedEncoder", self.encoder).config.pooled_span

    def _vectors(self, tokens: torch.Tensor, prepared: Prepared, batch: slice) -> torch.Tensor | None:
        """Vectors of one batch; None if it does not fit into memory and can be halved."""
        lengths = prepared.lengths[batch].tolist()
        try:
            if self.readout.is_default:
                return self.encoder.pool(self.encoder(tokens, lengths), lengths)
            return cast("PackedEncoder", self.encoder).read(tokens, lengths, self.readout)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                message = f"the encoder failed on {_batch_in_words(prepared, batch)}: {error}"
                raise ExtractionError(message) from error
            if len(lengths) == 1:
                name = prepared.names[prepared.order[batch.start]]
                raise ExtractionError(
                    f"record {name!r} ({lengths[0]} tokens) does not fit into the memory of "
                    f"{self.encoder.device}, even alone; lower the maximum of residues, free memory there, or use "
                    f"a larger device ({error})"
                ) from error
        # Outside the handler: the error's traceback held the activations that must be freed first.
        self._count_split(prepared, batch)
        return None

    def _count_split(self, prepared: Prepared, batch: slice) -> None:
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        self._counts["splits"] += 1
        logger.warning(
            "out of memory on %s: %s is halved; lower the tokens per batch if this happens often",
            self.encoder.device,
            _batch_in_words(prepared, batch),
        )


class _Rows:
    """Where the vectors of a batch go: to the row of each sequence, or to those of its residues."""

    def __init__(self, prepared: Prepared, span: PooledSpan | None, device: torch.device) -> None:
        self.residues = None if span is None else prepared.residues(span)
        self.count = len(prepared.names) if self.residues is None else int(self.residues.sum())
        places = prepared.order if span is None else prepared.residue_rows(span)
        (self._kept,) = np.nonzero(places >= 0)
        self._places = to_device(torch.from_numpy(places), device)

    def put(self, matrix: torch.Tensor, vectors: torch.Tensor, batch: slice, span: slice) -> None:
        """Put the vectors of a batch, a row per sequence or per token, to their places."""
        places = self._places[batch if self.residues is None else span]
        if self.residues is not None:
            first, last = np.searchsorted(self._kept, (span.start, span.stop))
            kept = to_device(torch.from_numpy(self._kept[first:last] - span.start), matrix.device)
            places, vectors = places[kept], vectors[kept].to(matrix.dtype)
        matrix.index_copy_(0, places, vectors)


class Pending:
    """Vectors that a device may still be computing.

    Made by :meth:`Embedder.submit`.

    Parameters
    ----------
    prepared : Prepared
        The sequences.
    matrix : torch.Tensor
        The rows of :class:`Vectors`, on the encoder's device.
    began : float or torch.cuda.Event
        When the device started the first batch: by this process's clock, or as an event in a stream.
    residues : numpy.ndarray, optional
        int64 ``[N]``: rows of each sequence, if there is one row per residue.

    Attributes
    ----------
    began : float
        The same by this process's clock (:func:`time.perf_counter`); on CUDA it is known after :meth:`result`.
    """

    def __init__(
        self,
        prepared: Prepared,
        matrix: torch.Tensor,
        began: float | torch.cuda.Event,
        residues: IntVector | None = None,
    ) -> None:
        self.prepared = prepared
        self.residues = residues
        self.began = began if isinstance(began, float) else float("nan")
        self._mark = None if isinstance(began, float) else began
        self._copied: Any = None
        if matrix.device.type == "cuda":
            pinned = torch.empty(matrix.shape, dtype=matrix.dtype, pin_memory=True)
            pinned.copy_(matrix, non_blocking=True)
            self._copied = _moment(matrix.device)
            matrix = pinned
        self._matrix = matrix

    def done(self) -> bool:
        """Whether :meth:`result` would return at once."""
        return self._copied is None or bool(self._copied.query())

    def result(self) -> npt.NDArray[Any]:
        """Wait for the vectors.

        Returns
        -------
        numpy.ndarray
            The rows of :class:`Vectors`.

        Raises
        ------
        ExtractionError
            If the device failed, or a vector holds NaN or infinity.
        """
        try:
            if self._mark is not None:
                self._copied.synchronize()
                self.began = time.perf_counter() - self._mark.elapsed_time(self._copied) / 1000
        except RuntimeError as error:
            everything = slice(0, len(self.prepared.names))
            message = f"the device failed on {_batch_in_words(self.prepared, everything)}: {error}"
            raise ExtractionError(message) from error
        matrix: npt.NDArray[Any] = self._matrix.numpy()
        finite = np.isfinite(matrix).all(axis=1)
        if not finite.all():
            raise self._not_finite(matrix, np.flatnonzero(~finite))
        return matrix

    def _not_finite(self, matrix: npt.NDArray[Any], rows: IntVector) -> ExtractionError:
        prepared = self.prepared
        row, word = int(rows[0]), "records"
        bad = int((~np.isfinite(matrix[row])).sum())
        wider = ""
        if self.residues is not None:
            row, word = int(np.searchsorted(np.cumsum(self.residues), row, "right")), "residues"
            wider = " with vectors in float32 (--dtype float32)" if matrix.dtype == np.float16 else ""
        place = int(np.flatnonzero(prepared.order == row)[0])
        batch = next(batch for batch in prepared.batches if batch.start <= place < batch.stop)
        return ExtractionError(
            f"record {prepared.names[row]!r} ({prepared.lengths[place]} tokens): {bad} of {matrix.shape[1]} "
            f"values of its vector are NaN or infinite ({len(rows)} of {len(matrix)} {word} are affected); "
            f"it was computed in {_batch_in_words(prepared, batch)}; try the precision fp32{wider}, and if that "
            "fails too, fetch the model again (nucpro fetch-models FOLDER)"
        )


def embed(
    names: Sequence[str],
    sequences: Sequence[bytes],
    embedder: Embedder,
    tokenizer: Tokenizer,
    *,
    max_residues: int = MAX_RESIDUES,
) -> Vectors:
    """Vectors of sequences, computed now.

    Parameters
    ----------
    names : sequence of str
        Record ids.
    sequences : sequence of bytes
        Residues or bases of each record.
    embedder : Embedder
        With the encoder.
    tokenizer : Tokenizer
        The encoder's.
    max_residues : int
        Longer sequences are truncated there and counted.

    Returns
    -------
    Vectors
        In input order.

    Raises
    ------
    FastaError
        If a record cannot be tokenised.
    ExtractionError
        If the encoder fails, or a vector holds NaN or infinity.
    """
    prepared = prepare(
        names, sequences, tokenizer, max_residues=max_residues, tokens_per_batch=embedder.tokens_per_batch
    )
    pending = embedder.submit(prepared)
    return Vectors(prepared.names, pending.result(), prepared.truncated, pending.began)


def _furthest(ends: IntVector, start: int, budget: int) -> int:
    """Largest end of a batch that begins at ``start``."""
    done = int(ends[start - 1]) if start else 0
    return max(start + 1, int(np.searchsorted(ends, done + budget, side="right")))


def _greedy_bounds(ends: IntVector, budget: int) -> list[int]:
    bounds = [0]
    while bounds[-1] < len(ends):
        bounds.append(_furthest(ends, bounds[-1], budget))
    return bounds


def _reordered(encoded: EncodedSequences, order: IntVector) -> npt.NDArray[np.int32]:
    """Packed tokens with the sequences in another order."""
    lengths = encoded.lengths[order]
    old_starts = (np.cumsum(encoded.lengths) - encoded.lengths)[order]
    new_starts = np.cumsum(lengths) - lengths
    places = np.arange(len(encoded.tokens)) + np.repeat(old_starts - new_starts, lengths)
    tokens: npt.NDArray[np.int32] = encoded.tokens[places].astype(np.int32)
    return tokens


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one, whose stream and memory all calls use."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _moment(device: torch.device) -> float | torch.cuda.Event:
    """When a device will start the next queued work: now, or an event after the queue of a GPU."""
    if device.type != "cuda":
        return time.perf_counter()
    mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    mark.record(torch.cuda.current_stream(device))
    return mark


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator has no error class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _wait_for_room(queued: deque[torch.cuda.Event], device: torch.device) -> None:
    """Count a batch that was queued on a GPU, and wait while too many are queued."""
    if device.type != "cuda":
        return
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(device))
    queued.append(done)
    if len(queued) > _BATCHES_AHEAD:
        queued.popleft().synchronize()


def _batch_in_words(prepared: Prepared, batch: slice) -> str:
    lengths = prepared.lengths[batch]
    rows = prepared.order[batch]
    first, last = prepared.names[rows[0]], prepared.names[rows[-1]]
    return (
        f"a batch of {counted(len(rows), 'record')} (tokens of shape [{lengths.sum()}], {lengths.max()} to "
        f"{lengths.min()} each, from {first!r} to {last!r})"
    )
