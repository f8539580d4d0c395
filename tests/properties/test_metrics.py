"""Properties of the metrics, the intervals and the bootstrap, on generated tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ensemble_kit.evaluation.diversity.shapley import left_out, shapley
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.uncertainty.bootstrap import resampling
from ensemble_kit.metrics import METRICS, ORDINAL_METRICS
from ensemble_kit.metrics.diversity import ambiguity, pairwise
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.predictions.method_predictions import Combined

FEW = settings(max_examples=40, deadline=None)
# An iterative fit, and a metric that needs costs by class name.
NEEDS_MORE = {"calibration_slope", "expected_cost"}
# Ordinal metrics are equal for the reversed order only.
NOMINAL = sorted(set(METRICS) - set(ORDINAL_METRICS) - NEEDS_MORE)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of at least two classes, and probabilities without ties."""
    n_classes = draw(st.integers(2, 4))
    labels = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=6, max_size=30)))
    assume(len(np.unique(labels)) > 1)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return labels, rng.dirichlet(np.ones(n_classes), len(labels))


def metric_value(name: str, labels: np.ndarray, proba: np.ndarray) -> float:
    one = METRICS[name]
    if one.of_table is not None:
        return float(one.of_table(labels, proba))
    assert one.of_sums is not None
    return float(one.of_sums(sums_of(labels, proba)))


@pytest.mark.parametrize("name", NOMINAL)
@FEW
@given(table=tables(), seed=st.integers(0, 99))
def test_a_metric_does_not_depend_on_the_names_of_classes(name: str, table, seed: int) -> None:
    labels, proba = table
    assume(
        proba.shape[1] > 2 or name != "average_precision"
    )  # with two classes, it is computed for the second
    order = np.random.default_rng(seed).permutation(proba.shape[1])
    renamed = np.argsort(order)[labels]
    a, b = metric_value(name, labels, proba), metric_value(name, renamed, proba[:, order])
    assert b == pytest.approx(a, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", ORDINAL_METRICS)
@FEW
@given(table=tables())
def test_an_ordinal_metric_is_equal_for_the_reversed_order(name: str, table) -> None:
    labels, proba = table
    last = proba.shape[1] - 1
    a, b = metric_value(name, labels, proba), metric_value(name, last - labels, proba[:, ::-1])
    assert b == pytest.approx(a, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", sorted(set(METRICS) - NEEDS_MORE))
@FEW
@given(table=tables(), seed=st.integers(0, 99))
def test_a_metric_does_not_depend_on_the_order_of_samples(name: str, table, seed: int) -> None:
    labels, proba = table
    rows = np.random.default_rng(seed).permutation(len(labels))
    a, b = metric_value(name, labels, proba), metric_value(name, labels[rows], proba[rows])
    assert b == pytest.approx(a, abs=1e-9, nan_ok=True)


@FEW
@given(table=tables(), right=st.booleans(), n_groups=st.integers(2, 6), seed=st.integers(0, 99))
def test_all_right_or_all_wrong_has_an_interval(
    table, right: bool, n_groups: int, seed: int
) -> None:
    labels, proba = table
    n_classes = proba.shape[1]
    predicted = labels if right else (labels + 1) % n_classes
    combined = Combined(np.eye(n_classes)[predicted], predicted, np.zeros(len(labels), dtype=bool))
    groups = np.random.default_rng(seed).integers(0, n_groups, len(labels))
    assume(len(np.unique(groups)) > 1)
    one = score_methods({"it": combined}, labels, groups, n_classes, metrics=["accuracy"])["it"]
    assert set(one.left_out["accuracy"].tolist()) == {float(right)}
    found = one.values["accuracy"]
    assert found.low < found.high
    assert (found.high if right else found.low) == float(right)


@FEW
@given(table=tables(), n_groups=st.integers(2, 8), seed=st.integers(0, 99))
def test_a_resample_draws_as_many_groups_as_there_are(table, n_groups: int, seed: int) -> None:
    labels, proba = table
    groups = np.arange(len(labels)) % n_groups
    n_drawn = int(groups.max()) + 1
    for weights in resampling(labels, groups, proba.shape[1], 20, seed):
        assert (weights.sum(axis=1) == n_drawn).all()
        assert (weights >= 0).all()


@FEW
@given(right=st.integers(1, 5), seed=st.integers(0, 999), n=st.integers(2, 40))
def test_pairs_of_errors_are_symmetric_and_within_bounds(right: int, seed: int, n: int) -> None:
    hits = np.random.default_rng(seed).random((n, right + 1)) < right / 6
    found = pairwise(hits)
    for matrix in found.values():
        np.testing.assert_allclose(matrix, matrix.T, equal_nan=True)
        assert (np.abs(matrix[np.isfinite(matrix)]) <= 1 + 1e-9).all()
    errors = 1 - hits.mean(axis=0)
    either = found["disagreement"] / 2 + found["double_fault"]
    np.testing.assert_allclose(either, (errors[:, None] + errors[None]) / 2, atol=1e-12)


@FEW
@given(table=tables(), n_members=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_brier_score_of_the_mean_is_that_of_the_members_minus_ambiguity(
    table, n_members, seed
) -> None:
    labels, proba = table
    rng = np.random.default_rng(seed)
    members = rng.dirichlet(np.ones(proba.shape[1]), (len(labels), n_members))
    parts = ambiguity(members, labels)
    assert parts["ensemble"] == pytest.approx(parts["members"] - parts["ambiguity"])
    assert parts["ambiguity"] >= -1e-12


@FEW
@given(n_members=st.integers(1, 5), seed=st.integers(0, 999))
def test_shapley_values_sum_to_the_gain_and_are_0_for_idle_members(n_members, seed) -> None:
    worth = np.random.default_rng(seed).normal(size=1 << n_members)
    values = shapley(worth, n_members)
    assert values.sum() == pytest.approx(worth[-1] - worth[0])
    with_idle = np.concatenate([worth, worth])
    assert shapley(with_idle, n_members + 1)[-1] == pytest.approx(0.0)
    assert left_out(with_idle, n_members + 1)[-1] == 0.0
