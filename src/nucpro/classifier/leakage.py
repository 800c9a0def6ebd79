"""Similarity of test rows to training rows: leakage that a split by groups cannot exclude.

Rows come from the matrix of :mod:`nucpro.classifier.features`; the figures go to the log and into the model's card.
Vectors of one model all point much the same way, so columns are standardised before cosines are taken, and the
measure is what rows of one genome have among themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from nucpro.classifier.splits import PARTS, Grouping, Split

__all__ = ["nearest_across", "neighbours_line"]

_SAMPLED = 512
_BLOCK_ROWS = 2048
"""Training rows at a time; of 2,048 columns they take 17 MB."""
_DIGITS = 4


def nearest_across(
    matrix: torch.Tensor, split: Split, genomes: Grouping, device: torch.device, seed: int
) -> dict[str, Any]:
    """Find the nearest training row of some test rows, and of some training rows that of their own genome.

    Parameters
    ----------
    matrix : torch.Tensor
        float32 ``[N, D]``, in any memory.
    split : Split
        Training and test rows.
    genomes : Grouping
        What each row is of.
    device : torch.device
        Where cosines are computed.
    seed : int
        Of the rows that are drawn, 512 of each part.

    Returns
    -------
    dict
        ``rows`` that were drawn of the test part; ``cosine``, the median to the nearest training row;
        ``cosine_within_genomes``, that of training rows to the nearest other row of their genome, None where
        genomes have one row only; ``as_near``, the share of test rows with at least that similarity.
    """
    generator = np.random.default_rng([seed, _SAMPLED])
    trained, tested = split.rows[0], split.rows[PARTS.index("test")]
    drawn = [generator.choice(rows, min(_SAMPLED, len(rows)), replace=False) for rows in (tested, trained)]
    some = _rows(matrix, drawn[1], device)
    centre, scale = some.mean(0), some.std(0, correction=0).clamp_min(1e-6)

    def directions(rows: NDArray[np.int64]) -> torch.Tensor:
        standardised = _rows(matrix, rows, device).sub_(centre).div_(scale)
        return F.normalize(standardised, out=standardised)

    vectors = [directions(rows) for rows in drawn]
    across, within = (torch.full((len(rows),), -2.0, device=device) for rows in drawn)
    for start in range(0, len(trained), _BLOCK_ROWS):
        rows = trained[start : start + _BLOCK_ROWS]
        block = directions(rows)
        across = torch.maximum(across, (vectors[0] @ block.T).amax(1))
        is_kin = (genomes.codes[drawn[1]][:, None] == genomes.codes[rows]) & (drawn[1][:, None] != rows)
        kin = (vectors[1] @ block.T).masked_fill(~torch.from_numpy(is_kin).to(device), -2.0)
        within = torch.maximum(within, kin.amax(1))
    return _figures(across.cpu(), within[within > -2].cpu())


def _figures(across: torch.Tensor, within: torch.Tensor) -> dict[str, Any]:
    usual = float(within.median()) if len(within) else None
    return {
        "rows": len(across),
        "cosine": round(float(across.median()), _DIGITS),
        "cosine_within_genomes": None if usual is None else round(usual, _DIGITS),
        "as_near": None if usual is None else round(float((across >= usual).double().mean()), _DIGITS),
    }


def neighbours_line(found: dict[str, Any]) -> str:
    """Report the result."""
    line = f"Nearest training row of {found['rows']} test rows: median cosine {found['cosine']:.2f}"
    if found["as_near"] is None:
        return line
    return (
        f"{line}, {found['cosine_within_genomes']:.2f} within a genome; {100 * found['as_near']:.0f}% of the test rows "
        "are as similar to a training row as rows of one genome to each other"
    )


def _rows(matrix: torch.Tensor, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    return matrix.index_select(0, torch.from_numpy(rows).to(matrix.device)).to(device)
