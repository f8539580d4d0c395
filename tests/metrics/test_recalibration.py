"""The calibration slope: against scikit-learn, with and without a maximum."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ensemble_kit.arrays import log_softmax, softmax
from ensemble_kit.metrics import METRICS
from ensemble_kit.metrics.calibration import calibration_slope
from ensemble_kit.metrics.calibration_slope import recalibration


def toy(n_classes: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(0, n_classes, n)
    return labels, rng.normal(size=(n, n_classes)) + np.eye(n_classes)[labels]


@pytest.mark.parametrize("factor", [0.05, 1.0, 20.0])
def test_slope_of_two_classes_is_that_of_logistic_regression(factor: float) -> None:
    labels, z = toy(2)
    proba = np.maximum(softmax(factor * z), 1e-15)
    logit = np.log(proba[:, 1]) - np.log(proba[:, 0])
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    want = fit.fit(logit[:, None] / logit.std(), labels).coef_[0, 0] / logit.std()
    assert calibration_slope(labels, proba) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_slope_and_intercepts_maximise_the_likelihood(n_classes: int) -> None:
    labels, z = toy(n_classes)
    found = recalibration(labels, softmax(2 * z))

    def loss(parameters: np.ndarray) -> float:
        scores = parameters[0] * found.scores + np.append(0.0, parameters[1:])
        return -log_softmax(scores)[np.arange(len(labels)), labels].sum()

    least = loss(found.parameters)
    for i in range(n_classes):
        for nudge in (-1e-3, 1e-3):
            assert loss(found.parameters + nudge * np.eye(n_classes)[i]) > least


def test_a_shift_of_the_log_odds_does_not_change_the_slope() -> None:
    rng = np.random.default_rng(0)
    z = np.stack([np.zeros(20_000), rng.normal(size=20_000) * 2], axis=1)
    labels = (rng.random(20_000) < softmax(z)[:, 1]).astype(int)
    shifted = softmax(z + np.array([0.0, -2.0]))
    assert calibration_slope(labels, softmax(z)) == pytest.approx(1.0, abs=0.03)
    assert calibration_slope(labels, shifted) == pytest.approx(
        calibration_slope(labels, softmax(z))
    )


@pytest.mark.parametrize(
    ("labels", "proba"),
    [
        (np.arange(40) % 2, np.where(np.eye(2)[np.arange(40) % 2] > 0, 0.8, 0.2)),
        (np.arange(40) % 2, np.full((40, 2), 0.5)),
        (np.zeros(40, dtype=int), softmax(np.random.default_rng(0).normal(size=(40, 2)))),
    ],
    ids=["perfect separation", "no spread", "one class"],
)
def test_without_a_maximum_there_is_no_slope_and_no_interval(labels, proba) -> None:
    from ensemble_kit.evaluation.scores.per_image import score_methods
    from ensemble_kit.predictions.method_predictions import decided

    assert np.isnan(calibration_slope(labels, proba))
    found = score_methods(
        {"m": decided(proba)}, labels, np.arange(40) // 2, 2,
        metrics=["calibration_slope"],
    )["m"].values["calibration_slope"]  # fmt: skip
    assert (found.value, found.low) == (None, None)


def test_a_class_without_a_label_gives_its_probability_to_the_others() -> None:
    labels, z = toy(3)
    some = labels < 2
    proba = softmax(z[some])
    among = proba[:, :2] / proba[:, :2].sum(axis=1, keepdims=True)
    want = METRICS["calibration_slope"].of_table(labels[some], among)
    assert calibration_slope(labels[some], proba) == pytest.approx(want)
