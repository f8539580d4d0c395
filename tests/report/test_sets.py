"""Prediction sets on the page: measured where they were not calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.evaluation.decisions.conformal import calibrate
from ensemble_kit.predictions.method_predictions import MethodPredictions, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.report.sets import set_table


def answers(n: int, seed: int, *, uneven: bool = False) -> MethodPredictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    proba = softmax(rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels])
    patient = np.sqrt(np.arange(n)).astype(int) if uneven else np.arange(n) // 4
    groups = [f"p{i}" for i in patient]
    table = Predictions.from_arrays({"m": np.log(proba)}, labels, groups=groups)
    return MethodPredictions.of(decided(proba), table)


def test_coverage_is_that_of_the_test_under_cross_fitted_thresholds() -> None:
    inside, outside = answers(400, 0), answers(400, 1)
    table = set_table(
        {("mean", "cross-fitted"): inside, ("mean", "test"): outside}, ["mean"], by_group=True
    )
    sets = calibrate(inside.proba, inside.labels, miss=0.1, groups=inside.groups).predict(
        outside.proba
    )
    first = table.iloc[0]
    assert first["promised"] == pytest.approx(0.9)
    assert first["coverage"] == sets[np.arange(400), outside.labels].mean()
    assert 0.85 < first["coverage"] < 0.95
    assert not first["is_all"]


def test_a_method_without_test_answers_has_no_row() -> None:
    assert set_table({("mean", "cross-fitted"): answers(40, 0)}, ["mean"], by_group=True).empty


def test_coverage_is_measured_as_it_is_promised_each_patient_weighing_the_same() -> None:
    inside, outside = answers(400, 0), answers(400, 1, uneven=True)
    row = set_table(
        {("mean", "cross-fitted"): inside, ("mean", "test"): outside}, ["mean"], by_group=True
    ).iloc[0]
    sets = calibrate(inside.proba, inside.labels, miss=0.1, groups=inside.groups).predict(
        outside.proba
    )
    held = sets[np.arange(400), outside.labels]
    by_patient = [held[outside.groups == p].mean() for p in np.unique(outside.groups)]
    assert row["coverage"] == pytest.approx(np.mean(by_patient))
    assert row["low"] < row["coverage"] < row["high"]
