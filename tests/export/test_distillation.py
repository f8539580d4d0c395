"""`export --distill` trains one network on the ensemble's out-of-fold predictions and compares both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.runs.method_predictions import stored_predictions
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.export.distillation import Student, student_member, train_student
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.run import Run

CLI = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def own(stacked: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return stacked.copied_to(tmp_path_factory.mktemp("distilled") / "run")


@pytest.fixture(scope="module")
def student(own: Any) -> Student:
    return train_student(own.run, "tiny_cnn:epochs=3:name=small", method="simplex", device="cpu")


def test_the_student_learns_out_of_fold_predictions_over_the_same_folds(
    own: Any, student: Student
) -> None:
    manifest = student.run.manifest()
    assert student.run.folds().digest == own.run.folds().digest
    learnt, oof = manifest.part("train"), stored_predictions(own.run, "simplex").oof
    order = [learnt.sample_ids.tolist().index(name) for name in oof.ids]
    np.testing.assert_allclose(learnt.soft_labels[order], oof.proba, atol=1e-8)
    assert sorted(student.run.store.read_index("small")["made_of"]["folds_done"]) == [0, 1, 2]
    member = student_member(own.run, student.teacher, "tiny_cnn:epochs=3:name=small")
    assert (member.image_size, member.recipe.epochs) == (16, 3)
    assert (member.recipe.learning_rate, member.recipe.batch_size) == (3e-3, 16)


def test_the_bundle_has_one_network_and_the_comparison_with_the_teacher(
    own: Any, student: Student, tmp_path: Path, test_paths: list[Path], ensemble: Ensemble
) -> None:
    done = export_bundle(student.run, tmp_path / "b", method="small", folds="best", student=student)
    about = done.distilled
    assert (about.n_networks_teacher, about.n_networks_student) == (6, 1)
    opened = load_ensemble(tmp_path / "b", device="cpu")
    on_test, oof = about.changes
    labels = own.run.predictions("test").labels
    for found, proba in (
        (on_test.after, opened.predict_proba(test_paths)),
        (on_test.before, ensemble.predict_proba(test_paths)),
    ):
        hits = proba.argmax(axis=1) == labels
        assert found == pytest.approx(np.mean([hits[labels == c].mean() for c in range(2)]))
    assert on_test.gain[0] == pytest.approx(on_test.after - on_test.before)
    assert (on_test.n_groups, oof.n_images) == (4, 64)
    weights = sum(t.numel() * t.element_size() for t in opened.members[0].by_fold[next(iter(opened.members[0].by_fold))].model.state_dict().values())  # fmt: skip
    assert about.bytes_student == weights < about.bytes_teacher
    assert 0 < about.seconds_student < about.seconds_teacher
    stored = json.loads((tmp_path / "b" / "bundle.json").read_text())["distilled"]
    assert stored["changes"][0]["gain"] == list(on_test.gain)
    assert "## Distillation" in opened.card
    assert any(note.startswith("small ") and "simplex" in note for note in opened.notes)


def test_the_command_continues_a_trained_student_and_prints_the_comparison(
    own: Any, student: Student, cli: CLI
) -> None:
    words = ("--method", "simplex", "--distill", "tiny_cnn:epochs=3:name=small", "--device", "cpu")
    code, printed = cli("export", own.run.path, "b", *words)
    assert code == 0, printed
    assert "3 of 3 jobs are already finished" in printed
    assert "1 network instead of 6" in printed
    assert load_ensemble("b", device="cpu").method == "small"


def test_several_networks_and_methods_that_are_not_stacked_are_refused(
    own: Any, student: Student, trained: Any
) -> None:
    with pytest.raises(UsageError, match="'small'"):
        student_member(own.run, student.teacher, "small")  # a group of networks
    with pytest.raises(UsageError, match="mean"):
        train_student(Run(trained.run.path), "tiny_cnn", device="cpu")  # nothing is stacked


def test_a_student_of_other_predictions_is_refused(
    own: Any, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensemble_kit.export import distillation

    real = distillation.soft_manifest
    monkeypatch.setattr(distillation, "soft_manifest", lambda run, _: real(run, "vote"))
    with pytest.raises(DataError, match="simplex-small"):
        train_student(own.run, "tiny_cnn:epochs=3:name=small", method="simplex", device="cpu")
