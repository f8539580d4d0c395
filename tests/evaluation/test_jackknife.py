"""Intervals and paired differences over whole groups: against plain t, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import ensemble_kit as ek
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.scores.per_image import paired_gains, score_methods
from ensemble_kit.evaluation.uncertainty import jackknife
from ensemble_kit.evaluation.uncertainty.jackknife import Design, Jackknife
from ensemble_kit.evaluation.uncertainty.t_intervals import gains
from ensemble_kit.metrics import METRICS, metric
from ensemble_kit.predictions.method_predictions import decided

NAMES = [name for name in METRICS if name not in ("expected_cost", "calibration_slope")]


def tables(n_groups: int = 12, n_classes: int = 3, seed: int = 0, skill: float = 1.0):
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(1 / 8, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    labels = groups % n_classes
    own = rng.normal(size=(n_groups, n_classes))[groups]
    logits = rng.normal(size=(len(groups), n_classes)) + own + skill * np.eye(n_classes)[labels]
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, proba, groups


def test_each_group_is_left_out_once_and_its_stratum_keeps_its_weight() -> None:
    one = Jackknife.of(np.array([0, 0, 0, 1, 1]), np.arange(5), 2)
    weights = np.concatenate(list(one.weights()))
    np.testing.assert_array_equal(one.block_strata, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(weights == 0, np.eye(5, dtype=bool))
    np.testing.assert_allclose(weights[:, :3].sum(axis=1), 3.0)
    np.testing.assert_allclose(weights[:, 3:].sum(axis=1), 2.0)


def test_the_variance_of_a_mean_of_equal_groups_is_the_usual_one() -> None:
    values = np.random.default_rng(0).normal(size=25)
    one = Jackknife.of(np.zeros(25, dtype=int), np.arange(25), 1)
    left_out = np.concatenate([w @ values / w.sum(axis=1) for w in one.weights()])
    variance, df = one.design(np.ones((25, 1))).variance(left_out[:, None])
    assert variance[0] == pytest.approx(values.var(ddof=1) / 25)
    assert df[0] == pytest.approx(25)  # 24, and one for the prior
    found = gains(
        np.array([values.mean()]), left_out[:, None], one.design(np.ones((25, 1))), level=0.95
    )
    half = stats.t.ppf(0.975, 25) * values.std(ddof=1) / 5
    assert found[0].effect.high - found[0].effect.value == pytest.approx(half)
    t = values.mean() / (values.std(ddof=1) / 5)
    assert found[0].p_value == pytest.approx(2 * stats.t.sf(abs(t), 25))


def test_groups_of_unequal_size_count_as_fewer() -> None:
    one = Jackknife.of(np.zeros(10, dtype=int), np.arange(10), 1)
    sizes = np.array([20.0] + [1.0] * 9)
    assert one.design(np.ones((10, 1))).n_effective == pytest.approx(10)
    assert one.design(sizes[:, None]).n_effective == pytest.approx(29**2 / 409)


def test_blocks_of_many_groups_have_the_variance_of_single_groups(monkeypatch) -> None:
    values = np.random.default_rng(4).exponential(size=800)
    found = []
    for limit in (250, 1000):
        monkeypatch.setattr(jackknife, "MAX_LEFT_OUT", limit)
        one = Jackknife.of(np.zeros(800, dtype=int), np.arange(800), 1)
        left_out = np.concatenate([w @ values / w.sum(axis=1) for w in one.weights()])
        found.append(one.design(np.ones((800, 1))).variance(left_out[:, None])[0][0])
    assert found[0] == pytest.approx(found[1], rel=0.15)


@pytest.mark.parametrize("n_groups", [4, 9])
@pytest.mark.parametrize("skill", [0.5, 60.0])
@pytest.mark.parametrize("name", NAMES)
def test_no_interval_has_zero_width(name: str, skill: float, n_groups: int) -> None:
    labels, proba, groups = tables(n_groups, 2, skill=skill)
    for table in (proba, np.eye(2)[labels], np.eye(2)[1 - labels], np.full_like(proba, 0.5)):
        one = score_methods({"m": decided(table)}, labels, groups, 2, metrics=[name])["m"].values[
            name
        ]
        if one.low is not None:
            assert one.low < one.high
            assert one.low <= one.value <= one.high
            low, high = METRICS[name].bounds(2)
            assert one.low >= low - 1e-9
            assert high is None or one.high <= high + 1e-9
        else:  # an unbounded metric that does not vary, or one that some group alone defines
            assert name in ("log_loss", "average_precision", "auroc", "kappa") or one.value is None


def test_one_error_moves_an_interval_little() -> None:
    groups, labels = np.arange(80) // 10, np.zeros(80, dtype=int)
    right = np.tile([0.9, 0.1], (80, 1))
    one_wrong = right.copy()
    one_wrong[0] = [0.1, 0.9]
    ends = [
        ek.metric_interval(labels, p, groups, metric="accuracy").low for p in (right, one_wrong)
    ]
    assert 0.5 < ends[0] < 0.8
    assert abs(ends[0] - ends[1]) < 0.16


def test_patients_that_agree_within_each_class_have_a_wide_interval() -> None:
    labels = np.array([0, 0, 1, 1, 1])  # one row per patient: class 0 all wrong, 1 all right
    found = ek.metric_interval(labels, np.tile([0.1, 0.9], (5, 1)), np.arange(5), metric="accuracy")
    assert found.value == 0.6
    assert found.low < 0.25
    assert found.high > 0.85


def test_an_interval_is_wilsons_where_all_groups_are_right() -> None:
    n = 30
    found = ek.metric_interval(
        np.zeros(n, dtype=int), np.tile([0.9, 0.1], (n, 1)), np.arange(n), metric="accuracy"
    )
    t = stats.t.ppf(0.975, n)
    assert (found.low, found.high) == pytest.approx((n / (n + t**2), 1.0))


def test_a_metric_that_lacks_a_class_without_one_group_has_no_interval() -> None:
    labels, groups = np.repeat([0, 1, 1, 1], 5), np.repeat(np.arange(4), 5)
    proba = np.random.default_rng(0).dirichlet([1, 1], 20)
    assert ek.metric_interval(labels, proba, groups).low is None
    assert ek.metric_interval(labels, proba, groups, metric="accuracy").low is not None


def test_intervals_do_not_depend_on_the_order_of_rows_or_groups() -> None:
    labels, proba, groups = tables()
    order = np.random.default_rng(1).permutation(len(labels))
    names = np.array([f"p{9 * g % 13}" for g in range(13)])
    for name in ("balanced_accuracy", "auroc", "log_loss"):
        one = ek.metric_interval(labels, proba, groups, metric=name)
        other = ek.metric_interval(labels[order], proba[order], names[groups[order]], metric=name)
        assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_simultaneous_intervals_contain_the_single_ones() -> None:
    labels, proba, groups = tables(30, 2)
    rng = np.random.default_rng(2)
    several = {f"m{i}": decided(rng.dirichlet([1, 1], len(labels))) for i in range(8)}
    scored = score_methods(
        {"base": decided(proba)} | several, labels, groups, 2, metrics=["accuracy"]
    )
    base = scored.pop("base")
    together = paired_gains(scored, base, metric("accuracy"))
    for name, one in scored.items():
        alone = paired_gains({name: one}, base, metric("accuracy"))[name]
        assert together[name].effect.low < alone.effect.low
        assert together[name].p_value >= alone.p_value
    twice = {"a": scored["m0"], "b": scored["m0"]}
    same = paired_gains(twice, base, metric("accuracy"))["a"]
    alone = paired_gains({"a": scored["m0"]}, base, metric("accuracy"))["a"]
    # A method that is listed twice changes the interval only by the error of the draws.
    assert same.effect.low == pytest.approx(alone.effect.low, rel=0.05)


def test_equal_predictions_have_no_interval_and_no_p_value() -> None:
    labels, proba, groups = tables()
    found = ek.compare_predictions(labels, proba, proba, groups)
    assert (found.value, found.low, found.p_value, found.verdict) == (0.0, None, None, "not shown")


def test_a_gain_that_is_the_same_in_every_group_has_an_interval() -> None:
    design = Design(np.zeros(10, int), np.array([0]), np.ones(1), *[np.full(1, 10.0)] * 3)
    one = gains(np.array([0.2]), np.full((10, 1), 0.2), design, level=0.95)[0]
    assert 0 < one.effect.low < 0.2 < one.effect.high


@pytest.mark.parametrize(
    ("name", "value"), [("labels", [0, 1, 2]), ("proba", [[0.5, 0.9]] * 3), ("groups", ["a"])]
)
def test_arrays_that_do_not_fit_are_refused(name: str, value) -> None:
    given = {"labels": [0, 1, 0], "proba": [[0.5, 0.5]] * 3, "groups": ["a", "b", "c"]}
    with pytest.raises(DataError):
        ek.metric_interval(**given | {name: value})


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "most"), [([5, 5], 0.065), ([7, 3], 0.065), ([10, 10], 0.07)])
def test_equally_good_methods_are_rarely_shown_to_differ(counts, most) -> None:
    rng, strata = np.random.default_rng(3), np.repeat([0, 1], counts)
    n_wrong, covered, n = 0, 0, 500
    for _ in range(n):
        groups = np.repeat(np.arange(len(strata)), rng.geometric(1 / 8, len(strata)))
        labels = strata[groups]
        shared = rng.normal(size=len(strata))[groups] + rng.normal(size=len(groups))
        proba = []
        for _ in range(2):
            own = rng.normal(size=len(strata))[groups] + rng.normal(size=len(groups))
            p = 1 / (1 + np.exp(-((2 * labels - 1) + shared * 0.6**0.5 + own * 0.4**0.5)))
            proba.append(np.stack([1 - p, p], axis=1))
        found = ek.compare_predictions(labels, *proba, groups)
        n_wrong += found.verdict != "not shown"
        one = ek.metric_interval(labels, proba[0], groups)
        covered += one.low <= 0.760 <= one.high
    assert n_wrong / n <= most
    assert covered / n >= 0.93
