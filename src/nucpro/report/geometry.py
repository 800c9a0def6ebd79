"""Geometry of sampled rows: a map in two dimensions, neighbours, outliers, and near-duplicates.

DNA and protein columns have equal weight: each is centred on the mean of the sample and scaled to a mean
squared norm of 1, so that the type with the larger values does not dominate. Similarity is the cosine of
rows in that space. Neighbours are searched in the first principal components, which explain nearly all of the variance.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import PreflightError, UsageError
from nucpro.folder.paths import SEED
from nucpro.formats.sequences import DNA_WIDTH
from nucpro.report import LAYOUTS

__all__ = ["NEIGHBOURS", "Geometry", "Layout", "describe", "missing_package", "standardised"]


NEIGHBOURS = 5
"""Nearest rows that are shown per row, and that vote on its class."""
NEAR_DUPLICATE = 0.99
"""Cosine above which two rows of different classes are listed as near-duplicates."""
OUTLYING = 3.0
"""Robust standard deviations above which a row is listed as an outlier."""

_COMPONENTS = 50
_FITTED = 10_000
"""Rows that the components are fitted to; more do not change them visibly."""
_LISTED = 50
_FEWEST = 3
_FEWEST_UMAP = 10 * NEIGHBOURS + 1
"""UMAP needs some neighbours per row; with fewer rows it shows no more than PCA, or fails."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layout:
    """A map: coordinates of each row in two dimensions.

    Parameters
    ----------
    name : str
        The method.
    points : ndarray of float32, shape [N, 2]
        Coordinates, without a unit.
    axes : tuple of two str
        Names of the axes.
    """

    name: str
    points: Matrix
    axes: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Geometry of the sampled rows.

    Attributes
    ----------
    layouts : list of Layout
        The requested map first; principal components are always included.
    neighbours : ndarray of int64, shape [N, K]
        Nearest rows of each row, the nearest first.
    outlying : ndarray of float64, shape [N]
        Mean distance to the nearest rows, in robust standard deviations above the median of its class.
    agreement, chance : float or None
        Share of rows whose nearest rows are mostly of their own class, and the expected share for random
        neighbours; None if there is only one class.
    outliers : list of (int, float)
        Rows whose :attr:`outlying` is :data:`OUTLYING` or more, the furthest first.
    duplicates : list of (int, int, float)
        A viral row, a host row and their cosine, the most similar first.
    surrounded : list of (int, int)
        Rows with neighbours of the other class only, and the number of these.
    """

    layouts: list[Layout]
    neighbours: NDArray[np.int64]
    outlying: NDArray[np.float64]
    agreement: float | None
    chance: float | None
    outliers: list[tuple[int, float]]
    duplicates: list[tuple[int, int, float]]
    surrounded: list[tuple[int, int]]


def describe(vectors: Matrix, labels: NDArray[np.int64], layout: str = LAYOUTS[0]) -> Geometry | None:
    """Describe a sample; None if it has too few rows.

    Parameters
    ----------
    vectors : ndarray of float32, shape [N, D]
        Merged rows; not changed.
    labels : ndarray of int64, shape [N]
        1 viral, 0 host.
    layout : {"pca", "umap"}
        Method of the map; UMAP takes longer than the rest of a report.

    Returns
    -------
    Geometry or None
        Map, neighbours and findings.

    Raises
    ------
    PreflightError
        UMAP was requested, and there are too few rows for it.
    UsageError
        UMAP was requested, and cannot be imported.
    """
    if layout == "umap" and len(vectors) < _FEWEST_UMAP:
        raise PreflightError(
            [
                f"--layout umap needs {_FEWEST_UMAP} sequences with merged vectors, and the sample has "
                f"{len(vectors)}; nothing was written: leave --layout out, or raise --points"
            ]
        )
    if len(vectors) < _FEWEST:
        return None
    rows = standardised(vectors)
    components, explained = _components(rows)
    names = [f"PC {number} ({share:.1%} of variance)" for number, share in enumerate(explained[:2], 1)]
    layouts = [Layout("PCA", components[:, :2], (names[0], names[1]))]
    if layout == "umap":
        layouts.insert(0, _umap(components))
    unit = _unit(components)
    distances, neighbours = _nearest(unit, unit, NEIGHBOURS, leave_out_self=True)
    outlying = _outlying(distances.mean(axis=1), labels)
    same = labels[neighbours] == labels[:, None]
    both = 0 < labels.sum() < len(labels)
    return Geometry(
        layouts=layouts,
        neighbours=neighbours,
        outlying=outlying,
        agreement=float((same.mean(axis=1) > 0.5).mean()) if both else None,
        chance=_chance(float(labels.mean()), neighbours.shape[1]) if both else None,
        outliers=_outliers(outlying),
        duplicates=_duplicates(rows, unit, labels) if both else [],
        surrounded=_surrounded(same, distances) if both else [],
    )


def standardised(vectors: Matrix) -> Matrix:
    """Rows whose DNA and protein columns are centred and have equal weight; float32, shape [N, D]."""
    rows: Matrix = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    for columns in (slice(None, DNA_WIDTH), slice(DNA_WIDTH, None)):
        power = float(np.einsum("ij,ij->", rows[:, columns], rows[:, columns])) / len(rows)
        if power > 0:
            rows[:, columns] /= np.float32(power**0.5)
    return rows


def missing_package(layout: str) -> str | None:
    """Package of the extra ``maps`` that a layout needs and that is not installed."""
    return "umap-learn" if layout == "umap" and importlib.util.find_spec("umap") is None else None


def _umap(components: Matrix) -> Layout:
    """UMAP of the principal components with its own defaults and a fixed seed, in one thread: repeatable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # about TensorFlow, which is not installed
            from umap import UMAP  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(f"--layout umap: umap-learn cannot be imported: {error}") from error
    with warnings.catch_warnings():
        # Distant groups are expected on a map; their arrangement has no meaning.
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        points = UMAP(random_state=SEED, n_jobs=1).fit_transform(components)
    return Layout("UMAP", np.asarray(points, np.float32), ("UMAP 1", "UMAP 2"))


def _components(rows: Matrix) -> tuple[Matrix, list[float]]:
    """Coordinates in the first principal components, at least two, and their shares of the variance."""
    from sklearn.decomposition import PCA  # noqa: PLC0415 - an extra

    count = min(_COMPONENTS, *rows.shape)
    model = PCA(count, svd_solver="randomized" if count == _COMPONENTS else "full", random_state=SEED)
    # Equal rows have no variance: their shares are 0, without a warning.
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rows come in a random order, so the first ones are a sample of them.
        found = np.asarray(model.fit(rows[:_FITTED]).transform(rows), np.float32)
        explained = [float(share) for share in np.nan_to_num(model.explained_variance_ratio_)]
    return found, explained


def _unit(rows: Matrix) -> Matrix:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), np.float32)


def _nearest(
    rows: Matrix, among: Matrix, count: int, *, leave_out_self: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances and rows of the nearest of ``among``, the nearest first; shapes [N, K]."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - an extra

    asked = min(count, len(among) - leave_out_self)
    search = NearestNeighbors(n_neighbors=asked, algorithm="brute").fit(among)
    found = search.kneighbors(None if leave_out_self else rows)
    return np.asarray(found[0], np.float64), np.asarray(found[1], np.int64)


def _outlying(distances: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Robust z score of a distance within its class: (d - median) / (1.4826 median absolute deviation)."""
    scores = np.zeros(len(distances))
    for label in (0, 1):
        of_class = labels == label
        if of_class.any():
            middle = np.median(distances[of_class])
            spread = 1.4826 * np.median(np.abs(distances[of_class] - middle))
            scores[of_class] = (distances[of_class] - middle) / max(spread, 1e-9)
    return scores


def _chance(viral: float, votes: int) -> float:
    """Expected share of rows whose class is that of most of ``votes`` random rows."""
    total = 0.0
    for share in (viral, 1 - viral):
        majorities = range(votes // 2 + 1, votes + 1)
        total += share * sum(comb(votes, k) * share**k * (1 - share) ** (votes - k) for k in majorities)
    return total


def _outliers(outlying: NDArray[np.float64]) -> list[tuple[int, float]]:
    order = np.argsort(-outlying, kind="stable")[:_LISTED]
    return [(int(row), float(outlying[row])) for row in order if outlying[row] >= OUTLYING]


def _duplicates(rows: Matrix, unit: Matrix, labels: NDArray[np.int64]) -> list[tuple[int, int, float]]:
    """Viral and host rows that are nearly the same: candidates by components, cosines of whole rows."""
    viral, host = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    distances, nearest = _nearest(unit[viral], unit[host], 1, leave_out_self=False)
    order = np.argsort(distances[:, 0], kind="stable")[: 4 * _LISTED]
    left, right = viral[order], host[nearest[order, 0]]
    cosines = np.einsum("ij,ij->i", _unit(rows[left]), _unit(rows[right]))
    found = [
        (int(a), int(b), float(c))
        for a, b, c in zip(left, right, cosines, strict=True)
        if c >= NEAR_DUPLICATE
    ]
    return sorted(found, key=lambda entry: -entry[2])[:_LISTED]


def _surrounded(same: NDArray[np.bool_], distances: NDArray[np.float64]) -> list[tuple[int, int]]:
    alone = np.flatnonzero(~same.any(axis=1))
    order: Sequence[int] = alone[np.argsort(distances[alone].mean(axis=1), kind="stable")].tolist()
    return [(row, same.shape[1]) for row in order[:_LISTED]]
