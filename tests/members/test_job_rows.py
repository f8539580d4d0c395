"""The validation split of a job, and caveats about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ensemble_kit.folds import make_folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.collect import collect
from ensemble_kit.members.jobs.events import Event, Notice
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.predictions.store import MemberLogits


def with_benign(trained: Any, n_patients: int) -> Manifest:
    """The training part with `n_patients` of the class 'benign', and all patients of the other."""
    train: Manifest = trained.manifest.part("train")
    benign = train.labels == train.class_names.index("benign")
    names = np.unique(train.groups[benign])[:n_patients]
    return train.take(~benign | np.isin(train.groups, names))


def job_of(make_job: Callable[..., Job], manifest: Manifest, **recipe: Any) -> Job:
    folds = make_folds(manifest, 2)
    job = make_job(epochs=1, **recipe)
    return dataclasses.replace(job, manifest=manifest, folds=folds)


@pytest.mark.parametrize("n_patients", [4, 6])
def test_a_validation_split_has_both_classes_if_patients_allow(
    make_job: Callable[..., Job], trained: Any, n_patients: int
) -> None:
    # With 4 patients, each fold leaves 2: one for training and one for validation.
    parts = job_of(make_job, with_benign(trained, n_patients), select_on="inner").parts()
    assert set(parts.fit.validation_labels.tolist()) == {0, 1}
    assert set(parts.fit.train_labels.tolist()) == {0, 1}
    assert parts.lacks == ()


def test_a_validation_split_that_lacks_a_class_has_a_warning_and_a_caveat(
    make_job: Callable[..., Job], trained: Any
) -> None:
    job = job_of(make_job, with_benign(trained, 2), select_on="inner")
    events: list[Event] = []
    run_job(job, events.append)
    record = read_record(job.folder)
    assert record is not None
    (caveat,) = record["stamps"]
    assert "no image of class 'benign'" in caveat
    assert any(isinstance(e, Notice) and e.text.endswith(f"Caveat: {caveat}") for e in events)
    assert f"Caveat: {caveat}" in record["said"]
    collect(job)
    stored: MemberLogits = job.run.store.read("tiny_cnn")
    assert stored.about["stamps"] == [caveat]


def test_without_selection_there_is_no_caveat(make_job: Callable[..., Job], trained: Any) -> None:
    assert job_of(make_job, with_benign(trained, 2)).parts().lacks == ()
