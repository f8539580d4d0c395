"""Metrics per patient and baseline tests, as written by `stack`."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.evaluate import evaluate, evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_files import metrics_json
from ensemble_kit.evaluation.scores.baseline_tests import baseline_tests, sentence_of_tests
from ensemble_kit.evaluation.scores.per_group import pooled, score_groups
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.tables.leaderboard import leaderboard, per_group_table
from ensemble_kit.evaluation.uncertainty.hypothesis_tests import holm, mcnemar_exact
from ensemble_kit.metrics import metric
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_logits, toy_predictions

QUICK = Protocol(n_resamples=200)


def patients(n_groups: int = 30, per_group: int = 5) -> Predictions:
    """Two classes, one label per patient."""
    labels = np.repeat(np.arange(n_groups) % 2, per_group)
    table = toy_predictions(n_groups * per_group, 3, 2, n_groups=n_groups)
    return dataclasses.replace(
        table, labels=labels, logits=toy_logits(labels, 3, 2, skill=0.6), group_kind="patient"
    )


class Contrary(Combiner):
    """Predicts the opposite of the first member."""

    is_fitted_to_labels = True

    def _combine(self, logits) -> Combined:
        return decided(softmax(-5.0 * logits[:, 0]))


def test_with_one_image_a_patient_the_recognition_rate_is_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    combined = decided(softmax(rng.normal(size=(60, 2)) + 1.5 * np.eye(2)[labels]))
    names = np.array([f"p{i:02d}" for i in range(60)])
    one = score_groups({"m": combined}, labels, names, 2)["m"]
    image = score_methods({"m": combined}, labels, names, 2, metrics=["accuracy", "auroc"])["m"]
    wanted, rate = image.values["accuracy"], one.recognition_rate
    assert (rate.value, rate.low, rate.high) == pytest.approx(
        (wanted.value, wanted.low, wanted.high)
    )
    assert one.values["auroc"] == image.values["auroc"]


def test_tied_votes_of_a_patient_go_to_the_likelier_class_and_are_counted() -> None:
    proba = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.8, 0.2]])
    groups = ["a", "a", "b", "b"]
    found, _, _ = pooled(decided(proba), np.zeros(4, dtype=int), groups, "vote")
    assert found.predicted.tolist() == [0, 0]
    assert found.n_ties == 2
    turned, _, _ = pooled(decided(proba[:, ::-1]), np.zeros(4, dtype=int), groups, "vote")
    assert turned.predicted.tolist() == [1, 1]


def test_votes_of_a_patient_tie_in_any_order_of_the_images() -> None:
    shares = np.array(
        [[1 / 3, 2 / 3], [2 / 3, 1 / 3], [1, 0], [0, 1], [2 / 3, 1 / 3], [1 / 3, 2 / 3]]
    )
    for seed in range(20):
        proba = shares[np.random.default_rng(seed).permutation(6)]
        found, _, _ = pooled(decided(proba), np.zeros(6, dtype=int), ["a"] * 6)
        assert found.tied.all()
        assert found.proba.tolist() == [[0.5, 0.5]]


def test_metrics_per_patient_are_those_of_the_images_mean() -> None:
    table = patients()
    found = evaluate(MeanProba(), table, protocol=QUICK)
    proba, labels = found.oof_combined.proba, np.asarray(table.labels)
    mean = np.array([proba[table.groups == g].mean(axis=0) for g in np.unique(table.groups)])
    truth = np.array([labels[table.groups == g][0] for g in np.unique(table.groups)])
    rates = [
        (found.oof_combined.predicted == labels)[table.groups == g].mean()
        for g in np.unique(table.groups)
    ]
    whole = found.per_group["cross_fitted"]
    assert whole.n_groups == 30
    assert whole.recognition_rate.value == pytest.approx(np.mean(rates))
    assert whole.values["accuracy"].value == accuracy_score(truth, mean.argmax(axis=1))
    assert whole.values["auroc"].value == pytest.approx(roc_auc_score(truth, mean[:, 1]))
    assert whole.recognition_rate.low < np.mean(rates) < whole.recognition_rate.high


def test_patients_with_several_labels_have_a_recognition_rate_but_no_pooled_prediction() -> None:
    table = dataclasses.replace(toy_predictions(), group_kind="smear")
    found = evaluate_all({"vote": make_combiner("vote")}, table, protocol=QUICK)
    assert found["vote"].per_group["cross_fitted"].values is None
    rows = per_group_table(found, QUICK, "smear")
    assert rows[0] == ("per smear", "rate: cross-fitted")


def test_images_without_groups_have_no_table_per_patient() -> None:
    table = toy_predictions(n_groups=240)
    single = dataclasses.replace(table, group_kind="image")
    found = evaluate_all({"vote": make_combiner("vote")}, single, protocol=QUICK)
    assert per_group_table(found, QUICK, "image") == []
    assert "per_group" not in metrics_json(found["vote"], single)["cross_fitted"]


def test_metrics_json_has_metrics_per_patient_and_tests() -> None:
    table = patients()
    methods = {"vote": make_combiner("vote"), "trimmed": make_combiner("median")}
    found = evaluate_all(methods, table, protocol=QUICK)
    stored = json.loads(json.dumps(metrics_json(found["vote"], table), allow_nan=False))
    block = stored["cross_fitted"]["per_group"]
    assert (block["rule"], block["n_groups"]) == ("mean", 30)
    assert set(block["recognition_rate"]) == set(block["balanced_accuracy"])
    assert stored["tests"] == []  # images of one patient are not independent
    assert {v["n_compared"] for v in stored["verdicts"]} == {2}
    assert all(v["p_value"] is None or 0 <= v["p_value"] <= 1 for v in stored["verdicts"])
    assert stored["fell_back_to_mean"] is False


def test_p_values_are_holm_adjusted_over_the_methods() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)

    def predicted(share: float):
        right = rng.random(200) < share
        return decided(np.eye(2)[np.where(right, labels, 1 - labels)] * 0.8 + 0.1)

    methods = {"mean": predicted(0.6), "a": predicted(0.7), "b": predicted(0.75)}
    found = baseline_tests(methods, labels, baselines=["mean"], part="test")
    raw = [
        mcnemar_exact(methods[m].predicted == labels, methods["mean"].predicted == labels).p_value
        for m in ("a", "b")
    ]
    got = [t.p_adjusted for m in ("a", "b") for t in found[m] if t.test == "mcnemar"]
    np.testing.assert_allclose(got, holm(raw))
    assert "Holm-adjusted over 2 methods" in sentence_of_tests(found["a"], "test")


def test_a_replaced_method_has_a_star_in_its_row() -> None:
    table = toy_predictions(200, 3, 2, n_groups=20)
    found = evaluate_all({"nearest": Contrary()}, table, protocol=QUICK)
    assert found["nearest"].fell_back
    assert "nearest*" in [row[0] for row in leaderboard(found, QUICK)]


def test_a_slope_gives_no_verdict() -> None:
    with pytest.raises(UsageError, match="calibration_slope"):
        evaluate(MeanProba(), patients(), protocol=Protocol(metric="calibration_slope"))


def test_aurc_is_the_mean_error_over_all_coverages_in_any_order_of_equals() -> None:
    aurc = metric("aurc").of_table
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    proba = rng.dirichlet(np.ones(3), 60)
    order = np.argsort(-proba.max(axis=1))
    wrong = (proba.argmax(axis=1) != labels)[order]
    by_hand = np.mean([wrong[: k + 1].mean() for k in range(60)])
    assert aurc(labels, proba) == pytest.approx(by_hand)
    equal = np.array([[0.8, 0.2]] * 4)
    some = np.array([0, 0, 1, 1])
    assert aurc(some, equal) == pytest.approx(0.5)
    assert aurc(some[::-1].copy(), equal) == pytest.approx(0.5)
