"""Where all are right, or none, intervals are Wilson's: resamples do not differ there."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.combiners.averaging import MeanProba
from ensemble_kit.combiners.base import decided
from ensemble_kit.evaluation.bootstrap import Interval
from ensemble_kit.evaluation.by_group import judge_groups
from ensemble_kit.evaluation.compare import field_notes
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.figures import judge
from ensemble_kit.evaluation.leaderboard import leaderboard
from ensemble_kit.evaluation.per_class import figures_per_class
from ensemble_kit.evaluation.proportions import wilson_if_flat
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.significance import wilson_interval
from ensemble_kit.predictions.table import Predictions

LABELS = np.arange(8) % 2
RIGHT = decided(np.eye(2)[LABELS] * 0.8 + 0.1)
WRONG = decided(np.eye(2)[1 - LABELS] * 0.8 + 0.1)
NAMES = ["accuracy", "balanced_accuracy"]
QUICK = Protocol(n_resamples=100)


def figures(groups: np.ndarray, interval: str = "percentile") -> dict:
    return judge(
        {"right": RIGHT, "wrong": WRONG}, LABELS, groups, 2,
        metrics=NAMES, n_resamples=100, interval=interval,
    )  # fmt: skip


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_eight_of_eight_images_have_wilsons_interval(interval: str) -> None:
    found = figures(np.arange(8), interval)
    low, high = wilson_interval(8, 8)
    assert found["right"].figures["accuracy"] == Interval(1.0, low, high)
    assert found["wrong"].figures["accuracy"] == Interval(0.0, 0.0, 1.0 - low)


def test_images_of_a_patient_are_no_trials_of_their_own() -> None:
    found = figures(np.array([0, 1, 0, 1, 2, 3, 2, 3]))
    assert found["right"].figures["accuracy"].low == wilson_interval(4, 4)[0]


def test_a_mean_over_classes_has_the_classes_intervals_put_together_by_squares() -> None:
    width = 1.0 - wilson_interval(4, 4)[0]
    found = figures(np.arange(8))["right"].figures["balanced_accuracy"]
    assert found.low == pytest.approx(1.0 - np.sqrt(2 * width**2) / 2)
    assert found.low < wilson_interval(8, 8)[0]
    one = wilson_if_flat(Interval(1.0, 1.0, 1.0), np.array([4, 0]), 0.95)
    assert one.low == pytest.approx(1.0 - width)


def test_what_varies_keeps_its_bootstrap_interval() -> None:
    some = decided(np.where(np.arange(8)[:, None] == 0, WRONG.proba, RIGHT.proba))
    found = judge({"m": some}, LABELS, np.arange(8), 2, metrics=NAMES, n_resamples=100)["m"]
    want = np.quantile(found.resamples["accuracy"], [0.025, 0.975])
    assert found.figures["accuracy"] == Interval(0.875, *want)


def test_without_resamples_there_is_no_wilson_either() -> None:
    found = judge({"m": RIGHT}, LABELS, np.arange(8), 2, metrics=NAMES, n_resamples=0)["m"]
    assert found.figures["accuracy"] == Interval(1.0)


def test_rates_of_patients_have_it_over_patients() -> None:
    patients = np.array([0, 1, 0, 1, 2, 3, 2, 3])
    found = judge_groups({"m": RIGHT}, LABELS, patients, 2, n_resamples=100)["m"]
    assert found.recognition_rate.low == wilson_interval(4, 4)[0]
    assert found.figures is not None
    assert found.figures["accuracy"].low == wilson_interval(4, 4)[0]


def test_a_class_has_it_over_the_groups_that_count_in_its_figure() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    table = Predictions.from_arrays({"a": np.eye(2)[labels]}, labels)
    first = figures_per_class({"a": decided(np.eye(2)[labels])}, table, QUICK)["a"][0]
    assert first["sensitivity"].low == wilson_interval(3, 3)[0]
    assert first["precision"].low == wilson_interval(3, 3)[0]
    assert first["specificity"].low == wilson_interval(5, 5)[0]


@pytest.mark.parametrize(("groups", "unit"), [(None, "images"), (np.arange(40) // 2, "groups")])
def test_the_table_shows_it_and_a_note_says_over_what(groups, unit: str) -> None:
    labels = np.arange(40) % 2 if groups is None else np.arange(40) // 2 % 2
    logits = {m: 3 * np.eye(2)[labels] for m in "abc"}
    oof = Predictions.from_arrays(logits, labels, groups=groups, fold=np.arange(40) // 10)
    judged = evaluate_all({"mean": MeanProba()}, oof, protocol=QUICK)
    row = next(row for row in leaderboard(judged, QUICK) if row[0] == "mean")
    low = judged["mean"].cross_fitted["balanced_accuracy"].low
    assert row[2] == f"1.00 [.{1000 * low:.0f}, 1.00]"
    said = [note for note in field_notes(judged) if "Wilson's" in note]
    assert len(said) == 1
    assert said[0].endswith(f"over {unit}.")


def test_no_note_where_nobody_is_always_right() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    logits = {m: rng.normal(size=(40, 2)) for m in "ab"}
    oof = Predictions.from_arrays(logits, labels, fold=np.arange(40) // 10)
    judged = evaluate_all({"mean": MeanProba()}, oof, protocol=QUICK)
    del judged["oracle"]
    assert not any("Wilson" in note for note in field_notes(judged))
