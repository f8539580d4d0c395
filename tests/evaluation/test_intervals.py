"""Metrics that do not add up over rows, under group weights: against copies of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.evaluation.uncertainty import resampled_metrics as resamplers
from ensemble_kit.evaluation.uncertainty.bootstrap import group_weights
from ensemble_kit.evaluation.uncertainty.jackknife import strata_of
from ensemble_kit.evaluation.uncertainty.resampled_metrics import RESAMPLERS
from ensemble_kit.metrics import METRICS
from ensemble_kit.seeding import generator

NAMES = sorted(RESAMPLERS)


def table(n_groups: int, per_group: int, n_classes: int = 3, ties: bool = False):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_groups), per_group)
    labels = rng.integers(0, n_classes, len(groups))
    own = rng.normal(size=(n_groups, n_classes))[groups]
    proba = softmax(rng.normal(size=(len(groups), n_classes)) + own + np.eye(n_classes)[labels])
    if ties:
        proba = np.round(proba, 1) + 0.01
        proba = proba / proba.sum(axis=1, keepdims=True)
    return labels, proba, groups


def slow(name: str, labels, proba, groups, weights) -> np.ndarray:
    """The metric of copies of the rows, group by group."""
    out = []
    for row in weights:
        drawn = np.repeat(np.arange(len(row)), row.astype(int))
        rows = np.concatenate([np.flatnonzero(groups == g) for g in drawn])
        out.append(METRICS[name].of_table(labels[rows], proba[rows]))
    return np.array(out)


def drawn(labels, groups, n: int) -> np.ndarray:
    n_classes = int(labels.max()) + 1
    strata = strata_of(labels, groups, n_classes)
    return np.concatenate(list(group_weights(strata, n, generator(0, "test"))))


def test_every_metric_that_does_not_add_up_has_a_resampler() -> None:
    without = {name for name, one in METRICS.items() if one.of_table is not None} - set(NAMES)
    assert without == {"calibration_slope"}  # computed again without each group


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ties", [False, True])
def test_resamples_are_those_of_copied_rows(name: str, ties: bool) -> None:
    labels, proba, groups = table(20, 5, ties=ties)
    weights = drawn(labels, groups, 60)
    got = RESAMPLERS[name](labels, proba, groups)(weights)
    want = slow(name, labels, proba, groups, weights)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_thinned_levels_are_close_to_exact(name: str) -> None:
    labels, proba, groups = table(30, 60)
    weights = drawn(labels, groups, 40)
    got = RESAMPLERS[name](labels, proba, groups)(weights)
    np.testing.assert_allclose(got, slow(name, labels, proba, groups, weights), atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_many_groups_are_resampled_to_first_order(name: str) -> None:
    labels, proba, groups = table(600, 2)
    weights = drawn(labels, groups, 200)
    got = RESAMPLERS[name](labels, proba, groups)(weights)
    want = slow(name, labels, proba, groups, weights)
    assert np.corrcoef(got, want)[0, 1] > 0.99
    np.testing.assert_allclose(
        np.quantile(got, [0.025, 0.975]), np.quantile(want, [0.025, 0.975]), atol=0.1 * np.ptp(want)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_groups", [20, 400])
def test_equal_weights_give_the_metric_of_the_table(name: str, n_groups: int) -> None:
    labels, proba, groups = table(n_groups, 3)
    got = RESAMPLERS[name](labels, proba, groups)(np.ones((1, n_groups)))[0]
    assert got == pytest.approx(METRICS[name].of_table(labels, proba), abs=1e-9)


def test_a_resample_without_a_class_is_undefined() -> None:
    labels, proba, groups = np.array([0, 0, 1]), np.eye(2)[[0, 0, 1]] * 0.8 + 0.1, np.arange(3)
    weights = np.array([[3.0, 0, 0], [0, 0, 3.0], [1, 1, 1]])
    precision = resamplers.average_precision_resampler(labels, proba, groups)(weights)
    np.testing.assert_allclose(precision, [np.nan, 1.0, 1.0])  # of two classes, the second's


def test_precision_at_few_positives_among_many_is_exact() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(40), 100)
    labels = (rng.random(4000) < 0.02).astype(np.int64)
    p = rng.beta(1, 5, 4000) * 0.7 + 0.3 * labels * rng.random(4000)
    proba = np.stack([1 - p, p], axis=1)
    weights = drawn(labels, groups, 30)
    rare = resamplers._precision_resampler(labels == 1, p, groups, 40)(weights)
    want = [
        resamplers.average_precision(np.repeat(labels == 1, w), np.repeat(proba[:, 1], w))
        for w in weights.astype(int)[:, groups]
    ]
    np.testing.assert_allclose(rare, want, atol=1e-6)
