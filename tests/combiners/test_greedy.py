"""Greedy selection against a slow, obvious implementation, and against AutoGluon where installed."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners.weights.greedy_losses import AnyLoss, ErrorRate, LogLoss
from ensemble_kit.combiners.weights.greedy_picks import pick
from ensemble_kit.combiners.weights.greedy_selection import GreedySelection
from ensemble_kit.combiners.weights.simplex import ClasswiseWeights, SimplexWeights, simplex_weights
from ensemble_kit.errors import UsageError
from ensemble_kit.metrics import METRICS
from ensemble_kit.testing import toy_logits, toy_predictions


def problem(n_samples: int = 700, n_members: int = 6, n_classes: int = 4):
    labels = np.random.default_rng(1).integers(0, n_classes, n_samples)
    proba = softmax(toy_logits(labels, n_members, n_classes, skill=1.0)).transpose(1, 0, 2)
    return np.ascontiguousarray(proba), labels


def test_log_loss_picks_and_losses_are_those_of_the_plain_formula() -> None:
    proba, labels = problem()
    rows = np.arange(len(labels))
    slow = pick(AnyLoss(proba, lambda p: float(-np.log(p[rows, labels]).mean())), 40)
    fast = pick(LogLoss(proba[:, rows, labels]), 40)
    assert fast.order == slow.order
    np.testing.assert_allclose(fast.losses, slow.losses, atol=1e-9)


@pytest.mark.parametrize("balanced", [False, True])
def test_pruning_by_margins_changes_no_pick(balanced: bool) -> None:
    proba, labels = problem()
    labels[:300] = labels[0]
    counts = np.bincount(labels)
    weights = (
        1.0 / counts[labels] / len(counts) if balanced else np.full(len(labels), 1 / len(labels))
    )
    slow = pick(AnyLoss(proba, lambda p: float(weights @ (p.argmax(axis=1) != labels))), 40)
    fast = pick(ErrorRate(proba, labels, weights if balanced else None), 40)
    assert fast.order == slow.order
    np.testing.assert_allclose(fast.losses, slow.losses, atol=1e-9)


@pytest.mark.parametrize("levels", [1, 4])
def test_ties_are_decided_as_in_the_mean(levels: int) -> None:
    proba, labels = problem(300)
    proba = np.round(proba * levels) / levels  # exact sums, with many ties
    slow = AnyLoss(proba, lambda p: float((p.argmax(axis=1) != labels).mean()))
    fast = ErrorRate(proba, labels)
    for pick_no in range(30):
        losses = fast.with_each()
        np.testing.assert_allclose(losses, slow.with_each(), atol=1e-12)
        member = int(losses.argmin()) if pick_no % 2 else pick_no % len(proba)
        fast.add(member)
        slow.add(member)


def test_confident_wrong_members_do_not_underflow_the_products() -> None:
    of_truth = np.full((3, 500), 1e-30)
    of_truth[2] = 0.5
    picks = pick(LogLoss(of_truth), 5)
    assert np.isfinite(picks.losses).all()
    assert picks.best_prefix().order == (2,)


def autogluons_loop(proba: np.ndarray, labels: np.ndarray, metric: str, size: int) -> list[int]:
    """The published loop of AutoGluon's EnsembleSelection, written out.

    Six decimals. Of tied members those that were used before; of several a draw by RandomState(0).
    """
    rows, mean, order, scores_then = np.arange(len(labels)), 0.0, [], []
    rng = np.random.RandomState(0)
    for s in range(size):
        mixed = [s / (s + 1) * mean + p / (s + 1) for p in proba]
        if metric == "log_loss":
            scores = [-np.log(m[rows, labels]).mean() for m in mixed]
        else:
            scores = [(m.argmax(axis=1) != labels).mean() for m in mixed]
        scores = np.round(scores, 6)
        best = np.flatnonzero(scores == scores.min()).tolist()
        best = [m for m in best if m in order] or best
        picked = int(rng.choice(best))
        order.append(picked)
        scores_then.append(scores[picked])
        mean = mixed[picked]
    return order[: int(np.argmin(scores_then)) + 1]


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
@pytest.mark.parametrize("n_members", [3, 8])
def test_picks_equal_the_loop_of_autogluon(metric: str, n_members: int) -> None:
    proba, labels = problem(2000, n_members, 4)
    of_truth = proba[:, np.arange(len(labels)), labels]
    loss = LogLoss(of_truth) if metric == "log_loss" else ErrorRate(proba, labels)
    want = autogluons_loop(proba.astype(np.float64), labels, metric, 40)
    assert list(pick(loss, 40).best_prefix().order) == want


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_picks_equal_those_of_autogluon(metric: str) -> None:
    pytest.importorskip("autogluon.core")
    from autogluon.core.metrics import accuracy, log_loss
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    proba, labels = problem(2000, 8, 4)
    theirs = EnsembleSelection(
        40, "multiclass", {"log_loss": log_loss, "accuracy": accuracy}[metric]
    )
    theirs.fit([p.copy() for p in proba], labels)
    loss = (
        LogLoss(proba[:, np.arange(len(labels)), labels])
        if metric == "log_loss"
        else ErrorRate(proba, labels)
    )
    assert list(pick(loss, 40).best_prefix().order) == [int(i) for i in theirs.indices_]


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "balanced_accuracy", "brier"])
def test_selection_leaves_noise_out(metric: str) -> None:
    table = toy_predictions(300, 4, 3)
    noise = np.random.default_rng(5).normal(size=(300, 1, 3)).astype(np.float32) * 3
    fitted = GreedySelection(metric=metric).fit(
        np.concatenate([table.logits, noise], axis=1), table.labels
    )
    assert fitted.weights_[-1] <= 0.05
    assert fitted.weights_.sum() == pytest.approx(1.0)


def test_bags_resample_whole_groups_and_max_members_is_respected() -> None:
    table = toy_predictions(300, 6, 3)
    fitted = GreedySelection(n_bags=5, max_members=2).fit(table.logits, table.labels, table.groups)
    assert (fitted.weights_ > 0).sum() == 2
    assert fitted.weights_.sum() == pytest.approx(1.0)


def test_simplex_weights_are_optimal_within_the_bound() -> None:
    proba, labels = problem()
    of_truth = proba[:, np.arange(len(labels)), labels].T
    weights, gap = simplex_weights(of_truth)
    best = np.log(of_truth @ weights).mean()
    assert gap <= 1e-7
    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(of_truth.shape[1]) * 0.5, 3000)
    assert (np.log(of_truth @ others.T).mean(axis=0) <= best + 1e-7).all()


def test_fitted_weights_are_better_than_the_mean_in_sample() -> None:
    table = toy_predictions(300, 5, 3)
    rows = np.arange(300)
    equal = -np.log(softmax(table.logits).mean(axis=1)[rows, table.labels]).mean()
    for combiner in (SimplexWeights(), ClasswiseWeights(ridge=1e-4)):
        proba = combiner.fit(table.logits, table.labels).predict_proba(table.logits)
        assert -np.log(proba[rows, table.labels]).mean() < equal


@pytest.mark.parametrize("metric", ["auroc", "macro_f1", "mcc", "quadratic_weighted_kappa", "ece"])
def test_picks_by_any_metric_equal_a_plain_loop(metric: str) -> None:
    table = toy_predictions(160, 4, 3)
    proba = softmax(table.logits).transpose(1, 0, 2)
    wanted = METRICS[metric]
    sign = -1 if wanted.higher_is_better else 1

    def loss(order: list[int]) -> float:
        mixed = proba[order].mean(axis=0)
        return round(sign * wanted.of(table.labels, mixed, mixed.argmax(axis=1)), 6)

    order: list[int] = []
    losses = []
    for _ in range(6):
        after = [loss([*order, m]) for m in range(4)]
        tied = [m for m in range(4) if after[m] == min(after)]
        order.append(([m for m in tied if m in order] or tied)[0])
        losses.append(min(after))
    best = order[: int(np.argmin(losses)) + 1]
    fitted = GreedySelection(metric=metric, n_picks=6).fit(table.logits, table.labels)
    np.testing.assert_allclose(fitted.weights_, np.bincount(best, minlength=4) / len(best))


def test_selection_by_cost_uses_the_costs_of_errors() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    false_alarms, misses = np.r_[[1] * 4, [0] * 6, [1] * 10], np.r_[[0] * 12, [1] * 8]
    logits = np.stack([4.0 * np.eye(2)[predicted] for predicted in (false_alarms, misses)], axis=1)
    costs = ((0.0, 1.0), (10.0, 0.0))
    by_cost = GreedySelection("expected_cost", n_picks=1, error_costs=costs).fit(logits, labels)
    assert by_cost.weights_.tolist() == [1.0, 0.0]
    plain = GreedySelection("accuracy", n_picks=1).fit(logits, labels)
    assert plain.weights_.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metric": "aurok"}, "Did you mean 'auroc'"),
        ({"metric": "expected_cost"}, "expected_cost"),
        ({"metric": "calibration_slope"}, "calibration_slope"),
        ({"n_bags": -1}, "n_bags=-1"),
        ({"n_picks": 0}, "n_picks=0"),
    ],
)
def test_invalid_options_of_selection_are_refused(options: dict, named: str) -> None:
    table = toy_predictions(60, 3, 3)
    with pytest.raises(UsageError, match=named):
        GreedySelection(**options).fit(table.logits, table.labels)
