"""Whether protein vectors that say nothing of their origin are those that a run would make.

A few records of each file are computed again, in float32, and compared with what the file holds. A vector that
pools one special token more is so near to the right one that no threshold tells them apart (from 100 residues on its
cosine is above 0.9999), but the difference has a direction: so the vectors of other poolings are computed as well,
and a file that lies nearer to one of them than to ours was made that way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from nucpro.embedding.batches import Embedder, Encoder, FloatMatrix
from nucpro.embedding.encoder import FastaEncoder, Identified, load
from nucpro.extraction.audit import cosines, rows_of
from nucpro.extraction.plan import PlanItem
from nucpro.folder.paths import SEED
from nucpro.formats.fasta import Records, read
from nucpro.models.tensors import ALL_TOKENS, RESIDUES_ONLY, PooledSpan, mean_pool
from nucpro.options import Options
from nucpro.state.records import Stamp

__all__ = ["LARGEST_DIFFERENCE", "LEAST_COSINE", "Recomputed", "recompute"]

LEAST_COSINE = 0.9999
"""Lowest cosine between a vector that is kept and the one that is computed."""
LARGEST_DIFFERENCE = 5e-3
"""Largest difference of a value of the two, in parts of the largest value of the vector."""

_SPANS = (
    RESIDUES_ONLY,
    PooledSpan("mean of residues and <eos>", skip_start=1, skip_end=0),
    PooledSpan("mean of <cls> and residues", skip_start=0, skip_end=1),
    ALL_TOKENS,
)


@dataclass(frozen=True)
class Recomputed:
    """What computing some records of a file again showed.

    Parameters
    ----------
    records : int
        Records that were computed.
    cosine, difference : float
        Lowest cosine, and largest difference in parts of the vector's largest value.
    problem : str or None
        Why the file is not what the model gives: the end of a sentence; None where it is.
    stamp : Stamp or None
        Of the file from before it was read.
    """

    records: int
    cosine: float
    difference: float
    problem: str | None
    stamp: Stamp | None = None

    def line(self, path: Path, model: str) -> str:
        """Say it in one line, of a file that was compared with what a model gives."""
        recomputed = f"{self.records} records recomputed with {model}"
        if self.problem is not None:
            return f"Not kept: {path.name}: {recomputed}: {self.problem}; made anew ({path})"
        return (
            f"Verified: {path.name}: {recomputed}: cosine {self.cosine:.6f} at worst, largest difference "
            f"{self.difference:.1e} of the largest value ({path})"
        )


class _EveryPooling:
    """An encoder whose vectors are those of all poolings side by side, its own first."""

    def __init__(self, encoder: Encoder, others: Sequence[PooledSpan]) -> None:
        self._encoder = encoder
        self._others = others
        self.width = encoder.width * (1 + len(others))
        self.device = encoder.device
        self.dtype = encoder.dtype

    def pool(self, hidden: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        """Vectors of sequences, float32 ``[N, width]``, from hidden states ``[T, width of the encoder]``."""
        vectors = [mean_pool(hidden, lengths, span) for span in self._others]
        return torch.cat([self._encoder.pool(hidden, lengths), *vectors], dim=1)

    def __call__(self, tokens: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        """Hidden states of the encoder."""
        return self._encoder(tokens, lengths)


def recompute(items: Sequence[PlanItem], model: Identified, options: Options) -> list[Recomputed]:
    """Compute ``options.verify_existing`` random records of each file again, and compare.

    Parameters
    ----------
    items : sequence of PlanItem
        Files whose vectors are complete, and do not say how they were made.
    model : Identified
        The model of the run.
    options : Options
        Number of records, and the device.

    Returns
    -------
    list of Recomputed
        One a file, in order.

    Raises
    ------
    NucproError
        The model cannot be loaded, or a file was changed meanwhile.
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
    stamp = Stamp.of(path)
    records = read(item.pair.protein_fasta)
    # The same rows whenever the file is looked at, and others in every file.
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
    """Compare what is stored with what was computed: with the model's own pooling first, then with those of others."""
    own = computed[0]
    alike = cosines(stored, own)
    apart = np.abs(stored - own).max(axis=1) / np.abs(own).max(axis=1)
    nearest = int(np.argmin([np.square(stored - vectors).sum() for vectors in computed]))
    problem = None
    if nearest and max(alike.min(), cosines(stored, computed[nearest]).min()) >= LEAST_COSINE:
        problem = f"its vectors are a {others[nearest - 1]}"
    elif alike.min() < LEAST_COSINE:
        worst = int(alike.argmin())
        problem = (
            f"{ids[worst]} has a cosine of {alike[worst]:.6f} to what the model gives, below {LEAST_COSINE}"
        )
    elif apart.max() > LARGEST_DIFFERENCE:
        worst = int(apart.argmax())
        problem = (
            f"a value of {ids[worst]} is off what the model gives by {apart[worst]:.1e} of the largest, more than "
            f"{LARGEST_DIFFERENCE:.0e}"
        )
    return Recomputed(len(ids), float(alike.min()), float(apart.max()), problem)
