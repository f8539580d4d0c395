"""Intervals of figures that do not add up, and BCa ones: against slow resampling and scipy."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners.base import decided
from ensemble_kit.evaluation import resamplers, slope_resampler
from ensemble_kit.evaluation.bootstrap import (
    bca_interval,
    group_weights,
    left_out_weights,
    strata_of,
)
from ensemble_kit.evaluation.figures import judge
from ensemble_kit.evaluation.resamplers import RESAMPLERS
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
    """Copies of the rows, group by group, judged like any table."""
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


def test_every_figure_that_does_not_add_up_has_a_resampler() -> None:
    assert set(NAMES) == {name for name, one in METRICS.items() if one.of_table is not None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ties", [False, True])
def test_resamples_are_those_of_copied_rows(name: str, ties: bool) -> None:
    labels, proba, groups = table(20, 5, ties=ties)
    weights = drawn(labels, groups, 60)
    got = RESAMPLERS[name](labels, proba, groups)(weights)
    want = slow(name, labels, proba, groups, weights)
    if name == "calibration_slope":
        # A step from the table's own fit, which among 20 groups is not all of it.
        assert (got - want).std() < 0.2 * want.std()
        np.testing.assert_allclose(np.median(got), np.median(want), atol=0.01)
    else:
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_slopes_of_two_classes_among_fifty_patients_are_those_of_copied_rows() -> None:
    labels, proba, groups = table(50, 4, n_classes=2)
    weights = drawn(labels, groups, 60)
    got = RESAMPLERS["calibration_slope"](labels, proba, groups)(weights)
    want = slow("calibration_slope", labels, proba, groups, weights)
    assert (got - want).std() < 0.03 * want.std()


@pytest.mark.parametrize("name", NAMES)
def test_more_levels_than_are_kept_cost_next_to_nothing(name: str) -> None:
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
def test_the_table_itself_is_where_its_resamples_lie(name: str, n_groups: int) -> None:
    labels, proba, groups = table(n_groups, 3)
    got = RESAMPLERS[name](labels, proba, groups)(np.ones((1, n_groups)))[0]
    assert got == pytest.approx(METRICS[name].of_table(labels, proba), abs=1e-9)


def test_slopes_with_intercepts_that_follow_are_those_with_free_intercepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, proba, groups = table(210, 3, n_classes=6)
    weights = drawn(labels, groups, 60)
    free = RESAMPLERS["calibration_slope"](labels, proba, groups)(weights)
    monkeypatch.setattr(slope_resampler, "MAX_FREE_CLASSES", 0)
    got = RESAMPLERS["calibration_slope"](labels, proba, groups)(weights)
    assert (got - free).std() < 0.05 * free.std()


def test_slopes_of_many_classes_take_no_squared_classes_per_group() -> None:
    n_classes, n_groups = 120, 1200
    rng = np.random.default_rng(0)
    labels = np.arange(n_groups) % n_classes
    proba = softmax(rng.normal(size=(n_groups, n_classes)) + 3 * np.eye(n_classes)[labels])
    tracemalloc.start()
    slopes = RESAMPLERS["calibration_slope"](labels, proba, labels)(np.ones((2, n_classes)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert slopes[0] == pytest.approx(METRICS["calibration_slope"].of_table(labels, proba))
    assert peak < 8 * n_classes**3


def test_a_resample_without_a_class_is_no_crash() -> None:
    labels, proba, groups = np.array([0, 0, 1]), np.eye(2)[[0, 0, 1]] * 0.8 + 0.1, np.arange(3)
    weights = np.array([[3.0, 0, 0], [0, 0, 3.0], [1, 1, 1]])
    assert np.isnan(resamplers.slope_resampler(labels, proba, groups)(weights)).all()
    precision = resamplers.average_precision_resampler(labels, proba, groups)(weights)
    np.testing.assert_allclose(precision, [np.nan, 1.0, 1.0])  # of two classes, the second's
    mixed = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    assert np.isfinite(resamplers.slope_resampler(labels, mixed, groups)(weights[2:])).all()


def test_a_slope_that_rests_on_two_errors_has_no_wild_interval() -> None:
    rng = np.random.default_rng(4)
    n = rng.integers(210, 400)
    labels = rng.choice(3, n, p=[0.9, 0.08, 0.02])
    labels[:3] = range(3)
    proba = softmax(rng.normal(size=(n, 3)) + 4 * np.eye(3)[labels])
    assert (proba.argmax(axis=1) != labels).sum() == 2
    found = judge(
        {"m": decided(proba)}, labels, np.arange(n), 3,
        metrics=["calibration_slope"], n_resamples=500,
    )["m"].figures["calibration_slope"]  # fmt: skip
    assert 0 < found.low < found.value < found.high < 2 * found.value


@pytest.mark.parametrize("seed", range(8))
def test_intervals_of_a_rare_class_beyond_200_groups_stay_in_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = rng.integers(210, 400)
    labels = rng.choice(3, n, p=[0.9, 0.08, 0.02])
    labels[:3] = range(3)
    proba = softmax(rng.normal(size=(n, 3)) + 4 * np.eye(3)[labels])
    names = ["auroc", "average_precision", "aurc"]
    found = judge({"m": decided(proba)}, labels, np.arange(n), 3, metrics=names, n_resamples=500)
    for name in names:
        one = found["m"].figures[name]
        assert 0.0 <= one.low <= one.value <= one.high <= 1.0
        assert found["m"].resamples[name].max() <= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_all_figures_of_a_table_have_intervals_around_them(name: str) -> None:
    labels, proba, groups = table(25, 8)
    for interval in ("percentile", "bca"):
        found = judge(
            {"m": decided(proba)}, labels, groups, 3,
            metrics=list(METRICS_WITHOUT_COSTS), n_resamples=300, interval=interval,
        )["m"].figures  # fmt: skip
        one = found[name]
        assert one.low < one.value < one.high


METRICS_WITHOUT_COSTS = [name for name in METRICS if name != "expected_cost"]


# -- BCa ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", [np.mean, np.var, stats.skew])
def test_bca_is_scipys_on_the_same_resamples(statistic) -> None:
    rng = np.random.default_rng(1)
    sample = rng.exponential(size=40)
    theirs = stats.bootstrap(
        (sample,), statistic, method="BCa", n_resamples=2000, rng=rng, vectorized=True
    )
    left_out = np.array([statistic(np.delete(sample, i)) for i in range(40)])
    ours = bca_interval(float(statistic(sample)), theirs.bootstrap_distribution, left_out)
    np.testing.assert_allclose(ours, list(theirs.confidence_interval), rtol=1e-9)


def test_bca_of_strata_is_scipys_of_several_samples() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.exponential(size=12), rng.exponential(size=30)

    def ratio(x, y, axis=-1):
        return x.mean(axis=axis) / y.mean(axis=axis)

    theirs = stats.bootstrap((a, b), ratio, method="BCa", n_resamples=2000, rng=rng)
    left_out = [ratio(np.delete(a, i), b) for i in range(12)]
    left_out += [ratio(a, np.delete(b, i)) for i in range(30)]
    strata = np.repeat([0, 1], [12, 30])
    ours = bca_interval(
        float(ratio(a, b)), theirs.bootstrap_distribution, np.array(left_out), strata=strata
    )
    np.testing.assert_allclose(ours, list(theirs.confidence_interval), rtol=1e-9)


def test_bca_of_a_figure_is_scipys_on_images_without_groups() -> None:
    rng = np.random.default_rng(3)
    p = rng.beta(6, 1, 60)
    proba = np.stack([p, 1 - p], axis=1)
    labels = np.zeros(60, dtype=np.int64)
    ours = judge(
        {"m": decided(proba)}, labels, np.arange(60), 2,
        metrics=["log_loss"], n_resamples=20_000, interval="bca",
    )["m"].figures["log_loss"]  # fmt: skip
    theirs = stats.bootstrap(
        (-np.log(p),), np.mean, method="BCa", n_resamples=20_000, rng=rng
    ).confidence_interval
    plain = judge(
        {"m": decided(proba)}, labels, np.arange(60), 2, metrics=["log_loss"], n_resamples=20_000
    )["m"].figures["log_loss"]  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.002)
    assert abs(plain.high - theirs.high) > 0.004


def test_each_group_is_left_out_once_and_its_stratum_keeps_its_weight() -> None:
    strata = np.array([0, 0, 0, 1, 1])
    chunks, of = left_out_weights(strata)
    weights = np.concatenate(list(chunks))
    np.testing.assert_array_equal(of, strata)
    np.testing.assert_array_equal(weights == 0, np.eye(5, dtype=bool))
    np.testing.assert_allclose(weights[:, :3].sum(axis=1), 3.0)
    np.testing.assert_allclose(weights[:, 3:].sum(axis=1), 2.0)


def test_blocks_of_many_groups_accelerate_as_single_ones_do(monkeypatch) -> None:
    from ensemble_kit.evaluation import bootstrap

    values = np.random.default_rng(4).exponential(size=4000)
    found = []
    for limit in (1000, 10_000):
        monkeypatch.setattr(bootstrap, "MAX_LEFT_OUT", limit)
        chunks, of = left_out_weights(np.zeros(4000, dtype=np.int64))
        weights = np.concatenate(list(chunks))
        found.append(bootstrap._acceleration(weights @ values / weights.sum(axis=1), of))
    assert len(of) == 4000
    assert found[0] == pytest.approx(found[1], rel=0.35)


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
