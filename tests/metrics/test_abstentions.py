"""An abstention never improves a metric of decisions; decisions are ranked by their own probability."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.uncertainty.resampled_metrics import RESAMPLERS
from ensemble_kit.metrics import METRICS, cost_metric
from ensemble_kit.metrics.costs import least_cost
from ensemble_kit.metrics.selective import ranked_decisions
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.predictions.method_predictions import Combined, decided

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 400)
PROBA = softmax(RNG.normal(size=(400, 4)) + 1.2 * np.eye(4)[LABELS])
CHOSEN = PROBA.argmax(axis=1)
ABSTAINING = np.where(CHOSEN == LABELS, CHOSEN, -1)  # abstains instead of every error
OF_DECISIONS = ["accuracy", "balanced_accuracy", "macro_f1", "macro_precision"]
OF_DECISIONS += ["macro_specificity", "mcc", "kappa"]
OF_PROBABILITIES = ["log_loss", "brier", "auroc", "average_precision", "calibration_slope"]


def test_abstentions_are_errors_and_lower_the_coverage() -> None:
    chosen = CHOSEN.copy()
    chosen[:100] = -1
    right = CHOSEN[100:] == LABELS[100:]
    assert METRICS["coverage"].of(LABELS, PROBA, chosen) == 0.75
    assert METRICS["accuracy"].of(LABELS, PROBA, chosen) == pytest.approx(right.sum() / 400)


def test_with_two_classes_an_abstention_is_the_wrong_class() -> None:
    labels, proba = LABELS % 2, PROBA[:, :2] / PROBA[:, :2].sum(axis=1, keepdims=True)
    chosen = proba.argmax(axis=1)
    chosen[:50] = -1
    wrong = np.where(chosen < 0, 1 - labels, chosen)
    a, b = (sums_of(labels, proba, one).confusion for one in (chosen, wrong))
    np.testing.assert_array_equal(a, b)


def test_an_abstention_is_divided_among_the_wrong_classes() -> None:
    confusion = sums_of([0, 1, 1], np.full((3, 3), 1 / 3), [0, -1, 1]).confusion
    assert confusion.tolist() == [[1.0, 0, 0], [0.5, 1.0, 0.5], [0, 0, 0]]


@pytest.mark.parametrize("name", OF_DECISIONS)
def test_abstentions_are_not_better_than_random_errors(name: str) -> None:
    sign = 1 if METRICS[name].higher_is_better else -1
    abstaining = METRICS[name].of(LABELS, PROBA, ABSTAINING)
    rng = np.random.default_rng(1)
    erring = []
    for _ in range(200):
        other = (LABELS + rng.integers(1, 4, 400)) % 4
        erring.append(METRICS[name].of(LABELS, PROBA, np.where(ABSTAINING < 0, other, ABSTAINING)))
    assert sign * abstaining <= sign * np.mean(erring) + 0.003
    assert sign * abstaining < sign * METRICS[name].of(LABELS, PROBA, LABELS)


def test_an_abstention_costs_what_a_wrong_class_costs_on_average() -> None:
    costs = cost_metric(np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 1.0], [5.0, 1.0, 0.0]]))
    proba = np.full((1, 3), 1 / 3)
    assert costs.of(np.array([0]), proba, np.array([-1])) == 3.0


@pytest.mark.parametrize("name", OF_PROBABILITIES)
def test_metrics_of_probabilities_do_not_depend_on_decisions(name: str) -> None:
    a, b = (METRICS[name].of(LABELS, PROBA, one) for one in (CHOSEN, ABSTAINING))
    assert a == b


def test_abstentions_on_tied_votes_are_calibrated() -> None:
    labels, proba = np.arange(100) % 2, np.full((100, 2), 0.5)
    assert METRICS["ece"].of(labels, proba, np.full(100, -1)) == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["ece", "ece_equal_mass", "calibration_error_debiased"])
def test_decisions_by_cost_of_calibrated_probabilities_are_calibrated(name: str) -> None:
    rng = np.random.default_rng(0)
    q = rng.uniform(size=20_000)
    labels = (rng.uniform(size=20_000) < q).astype(int)
    by_cost = least_cost(decided(np.stack([1 - q, q], axis=1)), np.array([[0, 1.0], [10, 0]]))
    assert METRICS[name].of(labels, by_cost.proba, by_cost.predicted) < 0.02


def test_aurc_ranks_decisions_by_their_own_probability_and_abstentions_last() -> None:
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]])
    right, sure = ranked_decisions(np.array([0, 1, 0]), proba, np.array([0, 1, -1]))
    assert (right.tolist(), sure.tolist()) == ([True, True, False], [0.9, 0.2, -1.0])
    found = METRICS["aurc"].of(np.array([0, 1, 0]), proba, np.array([0, 1, -1]))
    assert found == pytest.approx((0 + 0 + 1 / 3) / 3)


@pytest.mark.parametrize("n_groups", [20, 400])
def test_equal_weights_give_the_aurc_of_the_decisions(n_groups: int) -> None:
    groups = np.arange(400) % n_groups
    want = METRICS["aurc"].of(LABELS, PROBA, ABSTAINING)
    got = RESAMPLERS["aurc"](LABELS, PROBA, groups, ABSTAINING)(np.ones((1, n_groups)))[0]
    assert got == pytest.approx(want, abs=1e-6)
    assert want != pytest.approx(METRICS["aurc"].of_table(LABELS, PROBA), abs=1e-3)


def test_evaluation_uses_the_decisions() -> None:
    combined = Combined(PROBA, ABSTAINING, np.zeros(400, dtype=bool))
    names = ["aurc", "ece", "accuracy", "coverage"]
    found = score_methods({"it": combined}, LABELS, np.arange(400) % 40, 4, metrics=names)
    for name in names:
        want = METRICS[name].of(LABELS, PROBA, ABSTAINING)
        assert found["it"].values[name].value == pytest.approx(want)
