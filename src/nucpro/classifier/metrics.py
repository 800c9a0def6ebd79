"""Metrics of probabilities: of single rows, or with weights, which bootstrapping needs.

Labels and margins come from fitting; numbers go to the log, the card and the comparison. All are computed
from one sort, in numpy: tests compare them with scikit-learn, whose functions sort again for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nucpro.classifier.options import FEW_GROUPS, METRICS

__all__ = [
    "Comparison",
    "Measured",
    "Resampled",
    "Scored",
    "called_by_group",
    "compare",
    "curves_of",
    "groups_per_class",
    "resample",
    "temperature_of",
    "threshold_for",
]

_BINS = 15

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows with their margins in favour of viral, sorted once.

    Parameters
    ----------
    labels : ndarray of int64, shape [N]
        1 viral, 0 host.
    margins : ndarray of float64, shape [N]
        Score of the label 1 less that of the label 0, before softmax: losses and order stay exact where
        probabilities are rounded to 0 or 1.
    threshold : float
        Probability above which a row is called viral.

    Attributes
    ----------
    scores : ndarray of float64, shape [N]
        Probability of the label 1.
    called : ndarray of bool, shape [N]
        Rows that are called viral.
    """

    labels: NDArray[np.int64]
    margins: Floats
    threshold: float = 0.5
    scores: Floats = field(init=False)
    called: NDArray[np.bool_] = field(init=False)
    _order: NDArray[np.int64] = field(init=False, repr=False)
    _ends: NDArray[np.int64] = field(init=False, repr=False)
    _columns: Floats = field(init=False, repr=False)
    _bins: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scores = np.exp(-np.logaddexp(0, -self.margins))
        # VirNucPro's torch.max calls a tie a host.
        viral, called = self.labels == 1, self.margins > _margin_of(self.threshold)
        losses = np.logaddexp(0, np.where(viral, -self.margins, self.margins))
        order = np.argsort(-self.margins, kind="stable")
        falling = self.margins[order]
        values = {
            "scores": scores,
            "called": called,
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

    def calibrated(self, temperature: float, threshold: float = 0.5) -> Scored:
        """Give the same rows with margins divided by a temperature, and another threshold."""
        return Scored(self.labels, self.margins / temperature, threshold)

    @property
    def relative_margins(self) -> Floats:
        """Margins above that of the threshold."""
        return self.margins - _margin_of(self.threshold)

    @property
    def confusion(self) -> dict[str, int]:
        """Rows by their class and what they are called."""
        viral = self.labels == 1
        return {
            "true_viral": int((self.called & viral).sum()),
            "false_viral": int((self.called & ~viral).sum()),
            "true_host": int((~self.called & ~viral).sum()),
            "false_host": int((~self.called & viral).sum()),
        }

    def metrics(self, weights: Floats | None = None) -> dict[str, float]:
        """All of :data:`METRICS`.

        Precision without a positive call, F1 without a positive at all, and Matthews' correlation (MCC) where one
        of its four sums is 0, are 0. Area under the precision-recall
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
        host, passed = total - viral, total - called
        true_hosts = host - (called - hits)
        product = float(called) * float(viral) * float(host) * float(passed)
        areas = self._areas(weights)
        return {
            "loss": float(losses / total),
            "accuracy": float(right / total),
            "precision": precision,
            "recall": recall,
            "specificity": _ratio(true_hosts, host),
            "f1": _ratio(2 * precision * recall, precision + recall),
            "mcc": _ratio(hits * true_hosts - (called - hits) * (viral - hits), product**0.5),
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
        ``bin_score``, ``bin_viral`` and ``bin_rows``, the mean probability, share of virus and number of rows of
        each bin with rows.
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
        "bin_rows": counts[used].astype(np.float64),
    }


def _margin_of(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


def temperature_of(rows: Scored) -> float:
    """Find the number that margins are divided by, so that probabilities are calibrated (Guo et al., ICML 2017).

    The loss is convex in its inverse, whose best value is where the slope changes its sign. Perfectly separated
    rows would drive it to 0, so it stays between 0.25 and 10.
    """
    margins, labels = rows.margins, rows.labels
    low, high = 0.1, 4.0
    for _ in range(60):
        inverse = (low * high) ** 0.5
        slope = ((np.exp(-np.logaddexp(0, -margins * inverse)) - labels) * margins).mean()
        low, high = (low, inverse) if slope > 0 else (inverse, high)
    return round(1 / low, 4)


def threshold_for(rows: Scored, precision: float) -> float | None:
    """Find the threshold with the highest recall among those that reach a precision; None where none does."""
    true, false = rows.steps(np.ones(len(rows.labels)))
    good = np.flatnonzero((true >= precision * (true + false)) & (true > 0))
    if not len(good):
        return None
    falling = np.unique(rows.margins)[::-1]
    last = good[-1]
    below = falling[last + 1] if last + 1 < len(falling) else falling[last] - 1
    margin = (falling[last] + below) / 2
    return float(np.clip(np.round(np.exp(-np.logaddexp(0, -margin)), 6), 1e-6, 1 - 1e-6))


def called_by_group(rows: Scored, groups: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Count rows and those that are called viral: one line per group, of rows, viral rows, called, rightly called."""
    viral = rows.labels == 1
    columns = (np.ones(len(viral), bool), viral, rows.called, rows.called == viral)
    return np.stack([np.bincount(groups[column], minlength=count) for column in columns], axis=1)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


_LEVEL = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """Metrics of one model on the test part.

    Parameters
    ----------
    values : dict of str to float
        By name, on all rows.
    intervals : dict of str to ((float, float) or None)
        95% intervals of the bootstrap; None where a class has fewer than
        :data:`nucpro.classifier.options.FEW_GROUPS` genomes.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, Interval | None]


@dataclass(frozen=True)
class Comparison:
    """Several models, measured on the same rows.

    Parameters
    ----------
    models : dict of str to Measured
        By name.
    differences : dict of (str, str) to Measured
        First model less second one, for each pair in the order of `models`.
    """

    models: Mapping[str, Measured]
    differences: Mapping[tuple[str, str], Measured]


@dataclass(frozen=True, eq=False)
class Resampled:
    """One model on the test part, and on every draw of its genomes.

    Parameters
    ----------
    values : dict of str to float
        Metrics by name, on all rows.
    draws : ndarray of float64, shape [R, M], or None
        The same metrics of each draw, in the order of :data:`nucpro.classifier.options.METRICS`; None where there
        are too few genomes to draw from.
    """

    values: Mapping[str, float]
    draws: Floats | None

    @property
    def measured(self) -> Measured:
        """Metrics with their intervals."""
        return Measured(self.values, _intervals(self.draws))


def resample(rows: Scored, genomes: NDArray[np.int64], draws: int, seed: int) -> Resampled:
    """Evaluate a model on all genomes, and on resampled ones.

    Parameters
    ----------
    rows : Scored
        The test part with its probabilities.
    genomes : ndarray of int64, shape [N]
        Number of each row's genome.
    draws : int
        Resamplings.
    seed : int
        Of the draws: models of the same rows are measured on the same ones.

    Returns
    -------
    Resampled
        Metrics of all rows, and of each resample.
    """
    classes = _members(genomes, rows.labels)
    if min(map(len, classes)) < FEW_GROUPS:
        return Resampled(rows.metrics(), None)
    generator = np.random.default_rng([seed, draws])
    drawn = [list(rows.metrics(_draw(genomes, classes, generator)).values()) for _ in range(draws)]
    return Resampled(rows.metrics(), np.array(drawn))


def groups_per_class(genomes: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[int, int]:
    """Count the genomes of host rows and those of viral rows."""
    host, viral = map(len, _members(genomes, labels))
    return host, viral


def _members(genomes: NDArray[np.int64], labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Genomes of the rows of each class, host first."""
    return [np.unique(genomes[labels == label]) for label in (0, 1)]


def compare(models: Mapping[str, Resampled]) -> Comparison:
    """Compare models that were evaluated on the same resamplings.

    Parameters
    ----------
    models : dict of str to Resampled
        By name; all of the same rows, draws and seed.

    Returns
    -------
    Comparison
        Metrics and differences with 95% intervals.
    """
    names = list(models)
    pairs = [(first, second) for i, first in enumerate(names) for second in names[i + 1 :]]
    differences = {
        (first, second): Measured(
            {metric: models[first].values[metric] - models[second].values[metric] for metric in METRICS},
            _intervals(_difference(models[first].draws, models[second].draws)),
        )
        for first, second in pairs
    }
    return Comparison({name: found.measured for name, found in models.items()}, differences)


def _draw(
    genomes: NDArray[np.int64], classes: Sequence[NDArray[np.int64]], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Weight of each row when genomes are resampled within each class."""
    times = np.zeros(int(genomes.max()) + 1)
    for members in classes:
        if len(members):
            times += np.bincount(generator.choice(members, len(members)), minlength=len(times))
    return times[genomes]


def _difference(first: Floats | None, second: Floats | None) -> Floats | None:
    return None if first is None or second is None else first - second


def _intervals(table: Floats | None) -> dict[str, Interval | None]:
    """Percentile interval of each column."""
    if table is None:
        return dict.fromkeys(METRICS)
    ends = np.quantile(table, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)
    return {metric: (float(low), float(high)) for metric, low, high in zip(METRICS, *ends, strict=True)}
