"""How good probabilities are, in numbers: of single rows, or with weights, which bootstrapping needs.

Labels and margins come from fitting; numbers go to the log, the card and the comparison. All are computed
from one sort, in numpy: tests compare them with scikit-learn, whose functions sort anew for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "Scored", "curves_of"]

METRICS = ("loss", "accuracy", "precision", "recall", "f1", "auroc", "auprc", "calibration_error")
"""Names of all metrics, in the order in which they are shown; viral is the positive class."""

_BINS = 15

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows with how far each is on the viral side, sorted once.

    Parameters
    ----------
    labels : ndarray of int64, shape [N]
        1 viral, 0 host.
    margins : ndarray of float64, shape [N]
        Score of the label 1 less that of the label 0, before softmax: losses and order stay exact where
        probabilities are rounded to 0 or 1.

    Attributes
    ----------
    scores : ndarray of float64, shape [N]
        Probability of the label 1.
    """

    labels: NDArray[np.int64]
    margins: Floats
    scores: Floats = field(init=False)
    _order: NDArray[np.int64] = field(init=False, repr=False)
    _ends: NDArray[np.int64] = field(init=False, repr=False)
    _columns: Floats = field(init=False, repr=False)
    _bins: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scores = np.exp(-np.logaddexp(0, -self.margins))
        viral, called = self.labels == 1, self.margins > 0  # VirNucPro's torch.max calls a tie a host
        losses = np.logaddexp(0, np.where(viral, -self.margins, self.margins))
        order = np.argsort(-self.margins, kind="stable")
        falling = self.margins[order]
        values = {
            "scores": scores,
            "_order": order,
            # Rows of equal margins are one step of the curves.
            "_ends": np.flatnonzero(np.append(falling[1:] != falling[:-1], True)),
            # All that is a sum over rows is one product with the weights, however often these change.
            "_columns": np.stack(
                [np.ones(len(viral)), losses, called == viral, called, viral, called & viral]
            ),
            "_bins": np.minimum((scores * _BINS).astype(np.int64), _BINS - 1),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def metrics(self, weights: Floats | None = None) -> dict[str, float]:
        """All of :data:`METRICS`.

        Precision without a positive call, and F1 without a positive at all, are 0. Area under the precision-recall
        curve is the average precision. Calibration error: over 15 equal bins of the probability, the mean
        distance between mean probability and share of virus, weighted by rows (Naeini et al., AAAI 2015).

        Parameters
        ----------
        weights : ndarray of float64, shape [N], optional
            How often each row counts. Metrics that need both classes are NaN where one has no weight.

        Returns
        -------
        dict
            Metric by name.
        """
        weights = np.ones(len(self.labels)) if weights is None else weights
        total, losses, right, called, viral, hits = self._columns @ weights
        precision, recall = _ratio(hits, called), _ratio(hits, viral)
        areas = self._areas(weights)
        return {
            "loss": float(losses / total),
            "accuracy": float(right / total),
            "precision": precision,
            "recall": recall,
            "f1": _ratio(2 * precision * recall, precision + recall),
            "auroc": areas[0],
            "auprc": areas[1],
            "calibration_error": self._calibration_error(weights),
        }

    def _areas(self, weights: Floats) -> tuple[float, float]:
        true, false = self.steps(weights)
        if true[-1] <= 0 or false[-1] <= 0:
            return float("nan"), float("nan")
        below = true - np.diff(true, prepend=0) / 2
        auroc = (np.diff(false, prepend=0) * below).sum() / (true[-1] * false[-1])
        called = true + false
        precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
        auprc = (np.diff(true, prepend=0) * precision).sum() / true[-1]
        return float(auroc), float(auprc)

    def steps(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weights of viral and of host rows at or above each margin that occurs, from the highest down."""
        sorted_weights = weights[self._order]
        viral = np.cumsum(sorted_weights * (self.labels[self._order] == 1))[self._ends]
        return viral, np.cumsum(sorted_weights)[self._ends] - viral

    def _calibration_error(self, weights: Floats) -> float:
        differences = np.bincount(self._bins, weights * (self.scores - self.labels), _BINS)
        return float(np.abs(differences).sum() / weights.sum())


def curves_of(scored: Scored) -> dict[str, Floats]:
    """Points of the curves that are drawn.

    Returns
    -------
    dict
        ``false_positive_rate``, ``recall`` and ``precision``, each ``[K]``, one for each margin that occurs;
        ``bin_score`` and ``bin_viral``, the mean probability and share of virus of each bin with rows.
    """
    true, false = scored.steps(np.ones(len(scored.labels)))
    bins = np.minimum((scored.scores * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    used = counts > 0
    return {
        "false_positive_rate": false / max(false[-1], 1),
        "recall": true / max(true[-1], 1),
        "precision": true / (true + false),
        "bin_score": np.bincount(bins, scored.scores, _BINS)[used] / counts[used],
        "bin_viral": np.bincount(bins, scored.labels, _BINS)[used] / counts[used],
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0
