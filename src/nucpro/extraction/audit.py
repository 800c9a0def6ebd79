"""Recomputing random sequences in float32 and comparing them with the vectors on disk."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucpro.embedding.encoder import Identified, load
from nucpro.errors import DataError, ValidationError
from nucpro.extraction.plan import Plan
from nucpro.folder.paths import SEED
from nucpro.formats import read_vectors
from nucpro.formats.fasta import Records, read
from nucpro.formats.sequences import Side
from nucpro.options import Options

__all__ = ["LARGEST_ERROR", "WORST_COSINE", "audit", "cosines", "rows_of"]

WORST_COSINE = 0.999
"""Lowest cosine to float32 that half precision may give for a single sequence."""
LARGEST_ERROR = 0.05
"""Largest length of the difference, in lengths of the float32 vector; that cosine alone allows 0.045."""


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
        Mean and worst cosine, largest difference, and how many sequences they stand for.

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
        f"Audit: {len(found)} sequences recomputed in float32: cosine mean {np.mean(found):.6f}, "
        f"worst {min(found):.6f}; largest difference {largest:.2e}"
    ]


def _sample(plan: Plan, count: int) -> list[tuple[Path, Path, list[int]]]:
    """FASTA file, protein file and rows; a sequence is drawn with the same chance wherever it lies."""
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
        The records, in the order that is wanted.

    Returns
    -------
    ndarray
        float32 ``[N, D]``.

    Raises
    ------
    StoreError
        The file cannot be read.
    DataError
        It does not hold one of the records.
    """
    vectors = read_vectors(path, Side.PROTEIN)
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
