"""Recomputing random sequences in float32 and comparing them with the vectors on disk."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.embedding.batches import Embedder, Encoder, FloatMatrix
from nucpro.embedding.encoder import FastaEncoder, load
from nucpro.embedding.identification import Identified
from nucpro.errors import DataError, ValidationError, counted
from nucpro.extraction.plan import Plan, PlanItem
from nucpro.folder.paths import SEED
from nucpro.formats import read_vectors
from nucpro.formats.fasta import Records, read
from nucpro.formats.sequences import SequenceType
from nucpro.models.config import ALL_TOKENS, RESIDUES_ONLY, PooledSpan
from nucpro.models.tensors import pool_states
from nucpro.options import Options
from nucpro.state.checkpoint import Fingerprint

__all__ = [
    "LARGEST_DIFFERENCE",
    "LARGEST_ERROR",
    "LEAST_COSINE",
    "WORST_COSINE",
    "Recomputed",
    "audit",
    "cosines",
    "recompute",
    "rows_of",
]

WORST_COSINE = 0.999
"""Lowest accepted cosine between half precision and float32 for a single sequence."""
LARGEST_ERROR = 0.05
"""Largest norm of the difference, relative to that of the float32 vector; the cosine alone allows 0.045."""


def audit(plan: Plan, model: Identified, options: Options) -> list[str]:
    """Compare ``options.audit`` random sequences of all selected files with a float32 computation.

    Parameters
    ----------
    plan : Plan
        The selected files.
    model : Identified
        The model that made the vectors.
    options : Options
        Number of sequences, and the device.

    Returns
    -------
    list of str
        Mean and worst cosine, largest difference, and the number of sequences.

    Raises
    ------
    ValidationError
        A cosine below :data:`WORST_COSINE`, or a difference above :data:`LARGEST_ERROR`.
    """
    encoder = load(model, replace(options, precision="fp32"))
    found: list[np.float32] = []
    largest = 0.0
    for path, vectors, rows in _sample(plan, options.audit):
        records = read(path)
        chosen = Records(path, [records.ids[row] for row in rows], [records.sequences[row] for row in rows])
        stored = rows_of(vectors, chosen.ids)
        expected = encoder.embed(chosen).matrix
        found += list(cosines(stored, expected))
        largest = max(largest, float(np.abs(stored - expected).max()))
        if min(found) < WORST_COSINE:
            raise ValidationError(
                f"{vectors}: cosine {min(found):.5f} to float32, below {WORST_COSINE}; remove the file and run again"
            )
        error = float((_lengths(stored - expected) / _lengths(expected)).max())
        if error > LARGEST_ERROR:
            raise ValidationError(
                f"{vectors}: a vector differs from float32 by {error:.3f} of its length, more than {LARGEST_ERROR}; "
                "remove the file and run again"
            )
    return [
        f"Audit: {counted(len(found), 'sequence')} recomputed in float32: cosine mean {np.mean(found):.6f}, "
        f"worst {min(found):.6f}; largest difference {largest:.2e}"
    ]


def _sample(plan: Plan, count: int) -> list[tuple[Path, Path, list[int]]]:
    """FASTA file, protein file and rows; every sequence is sampled with the same probability."""
    total = sum(item.facts.records for item in plan.items)
    drawn = sorted(random.Random(SEED).sample(range(total), min(count, total)))
    chosen, start = [], 0
    for item in plan.items:
        end = start + item.facts.records
        rows = [number - start for number in drawn if start <= number < end]
        if rows:
            chosen.append((item.pair.protein_fasta, item.pair.protein_vectors, rows))
        start = end
    return chosen


def rows_of(path: Path, ids: list[str]) -> NDArray[np.float32]:
    """Vectors of some records of a protein file.

    Parameters
    ----------
    path : Path
        The file.
    ids : list of str
        The records, in the requested order.

    Returns
    -------
    ndarray
        float32 ``[N, D]``.

    Raises
    ------
    StoreError
        The file cannot be read.
    DataError
        A record is missing from it.
    """
    vectors = read_vectors(path, SequenceType.PROTEIN)
    absent = set(ids).difference(vectors.ids)
    if absent:
        raise DataError(f"{path}: holds no vector of {min(absent)}, which its FASTA has; run again")
    row_of = {name: row for row, name in enumerate(vectors.ids)}
    return np.asarray(vectors.vectors[[row_of[name] for name in ids]])


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each row of two matrices ``[N, D]``."""
    return np.asarray((left * right).sum(axis=1) / (_lengths(left) * _lengths(right)))


def _lengths(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(matrix, axis=1))


LEAST_COSINE = 0.9999
"""Lowest accepted cosine between a stored vector and the recomputed one."""
LARGEST_DIFFERENCE = 5e-3
"""Largest accepted difference of a value, relative to the largest value of the vector."""

_SPANS = (
    RESIDUES_ONLY,
    PooledSpan("mean of residues and <eos>", skip_start=1, skip_end=0),
    PooledSpan("mean of <cls> and residues", skip_start=0, skip_end=1),
    ALL_TOKENS,
)


@dataclass(frozen=True)
class Recomputed:
    """Result of recomputing some records of a file.

    Parameters
    ----------
    records : int
        Number of recomputed records.
    cosine, difference : float
        Lowest cosine, and largest difference relative to the vector's largest value.
    problem : str or None
        Why the file does not match the model, as the end of a sentence; None if it matches.
    stamp : Fingerprint or None
        Fingerprint of the file, taken before it was read.
    """

    records: int
    cosine: float
    difference: float
    problem: str | None
    stamp: Fingerprint | None = None

    def line(self, path: Path, model: str) -> str:
        """One line about a file that was compared with a model."""
        recomputed = f"{counted(self.records, 'record')} recomputed with {model}"
        if self.problem is not None:
            return f"Not kept: {path.name}: {recomputed}: {self.problem}; recomputed ({path})"
        return (
            f"Verified: {path.name}: {recomputed}: cosine {self.cosine:.6f} at worst, largest difference "
            f"{self.difference:.1e} of the largest value ({path})"
        )


class _EveryPooling:
    """An encoder that returns the vectors of all poolings side by side, its own first."""

    def __init__(self, encoder: Encoder, others: Sequence[PooledSpan]) -> None:
        self._encoder = encoder
        self._others = others
        self.width = encoder.width * (1 + len(others))
        self.device = encoder.device
        self.dtype = encoder.dtype

    def pool(self, hidden: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        """Vectors of sequences, float32 ``[N, width]``, from hidden states ``[T, width of the encoder]``."""
        vectors = [pool_states(hidden, lengths, span) for span in self._others]
        return torch.cat([self._encoder.pool(hidden, lengths), *vectors], dim=1)

    def __call__(self, tokens: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        """Hidden states of the encoder."""
        return self._encoder(tokens, lengths)


def recompute(items: Sequence[PlanItem], model: Identified, options: Options) -> list[Recomputed]:
    """Recompute ``options.verify_existing`` random records of each file, and compare.

    Parameters
    ----------
    items : sequence of PlanItem
        Files with complete vectors but no provenance.
    model : Identified
        The model of the run.
    options : Options
        Number of records, and the device.

    Returns
    -------
    list of Recomputed
        One per file, in order.

    Raises
    ------
    NucproError
        The model cannot be loaded, or a file changed during the run.
    """
    encoder = load(model, replace(options, precision="fp32"))
    own = model.recipe.made_by["pooling"]
    others = [span for span in _SPANS if span.name != own]
    embedder = Embedder(_EveryPooling(encoder.embedder.encoder, others), options.tokens_per_batch)
    every = FastaEncoder(embedder, encoder.tokenizer, encoder.recipe)
    return [_recomputed(item, every, others, options.verify_existing) for item in items]


def _recomputed(
    item: PlanItem, encoder: FastaEncoder, others: Sequence[PooledSpan], count: int
) -> Recomputed:
    path = item.pair.protein_vectors
    stamp = Fingerprint.of(path)
    records = read(item.pair.protein_fasta)
    # The same rows each time, and different ones in every file.
    draw = random.Random(f"{SEED} {item.facts.digest}")
    rows = sorted(draw.sample(range(len(records)), min(count, len(records))))
    chosen = Records(
        records.path, [records.ids[row] for row in rows], [records.sequences[row] for row in rows]
    )
    stored = rows_of(path, chosen.ids)
    computed = np.split(encoder.embed(chosen).matrix, 1 + len(others), axis=1)
    return replace(_compared(chosen.ids, stored, computed, [span.name for span in others]), stamp=stamp)


def _compared(
    ids: Sequence[str], stored: FloatMatrix, computed: Sequence[FloatMatrix], others: Sequence[str]
) -> Recomputed:
    """Compare stored and recomputed vectors: with the model's own pooling first, then with those of others."""
    own = computed[0]
    alike = cosines(stored, own)
    apart = np.abs(stored - own).max(axis=1) / np.abs(own).max(axis=1)
    nearest = int(np.argmin([np.square(stored - vectors).sum() for vectors in computed]))
    problem = None
    if nearest and max(alike.min(), cosines(stored, computed[nearest]).min()) >= LEAST_COSINE:
        problem = f"its vectors are a {others[nearest - 1]}"
    elif alike.min() < LEAST_COSINE:
        worst = int(alike.argmin())
        problem = f"{ids[worst]} has a cosine of {alike[worst]:.6f} to the vector of the model, below {LEAST_COSINE}"
    elif apart.max() > LARGEST_DIFFERENCE:
        worst = int(apart.argmax())
        problem = (
            f"a value of {ids[worst]} differs from the model by {apart[worst]:.1e} of the largest, more than "
            f"{LARGEST_DIFFERENCE:.0e}"
        )
    return Recomputed(len(ids), float(alike.min()), float(apart.max()), problem)
