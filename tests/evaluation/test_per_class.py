"""Metrics of each class against the rest, compared with scikit-learn and with macro metrics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners import make_combiner
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_files import metrics_json
from ensemble_kit.evaluation.scores.per_class import CLASS_METRICS, metrics_per_class
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_predictions

QUICK = Protocol(n_resamples=60)


def mean_of(table: Predictions) -> Combined:
    return decided(softmax(table.logits.astype(np.float64)).mean(axis=1))


def test_each_class_has_the_metrics_that_scikit_learn_gives_it() -> None:
    table = toy_predictions(240, 3, 3)
    combined, labels = mean_of(table), np.asarray(table.labels)
    found = metrics_per_class({"mean": combined}, table, QUICK)["mean"]
    precision, recall, f1, n = precision_recall_fscore_support(labels, combined.predicted)
    for c, one in enumerate(found):
        is_class, is_called = labels == c, combined.predicted == c
        assert (one.n, one.n_groups) == (n[c], len(np.unique(table.groups[is_class])))
        want = {
            "sensitivity": recall[c],
            "specificity": (~is_class & ~is_called).sum() / (~is_class).sum(),
            "precision": precision[c],
            "f1": f1[c],
            "auroc": roc_auc_score(is_class, combined.proba[:, c]),
            "average_precision": average_precision_score(is_class, combined.proba[:, c]),
        }
        assert set(want) == set(CLASS_METRICS) == set(one.metrics)
        for key, value in want.items():
            assert one[key].value == pytest.approx(value), key
            assert one[key].low <= value <= one[key].high


def test_macro_metrics_are_the_means_over_classes() -> None:
    table = toy_predictions(240, 3, 4)
    combined = mean_of(table)
    of_class = metrics_per_class({"mean": combined}, table, QUICK)["mean"]
    whole = score_methods(
        {"mean": combined}, table.labels, table.groups, 4,
        metrics=["balanced_accuracy", "macro_specificity", "macro_f1", "auroc", "average_precision"],
        intervals=False,
    )["mean"].values  # fmt: skip
    for macro, key in {
        "balanced_accuracy": "sensitivity",
        "macro_specificity": "specificity",
        "macro_f1": "f1",
        "auroc": "auroc",
        "average_precision": "average_precision",
    }.items():
        mean = np.mean([one[key].value for one in of_class])
        assert mean == pytest.approx(whole[macro].value), macro


def test_with_two_classes_sensitivity_of_one_is_specificity_of_the_other() -> None:
    table = toy_predictions(160, 3, 2)
    combined = mean_of(table)
    first, second = metrics_per_class({"mean": combined}, table, QUICK)["mean"]
    whole = score_methods({"mean": combined}, table.labels, table.groups, 2, metrics=["auroc"])[
        "mean"
    ].values
    assert dataclasses.astuple(second["auroc"]) == pytest.approx(
        dataclasses.astuple(whole["auroc"])
    )
    for mine, theirs in (("sensitivity", "specificity"), ("specificity", "sensitivity")):
        one, other = dataclasses.astuple(first[mine]), dataclasses.astuple(second[theirs])
        assert one == pytest.approx(other)


def test_an_absent_class_has_no_metrics() -> None:
    table = toy_predictions(120, 2, 3)
    rest = table.take(np.asarray(table.labels) != 1)
    absent = metrics_per_class({"mean": mean_of(rest)}, rest, QUICK)["mean"][1]
    assert (absent.n, absent.n_groups) == (0, 0)
    assert absent["sensitivity"].value is None
    assert absent["auroc"].value is None
    assert absent["average_precision"].value is None
    assert 0 < absent["specificity"].value < 1


def test_intervals_over_many_groups_stay_between_0_and_1() -> None:
    labels = np.arange(600) % 2
    sure = np.where(np.arange(600) < 4, 0.4, 0.9)
    proba = np.where(np.eye(2)[labels] == 1, sure[:, None], 1 - sure[:, None])
    table = Predictions.from_arrays({"a": np.log(proba)}, labels)
    for one in metrics_per_class({"a": decided(proba)}, table, QUICK)["a"]:
        for key, interval in one.metrics.items():
            assert 0.0 <= interval.low <= interval.high <= 1.0, key


def test_metrics_json_has_every_class_cross_fitted_and_test() -> None:
    oof, test = toy_predictions(), toy_predictions(90, kind="test", seed=1, n_groups=9)
    evaluated = evaluate_all({"vote": make_combiner("vote")}, oof, test, protocol=QUICK)
    stored = metrics_json(evaluated["vote"], oof)
    for part, table in (("cross_fitted", oof), ("test", test)):
        block = stored[part]["per_class"]
        assert list(block) == list(table.class_names)
        for c, name in enumerate(table.class_names):
            assert block[name]["n"] == (np.asarray(table.labels) == c).sum()
            assert set(block[name]["sensitivity"]) == {"value", "low", "high"}
        mean = np.mean([one["sensitivity"]["value"] for one in block.values()])
        assert mean == pytest.approx(stored[part]["balanced_accuracy"]["value"])
    assert "per_class" not in stored["in_sample"]
    assert "per_class" not in metrics_json(evaluated["oracle"], oof)["test"]


def test_optimism_is_reported_between_all_three_values() -> None:
    oof, test = toy_predictions(), toy_predictions(90, kind="test", seed=1, n_groups=9)
    evaluated = evaluate_all({"boosting": make_combiner("boosting")}, oof, test,
                          protocol=Protocol(n_resamples=0, fallback=False))["boosting"]  # fmt: skip
    block = metrics_json(evaluated, oof)["differences"]
    for name in ("accuracy", "log_loss", "auroc"):
        inside, crossed, new = (part[name].value for part in evaluated.parts.values())
        assert block["in_sample_minus_cross_fitted"][name] == pytest.approx(inside - crossed)
        assert block["cross_fitted_minus_test"][name] == pytest.approx(crossed - new)
    assert block["in_sample_minus_cross_fitted"]["accuracy"] > 0
    alone = evaluate_all({"vote": make_combiner("vote")}, oof, protocol=Protocol(n_resamples=0))
    assert metrics_json(alone["vote"], oof)["differences"]["cross_fitted_minus_test"] is None
