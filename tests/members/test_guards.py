"""What a finished training's curve is said to show, and that it is only said where it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ensemble_kit.files import read_csv
from ensemble_kit.members.guards import guard
from ensemble_kit.members.job import Job
from ensemble_kit.members.predict import watched_figures
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.run_job import run_job


def said(answers: list[int], labels: list[int]) -> str:
    logits = np.eye(4, dtype=np.float32)[answers]
    figures = watched_figures(logits, np.array(labels))
    return " ".join(guard([row(**figures)], np.array(labels), Recipe()))


def row(**figures: Any) -> dict[str, Any]:
    return {f"val_{name}": value for name, value in figures.items()}


@pytest.mark.parametrize(
    ("answers", "labels", "words"),
    [
        ([1, 1, 1, 1], [0, 0, 1, 1], "every watched image one class"),
        ([2, 2, 2, 2], [0, 0, 1, 1], "every watched image one class"),
        # Balanced accuracy is exactly 1 / 2, of two classes that are both answered.
        ([0, 1, 0, 1], [0, 0, 1, 1], "at chance on the watched rows (balanced accuracy 0.500"),
        ([0, 1, 1, 0], [0, 0, 1, 1], "at chance"),
        ([0, 0, 1, 1], [0, 0, 1, 1], ""),
        ([0, 0, 0, 0], [0, 0, 0, 0], ""),
    ],
)
def test_one_class_is_said_only_where_one_class_was_answered(
    answers: list[int], labels: list[int], words: str
) -> None:
    got = said(answers, labels)
    assert words in got
    assert ("one class" in got) == ("one class" in words)
    assert bool(got) == bool(words)


def test_an_epoch_without_that_column_is_judged_by_its_accuracy_alone() -> None:
    old = row(log_loss=0.7, accuracy=0.5, balanced_accuracy=0.5)
    (text,) = guard([old], np.array([0, 1]), Recipe())
    assert "at chance" in text


def test_the_history_counts_the_classes_that_are_answered(
    make_job: Callable[..., Job],
) -> None:
    job = make_job(epochs=2)
    run_job(job)
    counted = read_csv(job.folder / "history.csv")["val_answered_classes"]
    assert set(counted) <= {"1", "2"}
    assert len(counted) == 2
