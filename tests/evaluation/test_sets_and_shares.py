"""Conformal coverage, contributions of members, and metrics per patient."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.decisions.conformal import calibrate
from ensemble_kit.evaluation.diversity.shapley import member_values
from ensemble_kit.evaluation.scores.per_group import pooled, score_groups
from ensemble_kit.predictions.method_predictions import decided


def coverage(sets: np.ndarray, labels: np.ndarray) -> float:
    return float(sets[np.arange(len(labels)), labels].mean())


def draw(n: int, rng: np.random.Generator, spread: float = 0.0, per_group: int = 1):
    labels = rng.integers(0, 4, n)
    noise = rng.normal(size=(n, 4)) + spread * np.repeat(
        rng.normal(size=(n // per_group, 4)), per_group, axis=0
    )
    return softmax(noise + 1.5 * np.eye(4)[labels]), labels


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("per_class", [False, True])
def test_sets_cover_exchangeable_data_at_the_guaranteed_rate(score: str, per_class: bool) -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        proba, labels = draw(200, rng)
        sets = calibrate(proba, labels, alpha=0.1, score=score, per_class=per_class)
        new, truth = draw(500, rng)
        found.append(coverage(sets.predict(new), truth))
    assert 0.89 <= np.mean(found) <= (0.94 if per_class else 0.92)


def test_patients_of_many_images_are_covered_when_each_patient_weighs_the_same() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        proba, labels = draw(600, rng, spread=2.0, per_group=20)
        sets = calibrate(proba, labels, alpha=0.1, groups=np.arange(600) // 20)
        new, truth = draw(1000, rng, spread=2.0, per_group=20)
        found.append(coverage(sets.predict(new), truth))
    assert 0.89 <= np.mean(found) <= 0.95


def test_with_too_few_rows_sets_contain_all_classes() -> None:
    assert (
        calibrate(np.array([[0.9, 0.1]] * 5), np.zeros(5, dtype=int), alpha=0.1)
        .predict(np.eye(2))
        .all()
    )


def test_shapley_values_are_the_mean_over_all_orders_and_sum_to_the_gain() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    proba = softmax(rng.normal(size=(50, 4, 3)) + np.eye(3)[labels][:, None])

    def value(mixed: np.ndarray) -> float:
        return float(np.log(mixed[np.arange(50), labels]).mean())

    found = member_values(proba, value, empty=np.log(1 / 3))
    slow = np.zeros(4)
    for order in permutations(range(4)):
        before = np.log(1 / 3)
        for i, m in enumerate(order):
            after = value(proba[:, list(order[: i + 1])].mean(axis=1))
            slow[m] += (after - before) / 24
            before = after
    np.testing.assert_allclose(found["shapley"], slow)
    assert found["shapley"].sum() == pytest.approx(value(proba.mean(axis=1)) - np.log(1 / 3))


def test_recognition_rate_weighs_patients_and_not_images() -> None:
    one = decided(np.eye(2)[[1] * 9 + [0]])
    found = score_groups({"m": one}, np.ones(10, dtype=int), ["a"] * 9 + ["b"], 2)["m"]
    assert found.recognition_rate.value == 0.5


def test_groups_are_pooled_by_mean_vote_or_maximum() -> None:
    one = decided(np.array([[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]]))
    labels = np.ones(3, dtype=int)
    got = {rule: pooled(one, labels, ["p"] * 3, rule)[0] for rule in ("mean", "vote", "max")}
    np.testing.assert_allclose(got["mean"].proba, [[0.4, 0.6]])
    np.testing.assert_allclose(got["vote"].proba, [[2 / 3, 1 / 3]])
    np.testing.assert_allclose(got["max"].proba, [[0.375, 0.625]])
    with pytest.raises(DataError, match=r"1 group .*: p"):
        pooled(one, np.array([0, 1, 1]), ["p"] * 3)
