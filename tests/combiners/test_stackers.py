"""Stackers: agreement with scikit-learn, absent classes, calibration, inner folds of whole groups."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.calibrated import CalibratedMembers, TemperatureScaled
from ensemble_kit.combiners.inner_folds import inner_folds
from ensemble_kit.combiners.log_proba import flat_features
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.combiners.stacking.boosting import BoostingStacker
from ensemble_kit.combiners.stacking.linear import LogisticStacker
from ensemble_kit.combiners.stacking.log_pool import pool_weights
from ensemble_kit.combiners.stacking.mlp import MLPStacker, inner_stops
from ensemble_kit.testing import toy_logits, toy_predictions

FITTED = ["simplex", "classwise", "greedy", "logistic", "ridge", "boosting", "mlp", "two-layer"]


def test_logistic_stacker_agrees_with_stacking_classifier_on_the_same_folds() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(240, 6)), rng.integers(0, 3, 240)
    x[np.arange(240), y] += 1.0
    folds = KFold(4, shuffle=True, random_state=0)
    bases = [("a", LogisticRegression()), ("b", GaussianNB())]
    final = LogisticRegression(C=1.0, max_iter=2000, tol=1e-6)
    theirs = StackingClassifier(bases, final, cv=folds, stack_method="predict_proba").fit(x, y)
    oof = [cross_val_predict(model, x, y, cv=folds, method="predict_proba") for _, model in bases]
    ours = LogisticStacker(c=1.0, features="proba").fit(np.log(np.stack(oof, axis=1)), y)
    on_all = np.stack([model.predict_proba(x) for model in theirs.estimators_], axis=1)
    np.testing.assert_allclose(
        ours.predict_proba(np.log(on_all)), theirs.predict_proba(x), atol=1e-4
    )


def test_boosting_stored_as_arrays_predicts_like_scikit_learn() -> None:
    table = toy_predictions(240, 3, 3)
    fitted = BoostingStacker(n_rounds=20)
    fitted._rounds = lambda x, labels, groups: 20
    fitted.fit(table.logits, table.labels, table.groups)
    x = flat_features(table.logits)
    theirs = fitted._model(20).fit(x, table.labels).predict_proba(x)
    np.testing.assert_allclose(fitted.predict_proba(table.logits), theirs, atol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_search_that_stops_early_finds_the_round_of_the_full_search(n_classes: int) -> None:
    table = toy_predictions(240, 3, n_classes)
    x, labels = flat_features(table.logits), np.asarray(table.labels)
    fitted = BoostingStacker(n_rounds=70)
    fitted.present_ = np.arange(n_classes)
    found = fitted._best_round(x[:180], labels[:180], x[180:], labels[180:])
    full = fitted._model(70).fit(x[:180], labels[:180])
    losses = [log_loss(labels[180:], proba) for proba in full.staged_predict_proba(x[180:])]
    assert found == int(np.argmin(losses)) + 1


@pytest.mark.parametrize("name", FITTED)
def test_a_class_absent_from_the_fit_gives_no_nan(name: str) -> None:
    table = toy_predictions(160, 3, 3, n_groups=16)
    seen = table.labels != 1
    options = {"epochs": 2, "n_networks": 1} if name == "mlp" else {}
    fitted = make_combiner(name, **options).fit(
        table.logits[seen], table.labels[seen], table.groups[seen]
    )
    assert np.isfinite(fitted.predict_proba(table.logits)).all()


@pytest.mark.parametrize("name", ["logistic", "boosting"])
def test_a_class_absent_from_the_fit_has_the_probability_of_the_mean(name: str) -> None:
    table = toy_predictions(160, 3, 3, n_groups=16)
    seen = table.labels != 1
    fitted = make_combiner(name).fit(table.logits[seen], table.labels[seen], table.groups[seen])
    proba = fitted.predict_proba(table.logits)
    mean = make_combiner("mean").fit(table.logits, table.labels).predict_proba(table.logits)
    np.testing.assert_allclose(proba[:, 1], mean[:, 1], rtol=1e-5)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)


def test_the_temperature_of_one_member_undoes_any_factor_on_its_logits() -> None:
    table = toy_predictions(300, 1, 3)
    plain, sharp = (
        TemperatureScaled().fit(z, table.labels, table.groups).predict_proba(z)
        for z in (table.logits, table.logits * 10.0)
    )
    np.testing.assert_allclose(sharp, plain, atol=1e-4)


def test_temperature_preserves_the_class_and_lowers_the_loss_of_overconfident_members() -> None:
    table = toy_predictions(300, 3, 3)
    sure = table.logits * 6.0
    rows = np.arange(300)
    plain = make_combiner("mean").fit(sure, table.labels)
    scaled = TemperatureScaled().fit(sure, table.labels, table.groups)
    members = CalibratedMembers().fit(sure, table.labels, table.groups)
    np.testing.assert_array_equal(scaled.predict(sure), plain.predict(sure))
    loss = [-np.log(c.predict_proba(sure)[rows, table.labels]).mean() for c in (plain, scaled)]
    assert loss[1] < loss[0]
    assert (members.scales_ < 0.6).all()


@pytest.mark.parametrize("kind", [TemperatureScaled, CalibratedMembers])
def test_members_worse_than_chance_keep_the_order_of_their_probabilities(kind: type) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 2, 2))
    wrong = logits.mean(axis=1).argmin(axis=1)
    fitted = kind().fit(logits, wrong)
    proba, plain = (
        fitted.predict_proba(logits)[:, 1],
        MeanProba().fit(logits, wrong).predict_proba(logits)[:, 1],
    )
    assert abs(proba - 0.5).max() < 0.01
    assert len(np.unique(proba)) == 40
    assert np.corrcoef(proba, plain)[0, 1] > 0.9
    np.testing.assert_array_equal(fitted.predict(logits) == 1, proba > 0.5)


def test_inner_folds_never_split_a_group() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 25, 300)
    groups = np.unique(groups, return_inverse=True)[1]
    fold = inner_folds(rng.integers(0, 3, 300), groups, 5, rng)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in range(groups.max() + 1))
    assert len(np.unique(fold)) == 5


def test_mlp_networks_stop_on_held_out_groups() -> None:
    table = toy_predictions(120, 3, 3, n_groups=12)
    groups = np.unique(table.groups, return_inverse=True)[1]
    for learn, stop in inner_stops(np.asarray(table.labels), groups, 7, 0):
        assert not set(groups[learn]) & set(groups[stop])
        assert len(learn) + len(stop) == 120


def test_folds_fitted_together_equal_folds_fitted_separately_up_to_batch_sizes() -> None:
    table = toy_predictions(120, 3, 3, n_groups=12)
    sets = [np.flatnonzero(table.fold != k) for k in range(4)]
    many = MLPStacker(epochs=2, n_networks=2).fit_many(
        table.logits, table.labels, table.groups, sets
    )
    alone = MLPStacker(epochs=2, n_networks=2).fit(
        table.logits[sets[1]], table.labels[sets[1]], table.groups[sets[1]]
    )
    np.testing.assert_array_equal(many[1].networks_.pool, alone.networks_.pool)
    # Batches of another size may end a network an epoch earlier or later.
    np.testing.assert_allclose(
        many[1].predict_proba(table.logits), alone.predict_proba(table.logits), atol=0.03
    )


def test_no_combiner_loads_torch() -> None:
    code = (
        "import sys, ensemble_kit as ek\n"
        "from ensemble_kit.testing import toy_predictions\n"
        "t = toy_predictions(60, 3, 2, n_groups=12)\n"
        "for c in (ek.GreedySelection(), ek.SimplexWeights(), ek.LogisticStacker(), ek.BoostingStacker(n_rounds=3)):\n"
        "    c.fit(t.logits, t.labels, t.groups).predict(t.logits)\n"
        "ek.MLPStacker(epochs=1, n_networks=1).fit(t.logits, t.labels).predict(t.logits)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("confident_in", ["class 0", "a random class"])
def test_confident_uninformative_members_do_not_harm_the_networks(confident_in: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(300) % 2)
    scores = 0.9 * rng.normal(size=(300, 2)) + 1.2 * (2 * labels - 1)[:, None]
    good = np.stack([-scores, scores], axis=2)
    side = np.ones(300) if confident_in == "class 0" else rng.choice([-1.0, 1.0], 300)
    noise = np.stack([16.0 * side, np.zeros(300)], axis=1)[:, None]
    fold = np.arange(300) % 3
    sets = [np.flatnonzero(fold != k) for k in range(3)]

    def log_loss(logits: np.ndarray) -> float:
        proba = np.empty((300, 2))
        fitted = MLPStacker(n_networks=2).fit_many(logits, labels, None, sets)
        for k, one in enumerate(fitted):
            proba[fold == k] = one.predict_proba(logits[fold == k])
        return float(-np.log(proba[np.arange(300), labels]).mean())

    alone = log_loss(good)
    assert alone < 0.2
    assert log_loss(np.concatenate([good, noise, noise], axis=1)) < alone + 0.05


def test_a_log_pool_is_optimal_over_nonnegative_weights() -> None:
    labels = np.random.default_rng(1).integers(0, 3, 400)
    log_proba = np.log(softmax(toy_logits(labels, 4, 3)))
    weights = pool_weights(log_proba, labels, ridge=0.0)

    def loss(w: np.ndarray) -> float:
        proba = softmax(np.einsum("nmc,m->nc", log_proba, w))
        return float(-np.log(proba[np.arange(400), labels]).mean())

    assert (weights >= 0).all()
    rng = np.random.default_rng(2)
    others = np.maximum(weights + 0.1 * rng.normal(size=(200, 4)), 0)
    assert all(loss(w) >= loss(weights) - 1e-9 for w in others)
