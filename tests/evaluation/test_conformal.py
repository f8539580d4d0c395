"""Prediction sets: guaranteed and measured coverage, calibration rows, and errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble_kit.arrays import softmax
from ensemble_kit.cli import app
from ensemble_kit.errors import DataError, IntegrityError, UsageError
from ensemble_kit.evaluation.decisions.conformal import (
    calibrate,
    cross_conformal,
    cross_fitted_sets,
    nonconformity,
    units_needed,
)
from ensemble_kit.evaluation.decisions.set_coverage import SetOptions, sets_frame
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.method_predictions import predictions_by_fold, stored_predictions
from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.files import read_csv, write_csv
from ensemble_kit.predictions.method_predictions import MethodPredictions, decided
from ensemble_kit.testing import toy_predictions, toy_run

QUICK = SetOptions(n_resamples=100)


def draw(n_groups: int, rng: np.random.Generator, sizes=(1, 2, 30), spread: float = 1.5):
    """Patients of very different numbers of images, whose images share their difficulty."""
    size = rng.choice(sizes, n_groups)
    groups = np.repeat(np.arange(n_groups), size)
    labels = rng.integers(0, 3, len(groups))
    shared = spread * rng.normal(size=(n_groups, 3))[groups]
    return (
        softmax(rng.normal(size=(len(groups), 3)) + shared + 2 * np.eye(3)[labels]),
        labels,
        groups,
    )


def one_image_each(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(len(groups))
    return order[np.unique(groups[order], return_index=True)[1]]


def covered(sets: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return sets[np.arange(len(labels)), labels]


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("per_class", [False, True])
def test_a_random_image_of_a_new_patient_is_covered_at_the_guaranteed_rate(
    score: str, per_class: bool
) -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(250):
        proba, labels, groups = draw(60, rng)
        fitted = calibrate(
            proba, labels, alpha=0.2, score=score, groups=groups, per_class=per_class
        )
        new, truth, of = draw(60, rng)
        rows = one_image_each(of, rng)
        found.append(covered(fitted.predict(new[rows]), truth[rows]).mean())
    assert 0.79 <= np.mean(found) <= (0.87 if per_class else 0.83)


def test_equal_weights_of_images_lose_the_coverage_of_patients() -> None:
    rng, by_image, by_patient = np.random.default_rng(0), [], []
    for _ in range(80):
        size = rng.choice((1, 40), 40, p=(0.7, 0.3))
        groups = np.repeat(np.arange(40), size)
        labels = rng.integers(0, 3, len(groups))
        skill = np.where(size == 1, 0.3, 4.0)[groups][:, None]
        proba = softmax(rng.normal(size=(len(groups), 3)) + skill * np.eye(3)[labels])
        rows = rng.permutation(40) < 20
        mine = rows[groups]
        for units, into in ((None, by_image), (groups[mine], by_patient)):
            fitted = calibrate(proba[mine], labels[mine], alpha=0.2, groups=units)
            new = np.flatnonzero(~mine)[one_image_each(groups[~mine], rng)]
            into.append(covered(fitted.predict(proba[new]), labels[new]).mean())
    assert np.mean(by_image) < 0.7
    assert np.mean(by_patient) >= 0.79


def slow_sets(proba, labels, groups, new, alpha: float, score: str, per_class: bool) -> np.ndarray:
    """Lee, Barber and Willett's rule as it is written: a weighted p value per candidate."""
    out = np.zeros(new.shape, dtype=bool)
    truth = nonconformity(proba, score)[np.arange(len(labels)), labels]
    candidates = nonconformity(new, score)
    for c in range(proba.shape[1]):
        rows = labels == c if per_class else np.ones(len(labels), dtype=bool)
        names = sorted(set(groups[rows].tolist()))
        for i in range(len(new)):
            p = 1 / (len(names) + 1)
            for g in names:
                of_group = truth[rows & (groups == g)]
                p += np.mean(of_group >= candidates[i, c]) / (len(names) + 1)
            out[i, c] = p > alpha + 1e-9
    return out


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("per_class", [False, True])
def test_sets_equal_a_slow_implementation_of_the_rule(score: str, per_class: bool) -> None:
    rng = np.random.default_rng(2)
    proba, labels, groups = draw(15, rng, sizes=(1, 4))
    new = draw(8, rng, sizes=(3,))[0].round(2)
    proba = proba.round(2)  # many ties
    want = slow_sets(proba, labels, groups, new, 0.25, score, per_class)
    requested = {"alpha": 0.25, "score": score, "groups": groups, "per_class": per_class}
    np.testing.assert_array_equal(calibrate(proba, labels, **requested).predict(new), want)
    fold = groups % 3
    one_model = dict.fromkeys(range(3), new)
    np.testing.assert_array_equal(
        cross_conformal(proba, labels, fold, one_model, **requested), want
    )


def test_cross_conformal_sets_compare_each_fold_by_its_own_models() -> None:
    rng = np.random.default_rng(3)
    proba, labels, groups = draw(30, rng, sizes=(2,))
    fold, new = groups % 2, {0: draw(5, rng, sizes=(1,))[0], 1: draw(5, rng, sizes=(1,))[0]}
    truth = 1 - proba[np.arange(60), labels]
    got = cross_conformal(proba, labels, fold, new, alpha=0.1, groups=groups)
    for i in range(5):
        for c in range(3):
            above = sum((truth[fold == k] >= 1 - new[k][i, c]).sum() for k in (0, 1)) / 2
            assert got[i, c] == ((above + 1) / 31 > 0.1 + 1e-9)


def test_cross_fitted_sets_do_not_depend_on_labels_of_their_own_fold() -> None:
    rng = np.random.default_rng(4)
    proba, labels, groups = draw(40, rng)
    fold = groups % 4
    before = cross_fitted_sets(proba, labels, fold, groups=groups)
    turned = np.where(fold == 0, (labels + 1) % 3, labels)
    after = cross_fitted_sets(proba, turned, fold, groups=groups)
    np.testing.assert_array_equal(before[fold == 0], after[fold == 0])
    assert (before[fold != 0] != after[fold != 0]).any()


@pytest.mark.parametrize(
    ("alpha", "needed"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3), (1 / 3, 2)]
)
def test_the_minimum_number_of_patients_gives_a_finite_threshold(alpha: float, needed: int) -> None:
    assert units_needed(alpha) == needed
    for n, finite in ((needed, True), (needed - 1, False)):
        fitted = calibrate(np.full((n, 2), 0.5), np.zeros(n, dtype=int), alpha=alpha)
        assert np.isfinite(fitted.thresholds).all() == finite


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    made = toy_run(tmp_path_factory.mktemp("sets") / "toy")
    for name in made.store.members():  # test predictions of the folds' models differ a little
        one = made.store.read(name)
        test = {k: (1 + 0.02 * k) * z for k, z in one.test.items()}
        made.store.write(name, dataclasses.replace(one, test=test))
    stack_run(made, ["mean", "logistic"], protocol=Protocol(n_resamples=50))
    return made


def call(*args: str):
    return CliRunner().invoke(app, ["conformal", *args], catch_exceptions=False)


def test_sets_json_agrees_with_sets_csv_and_the_printed_sentences(run) -> None:
    printed = call("--run", str(run.path), "--resamples", "100").output
    stored = json.loads((run.ensemble_dir("mean") / "sets.json").read_text())
    one = stored["figures"]["test"]["all"]
    assert "split conformal, lac" in printed
    assert "random image of a new patient" in printed
    frame = conformal_sets(run, "mean", QUICK).frame.query("split == 'test'")
    assert one["covered_per_image"]["value"] == pytest.approx(frame["covered"].mean())
    assert one["covered"]["value"] == pytest.approx(frame.groupby("group")["covered"].mean().mean())
    assert one["mean_size"] == pytest.approx(frame["size"].mean())
    assert (frame.filter(like="in_class").sum(axis=1) == frame["size"]).all()


def test_sets_are_calibrated_on_out_of_fold_rows_only(run) -> None:
    stored = stored_predictions(run, "mean")
    before = conformal_sets(run, "mean", QUICK, write=False)
    again = calibrate(stored.oof.proba, stored.oof.labels, groups=stored.oof.groups)
    sets = again.predict(stored.test.proba)
    got = before.frame.query("split == 'test'").filter(like="in_class").to_numpy().astype(bool)
    np.testing.assert_array_equal(got, sets)


@pytest.mark.parametrize("method", ["mean", "logistic", "member1"])
def test_stacked_methods_and_single_members_have_sets(run, method: str) -> None:
    for cross in (False, True):
        found = conformal_sets(
            run, method, dataclasses.replace(QUICK, cross=cross), write=False
        ).metrics["test"]["all"]
        assert 0.75 <= found.covered.value <= 1.0


def test_predictions_by_fold_equal_the_stored_cross_fitted_ones(run) -> None:
    stored = stored_predictions(run, "logistic").oof.proba
    made, new = predictions_by_fold(run, "logistic")
    np.testing.assert_allclose(made.proba, stored, atol=1e-6)
    assert set(new) == {0, 1, 2, 3}


def test_cross_conformal_sets_need_test_predictions_of_each_fold(tmp_path) -> None:
    one_prediction = toy_run(tmp_path / "toy")
    stack_run(one_prediction, ["mean"], protocol=Protocol(n_resamples=20))
    options = dataclasses.replace(QUICK, cross=True)
    with pytest.raises(DataError, match=r"4 folds.*--cross"):
        conformal_sets(one_prediction, "mean", options, write=False)
    usual = conformal_sets(one_prediction, "mean", QUICK, write=False)
    assert not any("--cross" in note for note in usual.notes)


def test_split_sets_have_a_caveat_on_the_average_of_the_models(run) -> None:
    notes = conformal_sets(run, "mean", QUICK, write=False).notes
    assert sum("--cross compares" in note for note in notes) == 1
    crossed = conformal_sets(run, "mean", dataclasses.replace(QUICK, cross=True), write=False)
    assert not any("--cross compares" in note for note in crossed.notes)


def test_cross_conformal_sets_report_the_guaranteed_coverage(run) -> None:
    usual = call("--run", str(run.path), "--resamples", "20").output
    assert "with 90 % coverage" in usual
    crossed = call("--run", str(run.path), "--resamples", "20", "--cross").output
    assert "prediction sets with about 90 % coverage" in crossed
    assert "a proven coverage of 80 %, and in practice about 90 %" in crossed
    stored = json.loads((run.ensemble_dir("mean") / "sets.json").read_text())
    assert stored["proven"] == pytest.approx(0.8)
    call("--run", str(run.path), "--resamples", "20")
    stored = json.loads((run.ensemble_dir("mean") / "sets.json").read_text())
    assert stored["proven"] == pytest.approx(0.9)
    assert SetOptions(alpha=0.6, cross=True).proven == 0.0


def test_a_class_that_is_rarely_covered_is_the_first_caveat(tmp_path: Path) -> None:
    made = toy_run(tmp_path / "toy")
    for name in made.store.members():  # class0 of the test part looks like class1
        one = made.store.read(name)
        is_first = (made.manifest().part("test").labels == 0)[:, None]
        test = {k: np.where(is_first, z[:, [1, 0, 2]] + [-9, 9, 0], z) for k, z in one.test.items()}
        made.store.write(name, dataclasses.replace(one, test=test))
    found = conformal_sets(made, "member0", QUICK, write=False)
    one = found.metrics["test"]["class0"]
    assert one.covered.value < 0.8
    assert f"{one.covered} of class 'class0' (test, " in found.notes[0]
    per_class = dataclasses.replace(QUICK, per_class=True, alpha=0.2)
    notes = conformal_sets(made, "member0", per_class, write=False).notes
    assert not any("on average" in note for note in notes)


def test_too_few_patients_are_refused_with_a_possible_alpha(run) -> None:
    with pytest.raises(DataError, match=r"32 .*99 patients.*--alpha 0\.031"):
        conformal_sets(run, "mean", dataclasses.replace(QUICK, alpha=0.01))


def test_the_oracle_and_unknown_methods_have_no_sets(run) -> None:
    with pytest.raises(UsageError, match="'oracle'"):
        conformal_sets(run, "oracle", QUICK)
    with pytest.raises(UsageError, match="stack --method vote --run"):
        conformal_sets(run, "vote", QUICK)


def test_predictions_of_members_trained_again_are_refused(tmp_path) -> None:
    made = toy_run(tmp_path / "toy")
    stack_run(made, ["mean"], protocol=Protocol(n_resamples=20))
    assert conformal_sets(made, "mean", QUICK, write=False).n_units == 32
    stored = made.store.read("member1")
    made.store.write("member1", dataclasses.replace(stored, oof=stored.oof * 1.01))
    with pytest.raises(IntegrityError, match=r"member1.*stack --method mean"):
        conformal_sets(made, "mean", QUICK, write=False)


def test_no_cell_of_sets_csv_is_a_formula(tmp_path: Path) -> None:
    toy = toy_predictions(12, 2, 2, n_groups=4)
    table = dataclasses.replace(
        toy,
        class_names=("=1+1", "@b"),
        sample_ids=np.array([f"-{i}" for i in range(12)]),
        groups=np.char.add("+", toy.groups),
    )
    predictions = MethodPredictions.of(decided(np.full((12, 2), 0.5)), table)
    frame = sets_frame({"test": (predictions, np.ones((12, 2), dtype=bool))})
    write_csv(tmp_path / "sets.csv", frame)
    text = (tmp_path / "sets.csv").read_text().replace("\n", ",").split(",")
    assert not [cell for cell in text if cell.startswith(("=", "+", "-", "@"))]
    assert read_csv(tmp_path / "sets.csv")["set"].iloc[0] == "=1+1 | @b"
