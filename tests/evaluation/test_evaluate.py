"""Evaluation: fits never use the scored rows; intervals; verdicts; files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners import COMBINERS, combiner_class, make_combiner
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.compare import compare
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit, cross_fitted_proba
from ensemble_kit.evaluation.evaluate import evaluate, evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_folder import write_ensembles
from ensemble_kit.evaluation.runs.stored_ensembles import read_ensemble_predictions
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.uncertainty.bootstrap import group_weights
from ensemble_kit.evaluation.uncertainty.jackknife import Jackknife, strata_of
from ensemble_kit.evaluation.uncertainty.resampled_metrics import auroc_resampler
from ensemble_kit.metrics import METRICS
from ensemble_kit.metrics.ranking import macro_auroc
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_predictions

QUICK = Protocol(n_resamples=200)


class Memory(Combiner):
    """Memorises the rows that it was fitted to, and guesses the others."""

    is_fitted_to_labels = True

    def _fit(self, logits, labels, groups) -> None:
        self.seen = {row.tobytes(): label for row, label in zip(logits, labels, strict=True)}

    def _combine(self, logits) -> Combined:
        n_classes = logits.shape[2]
        known = [
            np.eye(n_classes)[self.seen[r.tobytes()]]
            if r.tobytes() in self.seen
            else np.full(n_classes, 1 / n_classes)
            for r in logits
        ]
        return decided(np.array(known))


def test_a_combiner_that_memorises_is_perfect_in_sample_and_at_chance_cross_fitted() -> None:
    result = evaluate(
        Memory(), toy_predictions(), protocol=Protocol(n_resamples=100, fallback=False)
    )
    assert result.in_sample["accuracy"].value == 1.0
    assert result.cross_fitted["accuracy"].value == pytest.approx(1 / 3, abs=0.1)
    assert result.optimism("accuracy") > 0.5


FITTED = sorted(
    name for name in COMBINERS if combiner_class(name).is_fitted_to_labels and name != "oracle"
)


@pytest.mark.parametrize("name", FITTED)
def test_row_45_noise_labels_leave_every_stacker_at_chance(name: str) -> None:
    table = toy_predictions(240, 4, 2, n_groups=40, n_features=3)
    labels = np.random.default_rng(3).integers(0, 2, 240)
    proba = cross_fitted_proba(make_combiner(name), dataclasses.replace(table, labels=labels))
    # At 240 rows chance has a standard error of .037.
    assert roc_auc_score(labels, proba[:, 1]) == pytest.approx(0.5, abs=0.11)


# Combiners of features are crossed within each fold's feature space, by folds that labels decide.
@pytest.mark.parametrize("name", [n for n in FITTED if not combiner_class(n).needs_features])
def test_row_45_no_prediction_depends_on_a_label_of_its_own_fold(name: str) -> None:
    table = toy_predictions(120, 3, 2, n_groups=24)
    own = table.fold == 1
    labels = table.labels.copy()
    labels[own] = np.roll(labels[own], 1)
    assert (labels != table.labels).sum() > 5
    before, after = (
        cross_fitted_proba(make_combiner(name), one)
        for one in (table, dataclasses.replace(table, labels=labels))
    )
    np.testing.assert_array_equal(before[own], after[own])


def test_members_that_are_noise_leave_a_stacker_at_chance() -> None:
    table = toy_predictions(400, 4, 2, n_groups=40)
    noise = dataclasses.replace(table, logits=np.random.default_rng(4).normal(size=(400, 4, 2)))
    proba = cross_fitted_proba(make_combiner("mlp"), noise)
    assert roc_auc_score(table.labels, proba[:, 1]) == pytest.approx(0.5, abs=0.09)


def test_cross_fitting_fits_on_other_folds_only() -> None:
    table = toy_predictions()
    by_hand = np.empty((len(table), 3))
    for k in range(4):
        others, held_out = table.take(table.fold != k), table.take(table.fold == k)
        by_hand[table.fold == k] = (
            make_combiner("simplex")
            .fit(others.logits, others.labels)
            .predict_proba(held_out.logits)
        )
    np.testing.assert_allclose(cross_fit(make_combiner("simplex"), table).proba, by_hand)


def test_a_group_in_two_folds_is_refused_unless_the_table_is_split_by_image() -> None:
    table = toy_predictions()
    mixed = dataclasses.replace(table, fold=np.arange(len(table)) % 4)
    with pytest.raises(DataError, match=r"24 groups.*oof-p0"):
        cross_fit(make_combiner("simplex"), mixed)
    by_image = evaluate(
        make_combiner("simplex"), dataclasses.replace(mixed, split_by="image"), protocol=QUICK
    )
    assert any("Split by image" in note for note in by_image.notes)


def test_a_group_on_both_sides_of_the_test_split_is_refused() -> None:
    table = toy_predictions()
    test = dataclasses.replace(table, kind="test", fold=np.full(len(table), -1))
    with pytest.raises(DataError, match="24 groups"):
        evaluate(make_combiner("mean"), table, test)


def test_row_35_nan_in_logits_raises_and_is_never_argmaxed() -> None:
    table = toy_predictions()
    logits = table.logits.copy()
    logits[7, 1] = np.nan
    with pytest.raises(DataError, match=r"1 of 960.*NaN"):
        evaluate(make_combiner("vote"), dataclasses.replace(table, logits=logits))


def test_baselines_are_always_there_and_rules_have_no_optimism() -> None:
    evaluated = evaluate_all({"vote": make_combiner("vote")}, toy_predictions(), protocol=QUICK)
    assert set(evaluated) == {"best-member", "mean", "vote", "oracle"}
    assert evaluated["vote"].optimism("accuracy") == 0.0
    assert evaluated["oracle"].cross_fitted["accuracy"].value >= max(
        one.cross_fitted["accuracy"].value for one in evaluated.values()
    )


def test_a_metric_without_a_group_is_that_of_the_other_rows() -> None:
    table = toy_predictions(300, 3, 3, n_groups=30)
    labels, groups = np.asarray(table.labels), np.unique(table.groups, return_inverse=True)[1]
    proba = softmax(table.logits).mean(axis=1)
    names = ["balanced_accuracy", "auroc", "log_loss", "ece_equal_mass", "calibration_slope"]
    scored = score_methods({"mean": decided(proba)}, labels, groups, 3, metrics=names)["mean"]
    blocks = Jackknife.of(labels, groups, 3).blocks
    one_class = np.array([len(set(labels[groups == g])) == 1 for g in range(30)])
    for b, block in enumerate(blocks):
        rest = groups != block[0]
        y, p = labels[rest], proba[rest]
        got = {name: values[b] for name, values in scored.left_out.items()}
        # The rest of the stratum is weighted up, which does not change these metrics.
        assert got["ece_equal_mass"] == pytest.approx(
            METRICS["ece_equal_mass"].of(y, p, p.argmax(axis=1))
        )
        assert got["calibration_slope"] == pytest.approx(
            METRICS["calibration_slope"].of(y, p, p.argmax(axis=1))
        )
    assert not one_class.all()
    single = score_methods(
        {"mean": decided(proba)}, np.zeros(300, dtype=int), groups, 3, metrics=["log_loss"]
    )
    for b in range(30):
        rest = groups != b
        want = -np.log(proba[rest, 0]).mean()
        assert single["mean"].left_out["log_loss"][b] == pytest.approx(want)


def test_auroc_of_many_groups_resampled_to_first_order_is_close_to_exact() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    score = rng.normal(size=600) + labels
    proba = np.stack([1 / (1 + np.exp(score)), 1 / (1 + np.exp(-score))], axis=1)
    groups = np.arange(600) // 2
    move = auroc_resampler(labels, proba, groups)
    weights = np.concatenate(list(group_weights(strata_of(labels, groups, 2), 300, rng)))
    exact = [
        macro_auroc(np.repeat(labels, w), np.repeat(proba, w, axis=0))
        for w in weights[:, groups].astype(int)
    ]
    assert np.std(move(weights)) == pytest.approx(np.std(exact), rel=0.05)
    assert np.corrcoef(move(weights), exact)[0, 1] > 0.99


def test_intervals_over_patients_are_wider_than_over_images_where_patients_agree() -> None:
    table = toy_predictions(300, 3, 2, n_groups=15)
    shift = np.random.default_rng(0).normal(size=15)[
        np.unique(table.groups, return_inverse=True)[1]
    ]
    logits = table.logits + 3 * shift[:, None, None] * np.array([1.0, -1.0])
    by_patient = dataclasses.replace(table, logits=logits)
    by_image = dataclasses.replace(by_patient, groups=table.sample_ids)
    wide, narrow = (
        evaluate(make_combiner("mean"), t, protocol=QUICK).cross_fitted["accuracy"]
        for t in (by_patient, by_image)
    )
    assert wide.value == narrow.value
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_verdicts_are_better_worse_or_not_shown() -> None:
    table = toy_predictions(600, 4, 3, n_groups=60, skill=1.2)

    def words(of: Predictions, *names: str) -> dict[tuple[str, str], str]:
        evaluated = evaluate_all({n: make_combiner(n) for n in names}, of, protocol=QUICK)
        return {(v.method, v.against): v.word for one in evaluated.values() for v in one.verdicts}

    assert words(table, "mean-logits")["mean-logits", "best-member"] == "better"
    logits = table.logits.copy()
    logits[:, 0] = (
        20.0 * np.eye(3)[(table.labels + 1) % 3]
    )  # one member is confident and always wrong
    misled = words(dataclasses.replace(table, logits=logits), "max", "median")
    assert misled["max", "mean"] == "worse"
    assert misled["median", "mean"] == "better"
    same = evaluate_all({"copy": make_combiner("mean")}, table, protocol=QUICK)["copy"].verdicts
    assert [v.word for v in same if v.against == "mean"] == ["not shown"]
    assert [(v.effect.value, v.effect.low) for v in same if v.against == "mean"] == [(0.0, None)]


def test_one_group_gives_no_interval_and_a_caveat() -> None:
    table = toy_predictions(60, 3, 2, n_groups=12)
    test = dataclasses.replace(
        toy_predictions(30, 3, 2, n_groups=10, kind="test"), groups=np.full(30, "t")
    )
    evaluated = evaluate(make_combiner("vote"), table, test, protocol=QUICK)
    assert evaluated.test["accuracy"].low is None
    assert any("only 1 patient:" in note for note in evaluated.notes)


def test_a_class_missing_from_the_test_is_named() -> None:
    table, test = toy_predictions(), toy_predictions(90, kind="test", n_groups=12)
    short = test.take(test.labels != 2)
    evaluated = evaluate(make_combiner("vote"), table, short, protocol=QUICK)
    assert evaluated.test.missing_classes == (2,)
    assert any("test" in note and "'class2'" in note for note in evaluated.notes)


class Backwards(Combiner):
    is_fitted_to_labels = True

    def _combine(self, logits) -> Combined:
        return decided(softmax(-logits.mean(axis=1).astype(np.float64)))


def test_a_fitted_combiner_that_is_not_better_than_the_mean_is_replaced_with_a_caveat() -> None:
    table = toy_predictions()
    evaluated = evaluate_all({"bad": Backwards()}, table, protocol=QUICK)
    assert evaluated["bad"].cross_fitted["accuracy"] == evaluated["mean"].cross_fitted["accuracy"]
    assert any(note.startswith("bad: ") and "mean" in note for note in evaluated["bad"].notes)
    without = evaluate_all(
        {"bad": Backwards()}, table, protocol=Protocol(n_resamples=50, fallback=False)
    )
    assert without["bad"].cross_fitted["accuracy"].value < 0.34


@pytest.mark.parametrize(
    "name", ["simplex", "greedy", "ridge", "logistic", "mlp", "two-layer", "mean", "vote"]
)
def test_noise_members_do_not_collapse_a_combiner(name: str) -> None:
    good = toy_predictions(400, 4, 2, n_groups=40)
    noise = np.random.default_rng(0).normal(size=(400, 3, 2)).astype(np.float32)
    names = (*good.member_names, "n1", "n2", "n3")
    noisy = dataclasses.replace(
        good, logits=np.concatenate([good.logits, noise], axis=1), member_names=names
    )
    values = [
        evaluate(make_combiner(name), t, protocol=QUICK).cross_fitted["balanced_accuracy"].value
        for t in (good, noisy)
    ]
    assert values[1] > values[0] - 0.06


def test_row_54_formulas_in_names_are_guarded_and_read_back(tmp_path: Path) -> None:
    table = toy_predictions(60, 3, 2, n_groups=12)
    evil = ["=cmd()", "+1", "-2", "@x", "\tq", "\rr"]
    ids = np.array(evil + table.sample_ids.tolist()[6:])
    table = dataclasses.replace(table, sample_ids=ids)
    result = evaluate(make_combiner("simplex"), table, protocol=QUICK)
    run = Run(tmp_path)
    write_ensembles(run, {"simplex": result}, table, None)
    folder = run.ensemble_dir("simplex")
    first = [line[0] for line in (folder / "predictions.csv").read_text().splitlines()[1:7]]
    assert set(first) <= {"'", '"'}
    again = read_ensemble_predictions(folder)
    assert again["sample_id"].tolist() == ids.tolist()
    np.testing.assert_array_equal(
        again[["p_class0", "p_class1"]].to_numpy(), result.oof_combined.proba
    )
    assert len(again) == 60


def test_undefined_metrics_are_null_in_json(tmp_path: Path) -> None:
    table = toy_predictions(60, 3, 2, n_groups=12)
    test = toy_predictions(40, 3, 2, kind="test", n_groups=10)
    one_class = test.take(test.labels == 0)
    run = Run(tmp_path)
    result = evaluate(make_combiner("vote"), table, one_class, protocol=QUICK)
    write_ensembles(run, {"vote": result}, table, one_class)
    stored = json.loads((run.ensemble_dir("vote") / "metrics.json").read_text())
    assert stored["test"]["auroc"] == {"value": None, "low": None, "high": None}
    assert stored["cross_fitted"]["n"] == 60
    assert stored["cross_fitted"]["n_groups"] == 12


def test_compare_returns_a_tidy_table_with_one_verdict() -> None:
    scores = compare(
        {"vote": make_combiner("vote")},
        fit_on=toy_predictions(),
        score_on=toy_predictions(90, kind="test", n_groups=12),
        protocol=QUICK,
    )
    assert list(scores.columns) == [
        "method",
        "part",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "n_groups",
        "n_ties",
        "verdict",
    ]
    assert not scores.duplicated(["method", "part", "metric"]).any()
    assert scores.attrs["verdict"].startswith("vote is")
    assert "test" in scores.attrs["verdict"]
