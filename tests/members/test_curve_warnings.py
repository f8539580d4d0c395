"""Warnings about the curve of a finished training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ensemble_kit.files import read_csv
from ensemble_kit.members.jobs import run_job as run_job_module
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training import fit as fit_module
from ensemble_kit.members.training.curve_warnings import guard
from ensemble_kit.members.training.predict import validation_metrics


def printed(predictions: list[int], labels: list[int]) -> str:
    logits = np.eye(4, dtype=np.float32)[predictions]
    metrics = validation_metrics(logits, np.array(labels))
    return " ".join(guard([row(**metrics)], np.array(labels), Recipe()))


def row(**metrics: Any) -> dict[str, Any]:
    return {f"val_{name}": value for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("predictions", "labels", "words"),
    [
        ([1, 1, 1, 1], [0, 0, 1, 1], "one class"),
        ([2, 2, 2, 2], [0, 0, 1, 1], "one class"),
        # Balanced accuracy is exactly 1 / 2, with two predicted classes.
        ([0, 1, 0, 1], [0, 0, 1, 1], "balanced accuracy 0.500"),
        ([0, 1, 1, 0], [0, 0, 1, 1], "balanced accuracy 0.500"),
        ([0, 0, 1, 1], [0, 0, 1, 1], ""),
        ([0, 0, 0, 0], [0, 0, 0, 0], ""),
    ],
)
def test_warnings_about_the_selected_epoch(
    predictions: list[int], labels: list[int], words: str
) -> None:
    got = printed(predictions, labels)
    assert words in got
    assert ("one class" in got) == ("one class" in words)
    assert bool(got) == bool(words)


def test_a_history_without_the_class_count_is_evaluated_by_its_accuracy() -> None:
    old = row(log_loss=0.7, accuracy=0.5, balanced_accuracy=0.5)
    (text,) = guard([old], np.array([0, 1]), Recipe())
    assert "0.500" in text


@pytest.mark.parametrize(("chosen", "words"), [(0, ""), (1, "one class")])
def test_the_selected_epoch_is_evaluated(chosen: int, words: str) -> None:
    labels = np.array([0, 0, 1, 1])
    right, one_class = (
        row(**validation_metrics(np.eye(2, dtype=np.float32)[predictions], labels))
        for predictions in ([0, 0, 1, 1], [1, 1, 1, 1])
    )
    got = " ".join(guard([right, one_class], labels, Recipe(), chosen))
    assert words in got
    assert bool(got) == bool(words)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one-cycle"])
@pytest.mark.parametrize("n_epochs", [3, 4])
def test_a_best_last_epoch_is_a_warning_only_if_the_rate_stays_up(
    schedule: Any, n_epochs: int
) -> None:
    history = [row(log_loss=1 / (k + 1), balanced_accuracy=1.0) for k in range(n_epochs)]
    got = guard(history, np.array([0, 1]), Recipe(schedule=schedule))
    unfinished = n_epochs == 4 and schedule in {"constant", "step"}
    assert ["unfinished" in text for text in got] == [True] * unfinished


def test_a_job_evaluates_its_selected_epoch(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(run_job_module, "guard", lambda *given: seen.append(given[3]) or [])
    job = make_job(select_on="inner", epochs=4, learning_rate=0.05)
    run_job(job)
    record = read_record(job.folder)
    assert record is not None
    assert seen == [record["chosen_epoch"]]


@pytest.mark.parametrize(("predictions", "n"), [([1, 1, 1, 1], 1), ([0, 1, 2, 1], 3)])
def test_predicted_classes_are_counted(predictions: list[int], n: int) -> None:
    metrics = validation_metrics(np.eye(4, dtype=np.float32)[predictions], np.array([0, 0, 1, 1]))
    assert metrics["predicted_classes"] == n


def test_the_history_has_the_number_of_predicted_classes_of_each_epoch(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def spied(logits: Any, labels: Any) -> Any:
        seen.append(len(np.unique(logits.argmax(axis=1))))
        return validation_metrics(logits, labels)

    monkeypatch.setattr(fit_module, "validation_metrics", spied)
    job = make_job(epochs=2)
    run_job(job)
    counted = read_csv(job.folder / "history.csv")["val_predicted_classes"]
    assert [int(one) for one in counted] == seen
    assert len(seen) == 2
