"""Neighbours, outliers and near-duplicates, on rows whose place is known."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numpy.typing import NDArray

from nucpro.errors import PreflightError
from nucpro.report.geometry import NEIGHBOURS, describe, standardised

WIDTH = 768 + 40


def two_clouds(rows: int = 60, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    numbers = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    vectors = numbers.standard_normal((rows, WIDTH)).astype(np.float32)
    vectors[:, ::4] += 4 * labels[:, None]
    return vectors, labels


def test_neighbours_are_the_nearest_and_never_the_row_itself() -> None:
    vectors, labels = two_clouds()
    found = describe(vectors, labels)
    assert found is not None
    assert found.neighbours.shape == (60, NEIGHBOURS)
    assert not (found.neighbours == np.arange(60)[:, None]).any()
    # Exact cosines of whole rows are the reference; with 60 rows, 50 components hold nearly all of them.
    rows = standardised(vectors)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T - 2 * np.eye(60)
    best = cosines.argmax(axis=1)
    assert (found.neighbours[:, :3] == best[:, None]).any(axis=1).mean() > 0.9


def test_separate_classes_agree_and_mixed_ones_are_at_chance() -> None:
    vectors, labels = two_clouds()
    apart = describe(vectors, labels)
    assert apart is not None
    assert apart.agreement == 1.0
    assert apart.chance == pytest.approx(0.5)
    assert apart.surrounded == apart.duplicates == []
    mixed = describe(vectors, np.random.default_rng(1).integers(0, 2, 60))
    assert mixed is not None
    assert mixed.agreement is not None
    assert 0.2 < mixed.agreement < 0.8


def test_chance_follows_the_balance_of_classes() -> None:
    vectors, _ = two_clouds(100)
    found = describe(vectors, (np.arange(100) < 10).astype(np.int64))
    assert found is not None
    # 0.9 of rows have a majority of 5 with probability 0.99144, 0.1 of them with 0.00856.
    assert found.chance == pytest.approx(0.9 * 0.99144 + 0.1 * 0.00856)


def test_planted_rows_are_found() -> None:
    vectors, labels = two_clouds()
    vectors[10] = vectors[11] + 0.001  # 10 is a host, 11 viral: nearly the same
    found = describe(vectors, labels)
    assert found is not None
    (duplicate,) = found.duplicates
    assert duplicate[:2] == (11, 10)
    assert duplicate[2] > 0.999
    assert [row for row, _ in found.surrounded] == [10]


def test_a_row_far_from_all_is_an_outlier() -> None:
    numbers = np.random.default_rng(3)
    base = numbers.standard_normal((3, WIDTH))
    mix = numbers.dirichlet((1, 1, 1), 80)
    vectors = (mix @ base).astype(np.float32) + 0.01 * numbers.standard_normal((80, WIDTH)).astype(np.float32)
    vectors[7] = 3 * numbers.standard_normal(WIDTH)
    found = describe(vectors, np.ones(80, np.int64))
    assert found is not None
    assert found.outliers[0][0] == 7
    assert found.outliers[0][1] > 10
    assert found.agreement is None


def test_both_sequence_types_count_the_same() -> None:
    vectors, _ = two_clouds()
    scaled = vectors.copy()
    scaled[:, :768] *= 1000
    assert np.allclose(standardised(vectors), standardised(scaled), atol=1e-3)
    rows = standardised(vectors)
    for columns in (rows[:, :768], rows[:, 768:]):
        assert (columns**2).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-4)
    assert np.array_equal(vectors, two_clouds()[0])


@pytest.mark.parametrize("rows", [3, 4, 6])
def test_few_rows_are_enough(rows: int) -> None:
    vectors, labels = two_clouds(rows)
    found = describe(vectors, labels)
    assert found is not None
    assert found.neighbours.shape == (rows, min(NEIGHBOURS, rows - 1))
    assert np.isfinite(found.layouts[0].points).all()


def test_too_few_rows_have_no_geometry() -> None:
    vectors, labels = two_clouds(2)
    assert describe(vectors, labels) is None
    assert describe(np.empty((0, 0), np.float32), np.empty(0, np.int64)) is None


def test_equal_rows_do_no_harm() -> None:
    found = describe(np.ones((12, WIDTH), np.float32), np.arange(12) % 2)
    assert found is not None
    assert np.isfinite(found.layouts[0].points).all()
    assert np.isfinite(found.outlying).all()


def test_the_same_rows_give_the_same_map() -> None:
    vectors, labels = two_clouds(200)
    first, second = describe(vectors, labels), describe(vectors, labels)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.layouts[0].points, second.layouts[0].points)
    assert first.outliers == second.outliers


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="needs umap-learn (nucpro[maps])")
def test_umap_is_drawn_where_it_is_asked_for_and_the_components_stay() -> None:
    vectors, labels = two_clouds()
    plain, found = describe(vectors, labels), describe(vectors, labels, "umap")
    assert plain is not None
    assert found is not None
    # Installed or not, it is not drawn unasked: it takes longer than everything else.
    assert [layout.name for layout in plain.layouts] == ["PCA"]
    assert [layout.name for layout in found.layouts] == ["UMAP", "PCA"]
    assert found.layouts[0].axes == ("UMAP 1", "UMAP 2")
    assert np.array_equal(found.layouts[1].points, plain.layouts[0].points)
    points = found.layouts[0].points
    assert points.shape == (60, 2)
    assert points.dtype == np.float32
    # Two clouds stay two: distances within a class are smaller than those between the classes.
    centres = [points[labels == label].mean(axis=0) for label in (0, 1)]
    spread = max(np.linalg.norm(points[labels == label] - centres[label], axis=1).mean() for label in (0, 1))
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread


@pytest.mark.parametrize("rows", [0, 2, 50])
def test_too_few_rows_for_umap_are_refused(rows: int) -> None:
    vectors, labels = two_clouds(rows)
    with pytest.raises(PreflightError, match=f"--layout umap needs 51 .* the sample has {rows}; nothing"):
        describe(vectors, labels, "umap")
