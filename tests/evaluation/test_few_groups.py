"""Over a handful of patients nothing is shown, however short the resampled intervals are."""

import numpy as np
import pytest

from ensemble_kit.combiners.base import Combined
from ensemble_kit.evaluation.costs import cheapest_sentence, pareto_table
from ensemble_kit.evaluation.figures import judge
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.verdict import Verdict, verdict
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
    judged = judge(tables, labels, groups, 2, metrics=["balanced_accuracy"], n_resamples=200)
    return verdict(
        "right", judged["right"], "guesser", judged["guesser"],
        metric_name="balanced_accuracy", part="test", group_kind="patient",
    )  # fmt: skip


def test_six_groups_with_three_of_each_class_can_show_a_difference() -> None:
    said = against_a_guesser([0, 0, 0, 1, 1, 1])
    assert said.word == "better"
    assert said.effect.value == pytest.approx(0.2)
    assert "Whatever" not in said.sentence


def test_five_groups_show_nothing_even_where_all_agree() -> None:
    said = against_a_guesser([0, 0, 1, 1, 1])
    assert said.word == "not shown"
    assert (said.effect.low, said.effect.high) == pytest.approx((0.2, 0.2))
    assert said.sentence.endswith(
        "Whatever the interval, 5 patients cannot show a difference at 95 %: that takes 6, and 3 "
        "with each class."
    )


def test_a_class_of_one_or_two_groups_shows_nothing() -> None:
    said = against_a_guesser([0, *[1] * 11])
    assert said.word == "not shown"
    assert "a class that only 1 of 12 patients has cannot show a difference" in said.sentence
    assert against_a_guesser([0, 0, *[1] * 10]).word == "not shown"
    assert against_a_guesser([0, 0, 0, *[1] * 9]).word == "better"


def test_no_cheapest_set_is_named_over_too_few_groups() -> None:
    labels = np.arange(50) % 2
    logits = {"a": np.eye(2)[labels], "b": np.eye(2)[1 - labels]}
    table = Predictions.from_arrays(
        logits, labels, fold=np.arange(50) // 10, groups=np.arange(50) // 10
    )
    found = pareto_table(table, {"a": 3.0, "b": 1.0}, protocol=Protocol(n_resamples=100))
    assert found.attrs["choice"] is None
    assert cheapest_sentence(found).startswith(
        "No cheapest set is named: 5 groups cannot show a difference at 95 %"
    )
