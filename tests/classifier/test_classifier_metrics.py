"""Metrics against scikit-learn, and the bootstrap by genome."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from nucpro.classifier.metrics import (
    Scored,
    called_by_group,
    compare,
    curves_of,
    resample,
    temperature_of,
    threshold_for,
)
from nucpro.classifier.options import METRICS


def drawn(rows: int, seed: int, steps: int = 1000) -> Scored:
    """Rows whose scores say something of their labels, with ties where there are few steps."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, rows)
    labels[:2] = (0, 1)
    scores = np.clip(generator.normal(0.3 + 0.4 * labels, 0.3), 0.001, 0.999)
    return of_scores(labels, np.ceil(scores * steps) / (steps + 1))


def of_scores(labels: np.ndarray, scores: np.ndarray) -> Scored:
    return Scored(labels, np.log(scores) - np.log1p(-scores))


@settings(max_examples=60)
@given(
    rows=st.integers(2, 200),
    seed=st.integers(0, 2**32 - 1),
    steps=st.sampled_from([3, 10, 100_000]),
    weighted=st.booleans(),
)
def test_metrics_equal_scikit_learns(rows: int, seed: int, steps: int, weighted: bool) -> None:
    scored = drawn(rows, seed, steps)
    weights = np.random.default_rng(seed + 1).integers(1, 4, rows).astype(float) if weighted else None
    found = scored.metrics(weights)
    labels, scores, called = scored.labels, scored.scores, scored.margins > 0
    options = {"sample_weight": weights}
    expected = {
        "loss": reference.log_loss(labels, scores, **options),
        "accuracy": reference.accuracy_score(labels, called, **options),
        "precision": reference.precision_score(labels, called, zero_division=0, **options),
        "recall": reference.recall_score(labels, called, **options),
        "specificity": reference.recall_score(labels, called, pos_label=0, **options),
        "f1": reference.f1_score(labels, called, **options),
        "mcc": reference.matthews_corrcoef(labels, called, **options),
        "auroc": reference.roc_auc_score(labels, scores, **options),
        "auprc": reference.average_precision_score(labels, scores, **options),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert list(found) == list(METRICS)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_calls_follow_the_threshold(threshold: float) -> None:
    scored = drawn(200, 4)
    moved = scored.calibrated(1.0, threshold)
    assert (moved.called == (scored.scores > threshold)).all()
    assert moved.metrics()["precision"] == pytest.approx(
        reference.precision_score(scored.labels, scored.scores > threshold)
    )
    (true_host, false_viral), (false_host, true_viral) = reference.confusion_matrix(
        scored.labels, moved.called
    )
    assert moved.confusion == {
        "true_viral": true_viral, "false_viral": false_viral, "true_host": true_host, "false_host": false_host
    }  # fmt: skip
    groups = np.arange(200) % 3
    table = called_by_group(moved, groups, 4)
    assert table.sum(axis=0).tolist() == [
        200,
        scored.labels.sum(),
        moved.called.sum(),
        true_viral + true_host,
    ]
    assert table[3].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("factor", [0.6, 1.0, 3.0])
def test_a_temperature_undoes_what_margins_were_multiplied_by(factor: float) -> None:
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 2, 20_000)
    labels = (generator.random(20_000) < 1 / (1 + np.exp(-margins))).astype(np.int64)
    scored = Scored(labels, margins * factor)
    found = temperature_of(scored)
    assert found == pytest.approx(factor, rel=0.05)
    better = scored.calibrated(found).metrics()
    assert better["loss"] <= scored.metrics()["loss"] + 1e-9
    assert better["auroc"] == scored.metrics()["auroc"]


def test_a_temperature_stays_within_bounds_where_rows_are_distinguished_without_an_error() -> None:
    assert temperature_of(Scored(np.array([0, 1]), np.array([-9.0, 9.0]))) == 0.25
    assert temperature_of(Scored(np.array([1, 0]), np.array([-9.0, 9.0]))) == 10


@pytest.mark.parametrize("precision", [0.6, 0.8, 0.9])
def test_a_threshold_reaches_its_precision_with_the_highest_recall(precision: float) -> None:
    scored = drawn(500, 6)
    threshold = threshold_for(scored, precision)
    assert threshold is not None
    found = scored.calibrated(1.0, threshold).metrics()
    assert found["precision"] >= precision
    for other in np.unique(scored.scores):
        there = scored.calibrated(1.0, float(other)).metrics()
        assert there["precision"] < precision or there["recall"] <= found["recall"]


def test_a_precision_that_no_threshold_reaches() -> None:
    assert threshold_for(Scored(np.array([0, 1]), np.array([2.0, 1.0])), 0.9) is None
    all_viral = Scored(np.array([1, 1]), np.array([2.0, 1.0]))
    assert all_viral.calibrated(1.0, threshold_for(all_viral, 0.9) or 1.0).called.all()


def test_calibration_error_by_hand() -> None:
    scored = of_scores(np.array([1, 0, 1]), np.array([0.89, 0.91, 0.1]))
    certain = Scored(np.append(scored.labels, 1), np.append(scored.margins, 800.0))
    # Bins of width 1/15: 0.89 and 0.91 lie in the 14th, 0.1 in the 2nd, 1.0 in the last.
    assert certain.scores[3] == 1.0
    assert certain.metrics()["calibration_error"] == pytest.approx((abs(1.8 - 1) + 0.9 + 0.0) / 4)


def test_losses_are_exact_where_probabilities_are_rounded() -> None:
    found = Scored(np.array([1, 0, 1, 0]), np.array([800.0, -800.0, -750.0, 900.0])).metrics()
    assert found["loss"] == (750 + 900) / 4
    assert found["auroc"] == 0.5


def test_one_class_has_no_areas_and_a_tie_is_a_host() -> None:
    found = Scored(np.zeros(2, np.int64), np.array([0.0, -0.2])).metrics()
    assert math.isnan(found["auroc"])
    assert math.isnan(found["auprc"])
    assert found["accuracy"] == 1
    assert found["precision"] == found["recall"] == found["f1"] == 0


def test_points_of_curves_are_scikit_learns() -> None:
    scored = drawn(100, 3, 20)
    points = curves_of(scored)
    false, true, _ = reference.roc_curve(scored.labels, scored.scores, drop_intermediate=False)
    np.testing.assert_allclose(points["false_positive_rate"], false[1:])
    np.testing.assert_allclose(points["recall"], true[1:])
    precision, _, _ = reference.precision_recall_curve(scored.labels, scored.scores)
    np.testing.assert_allclose(points["precision"], precision[-2::-1])


def test_genomes_are_drawn_whole() -> None:
    # Ten genomes a class: half of them are always right and half of them always wrong.
    genomes = np.repeat(np.arange(20), 10)
    labels = np.repeat([1, 0], 100)
    right = np.repeat([True, False] * 10, 10)
    scored = Scored(labels, np.where(right == (labels == 1), 0.9, -0.1))
    found = resample(scored, genomes, 400, 0).measured
    assert found.values["accuracy"] == 0.5
    low, high = found.intervals["accuracy"] or (0.5, 0.5)
    rows = resample(scored, np.arange(200), 400, 0).measured
    narrow_low, narrow_high = rows.intervals["accuracy"] or (0.0, 1.0)
    assert low < narrow_low - 0.1 < 0.5 < narrow_high + 0.1 < high


@pytest.mark.parametrize(("host", "viral"), [(1, 1), (9, 30), (30, 9)])
def test_too_few_genomes_of_a_class_give_no_intervals(host: int, viral: int) -> None:
    genomes = np.arange(host + viral).repeat(4)
    labels = (genomes >= host).astype(np.int64)
    scored = Scored(labels, np.random.default_rng(0).normal(labels - 0.5))
    few = resample(scored, genomes, 50, 0)
    assert set(few.measured.intervals.values()) == {None}
    found = compare({"a": few, "b": few})
    assert set(found.differences["a", "b"].intervals.values()) == {None}
    enough = resample(scored, np.arange(len(genomes)), 50, 0)
    assert (enough.draws is None) == (4 * min(host, viral) < 10)


def test_models_are_compared_on_the_same_draws() -> None:
    first = drawn(300, 5)
    worse = Scored(first.labels, np.random.default_rng(0).permutation(first.margins))
    a, b, c = (resample(rows, np.arange(300) // 3, 200, 1) for rows in (first, first, worse))
    found = compare({"a": a, "b": b, "c": c})
    same, better = found.differences["a", "b"], found.differences["a", "c"]
    assert list(found.differences) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert same.values["auroc"] == 0
    assert same.intervals["auroc"] == (0, 0)
    assert better.intervals["auroc"] is not None
    assert better.intervals["auroc"][0] > 0
    alone = (resample(rows, np.arange(300) // 3, 200, 1) for rows in (first, worse))
    again = compare(dict(zip("ac", alone, strict=True)))
    assert again.differences["a", "c"] == better
