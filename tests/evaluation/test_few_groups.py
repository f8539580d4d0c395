"""With few patients no difference is shown, even if intervals are short."""

import numpy as np
import pytest

from ensemble_kit.evaluation.diversity.pareto import pareto_table
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.scores.verdict import Verdict, verdict
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions


def against_a_guesser(labels_of_groups: list[int], n_images: int = 10) -> Verdict:
    """A method that is always right against one that errs twice in every group."""
    labels = np.repeat(labels_of_groups, n_images)
    groups = np.repeat(np.arange(len(labels_of_groups)), n_images)
    wrong = np.where(np.arange(len(labels)) % n_images < 2, 1 - labels, labels)
    tables = {
        name: Combined(np.eye(2)[predicted], predicted, np.zeros(len(labels), dtype=bool))
        for name, predicted in (("right", labels), ("guesser", wrong))
    }
    scored = score_methods(tables, labels, groups, 2, metrics=["balanced_accuracy"])
    return verdict(
        "right", scored["right"], "guesser", scored["guesser"],
        metric_name="balanced_accuracy", part="test", group_kind="patient",
    )  # fmt: skip


def test_six_groups_with_three_of_each_class_can_show_a_difference() -> None:
    outcome = against_a_guesser([0, 0, 0, 1, 1, 1])
    assert outcome.word == "better"
    assert outcome.effect.value == pytest.approx(0.2)
    assert outcome.p_value < 0.05


def test_five_groups_cannot_show_a_difference() -> None:
    outcome = against_a_guesser([0, 0, 1, 1, 1])
    assert outcome.word == "not shown"
    assert outcome.p_value is None
    assert outcome.effect.low < 0.2 < outcome.effect.high


def test_methods_that_differ_in_five_of_many_groups_are_not_shown_to_differ() -> None:
    labels, groups = np.repeat(np.arange(40) % 2, 4), np.repeat(np.arange(40), 4)
    wrong = np.where(groups < 5, 1 - labels, labels)
    tables = {
        name: Combined(np.eye(2)[predicted], predicted, np.zeros(len(labels), dtype=bool))
        for name, predicted in (("right", labels), ("other", wrong))
    }
    scored = score_methods(tables, labels, groups, 2, metrics=["accuracy"])
    outcome = verdict(
        "right", scored["right"], "other", scored["other"], metric_name="accuracy", part="test"
    )
    assert outcome.word == "not shown"


def test_a_class_of_one_group_has_no_interval_and_no_verdict() -> None:
    outcome = against_a_guesser([0, *[1] * 11])
    assert outcome.word == "not shown"
    assert outcome.effect.low is None


def test_a_cheaper_set_over_few_groups_is_not_shown_to_be_within_the_margin() -> None:
    labels = np.arange(50) % 2
    logits = {"a": np.eye(2)[labels], "b": np.eye(2)[1 - labels]}
    table = Predictions.from_arrays(
        logits, labels, fold=np.arange(50) // 10, groups=np.arange(50) // 10
    )
    found = pareto_table(table, {"a": 3.0, "b": 1.0}, protocol=Protocol(n_resamples=100))
    assert found.attrs["choice"] == "a"
    assert not found.set_index("members").loc["b", "within_margin"]
