"""How sure measured numbers are, and whether one model is better than another: bootstrap by genome.

Chunks of one genome are alike, so rows are no independent measurements: genomes are drawn with replacement, with
all their rows (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 8). Several models are
measured on the same draws, so that their differences have intervals of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucpro.classifier.metrics import METRICS, Scored

__all__ = ["Comparison", "Measured", "Resampled", "compare", "resample"]

_LEVEL = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """Metrics of one model on the test part.

    Parameters
    ----------
    values : dict of str to float
        By name, on all rows.
    intervals : dict of str to (float, float)
        95% intervals of the bootstrap; NaN where no draw gave a number.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, Interval]


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
    draws : ndarray of float64, shape [R, M]
        The same metrics of each draw, in the order of :data:`nucpro.classifier.metrics.METRICS`.
    """

    values: Mapping[str, float]
    draws: NDArray[np.float64]

    @property
    def measured(self) -> Measured:
        """Metrics with their intervals."""
        return Measured(self.values, _intervals(self.draws))


def resample(rows: Scored, genomes: NDArray[np.int64], draws: int, seed: int) -> Resampled:
    """Measure a model, and measure it again on genomes that are drawn anew.

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
    """
    generator = np.random.default_rng([seed, draws])
    drawn = [list(rows.metrics(_draw(genomes, rows.labels, generator)).values()) for _ in range(draws)]
    return Resampled(rows.metrics(), np.array(drawn))


def compare(models: Mapping[str, Resampled]) -> Comparison:
    """Put models side by side that were measured on the same draws.

    Parameters
    ----------
    models : dict of str to Resampled
        By name; all of the same rows, draws and seed.
    """
    names = list(models)
    pairs = [(first, second) for i, first in enumerate(names) for second in names[i + 1 :]]
    differences = {
        (first, second): Measured(
            {metric: models[first].values[metric] - models[second].values[metric] for metric in METRICS},
            _intervals(models[first].draws - models[second].draws),
        )
        for first, second in pairs
    }
    return Comparison({name: found.measured for name, found in models.items()}, differences)


def _draw(
    genomes: NDArray[np.int64], labels: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """How often each row counts when genomes are drawn anew, as many of each class as there are."""
    times = np.zeros(int(genomes.max()) + 1)
    for label in (0, 1):
        members = np.unique(genomes[labels == label])
        if len(members):
            times += np.bincount(generator.choice(members, len(members)), minlength=len(times))
    return times[genomes]


def _intervals(table: NDArray[np.float64]) -> dict[str, Interval]:
    """Percentile intervals of each column; draws without both classes are no numbers and do not count."""
    intervals = {}
    for column, metric in enumerate(METRICS):
        values = table[:, column][~np.isnan(table[:, column])]
        ends = (
            np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]) if len(values) else np.full(2, np.nan)
        )
        intervals[metric] = (float(ends[0]), float(ends[1]))
    return intervals
