"""Nested cross-validation has no base-model leakage; cross-fitting can have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ensemble_kit.arrays import log_softmax
from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fitted_proba
from ensemble_kit.evaluation.cross_validation.nested import nested_predictions
from ensemble_kit.evaluation.evaluate import evaluate, evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_image import paired_gains, score_methods
from ensemble_kit.metrics import metric
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.nested import NestedFold
from ensemble_kit.predictions.table import Predictions

QUICK = Protocol(n_resamples=200)
FREE = Protocol(n_resamples=200, fallback=False)
Learn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def trained_tables(
    labels: np.ndarray, fold: np.ndarray, members: dict[str, Learn]
) -> tuple[Predictions, tuple[NestedFold, ...]]:
    """Tables of a run whose members are trained on the labels outside the left-out folds.

    A member maps (training mask, generator) to logits of all rows.
    """
    n_folds = int(fold.max()) + 1
    logits: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
    for k in range(n_folds):
        for j in range(k, n_folds):
            seen = ~np.isin(fold, (k, j))
            for m, (name, learn) in enumerate(members.items()):
                rng = np.random.default_rng([k, j, m])
                logits[name, (k, j)] = learn(seen, rng)

    def table(rows: np.ndarray, of: Callable[[str], np.ndarray], kind: str) -> Predictions:
        return Predictions(
            logits=np.stack([of(name)[rows] for name in members], axis=1),
            sample_ids=np.array([f"s{i}" for i in rows]),
            labels=labels[rows],
            groups=np.array([f"p{i // 4}" for i in rows]),
            member_names=tuple(members),
            class_names=("benign", "malignant"),
            fold=fold[rows] if kind == "oof" else np.full(len(rows), -1),
            kind=kind,
            group_kind="patient",
        )

    def without(name: str, k: int) -> np.ndarray:
        """Row i from the model without fold k and i's own."""
        pairs = [logits[name, (min(k, j), max(k, j))] for j in range(n_folds)]
        return np.stack(pairs)[fold, np.arange(len(fold))]

    def together(name: str, k: int) -> np.ndarray:
        others = [j for j in range(n_folds) if j != k]
        return np.mean([logits[name, (min(k, j), max(k, j))] for j in others], axis=0)

    every = np.arange(len(labels))
    oof = table(
        every,
        lambda name: np.stack([logits[name, (k, k)] for k in range(n_folds)])[fold, every],
        "oof",
    )
    nested = tuple(
        NestedFold(
            k,
            table(np.flatnonzero(fold != k), lambda name, k=k: without(name, k), "oof"),
            table(np.flatnonzero(fold == k), lambda name, k=k: together(name, k), "test"),
        )
        for k in range(n_folds)
    )
    return oof, nested


def prevalence(labels: np.ndarray, sharpness: float) -> Learn:
    """A member that predicts the share of malignant rows among its training rows."""

    def learn(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rate = labels[seen].mean()
        z = sharpness * (rate - 0.5) + 0.02 * rng.normal(size=len(labels))
        return np.stack([-z, z], axis=1)

    return learn


def skilled(labels: np.ndarray, skill: float) -> Learn:
    """A member with real skill, independent of its training rows."""

    def learn(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        z = skill * (labels - 0.5) + rng.normal(size=len(labels))
        return np.stack([-z, z], axis=1) * min(1.0, float(seen.mean()) + 0.4)

    return learn


def coin_flips(seed: int, n_folds: int = 5, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are independent of the images; the prevalence differs between folds."""
    rng = np.random.default_rng(seed)
    fold = np.repeat(np.arange(n_folds), n)
    rates = rng.uniform(0.25, 0.75, n_folds)
    return (rng.random(n_folds * n) < rates[fold]).astype(np.int64), fold


def auroc(combiner: Combiner, oof: Predictions, nested: tuple[NestedFold, ...]) -> list[float]:
    of_nested = nested_predictions(
        {"it": combiner, "mean": make_combiner("mean")},
        nested,
        oof,
        fallback_candidates=[],
        metric=metric("accuracy"),
    )["it"]
    proba = cross_fitted_proba(combiner, oof)
    return [float(roc_auc_score(oof.labels, p[:, 1])) for p in (proba, of_nested.proba)]


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_cross_fitting_is_optimistic_with_leaking_members_and_nested_is_not(
    name: str,
) -> None:
    # The rate outside a fold gives the rate inside it, if the total is known. The stacker can learn
    # the total from rows whose members were trained on the evaluated fold.
    found = []
    for seed in range(4):
        labels, fold = coin_flips(seed)
        members = {"rate": prevalence(labels, 30.0), "rate too": prevalence(labels, 20.0)}
        found.append(auroc(make_combiner(name), *trained_tables(labels, fold, members)))
    crossed, of_nested = np.mean(found, axis=0)
    assert crossed > 0.58
    assert of_nested < 0.52


@pytest.mark.parametrize("name", ["logistic", "mlp", "greedy", "simplex", "best-member"])
def test_noise_labels_and_noise_members_leave_nested_metrics_at_chance(name: str) -> None:
    rng = np.random.default_rng(5)
    labels, fold = rng.integers(0, 2, 600), np.repeat(np.arange(5), 120)

    def noise(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=(600, 2))

    tables = trained_tables(labels, fold, {"a": noise, "b": noise, "c": noise})
    assert auroc(make_combiner(name), *tables)[1] == pytest.approx(0.5, abs=0.06)


def test_with_members_of_real_skill_nested_and_cross_fitted_agree() -> None:
    labels, fold = np.random.default_rng(0).integers(0, 2, 800), np.repeat(np.arange(4), 200)
    members = {"a": skilled(labels, 1.0), "b": skilled(labels, 2.0)}
    crossed, of_nested = auroc(make_combiner("logistic"), *trained_tables(labels, fold, members))
    # Outer rows are predicted by the mean of three models: a little better, never much worse.
    assert crossed - 0.01 < of_nested < crossed + 0.12


@pytest.fixture(scope="module")
def tables() -> tuple[Predictions, tuple[NestedFold, ...]]:
    labels, fold = coin_flips(1, n_folds=4, n=80)
    members = {"rate": prevalence(labels, 20.0), "good": skilled(labels, 1.5)}
    return trained_tables(labels, fold, members)


def test_nested_predictions_equal_fits_by_hand(
    tables: tuple[Predictions, tuple[NestedFold, ...]],
) -> None:
    oof, nested = tables
    by_hand = np.empty((len(oof), 2))
    for one in nested:
        fitted = make_combiner("simplex").fit(one.inner.logits, one.inner.labels)
        by_hand[np.asarray(oof.fold) == one.fold] = fitted.predict_proba(one.outer.logits)
    got = evaluate(make_combiner("simplex"), oof, protocol=FREE, nested=nested)
    assert got.nested is not None
    want = decided(by_hand)
    accuracy = float((want.predicted == oof.labels).mean())
    assert got.nested["accuracy"].value == pytest.approx(accuracy)
    assert (got.nested.n, got.nested.n_groups) == (len(oof), oof.n_groups)


def test_rows_are_joined_by_id_and_the_order_of_folds_does_not_matter(
    tables: tuple[Predictions, tuple[NestedFold, ...]],
) -> None:
    oof, nested = tables
    order = np.random.default_rng(0).permutation(len(oof))
    names = {"simplex": make_combiner("simplex")}
    plain = evaluate_all(names, oof, protocol=FREE, nested=nested)
    moved = evaluate_all(names, oof.take(order), protocol=FREE, nested=nested[::-1])
    for name in plain:
        a, b = plain[name].nested, moved[name].nested
        assert a is not None
        assert b is not None
        assert {k: i.value for k, i in a.metrics.items()} == pytest.approx(
            {k: i.value for k, i in b.metrics.items()}
        )


class Contrary(Combiner):
    """The opposite of the mean, which is always replaced by it."""

    is_fitted_to_labels = True

    def _combine(self, logits: np.ndarray) -> Combined:
        return decided(np.exp(log_softmax(-logits.mean(axis=1))))


def test_the_fallback_is_decided_inside_each_outer_fold() -> None:
    labels, fold = np.random.default_rng(0).integers(0, 2, 320), np.repeat(np.arange(4), 80)
    oof, nested = trained_tables(labels, fold, {"a": skilled(labels, 2.0)})
    evaluated = evaluate_all({"bad": Contrary()}, oof, protocol=QUICK, nested=nested)
    assert evaluated["bad"].nested == evaluated["mean"].nested
    free = evaluate_all({"bad": Contrary()}, oof, protocol=FREE, nested=nested)
    assert free["bad"].nested["accuracy"].value < 0.3 < free["mean"].nested["accuracy"].value
    # In one outer fold the inner labels are flipped: only there the combiner is not replaced.
    flipped = dataclasses.replace(nested[0].inner, labels=1 - np.asarray(nested[0].inner.labels))
    mixed = (dataclasses.replace(nested[0], inner=flipped), *nested[1:])
    found = nested_predictions(
        {"bad": Contrary(), "mean": make_combiner("mean")},
        mixed,
        oof,
        fallback_candidates=["bad"],
        metric=metric("accuracy"),
    )
    same = (found["bad"].proba == found["mean"].proba).all(axis=1)
    assert (same == (fold != 0)).all()


def test_base_model_leakage_is_cross_fitted_minus_nested_with_paired_resamples(
    tables: tuple[Predictions, tuple[NestedFold, ...]],
) -> None:
    oof, nested = tables
    combiners = {"simplex": make_combiner("simplex"), "mean": make_combiner("mean")}
    evaluated = evaluate_all(combiners, oof, protocol=FREE, nested=nested)["simplex"]
    assert evaluated.nested is not None
    for name, found in evaluated.base_model_leakage.items():
        a, b = evaluated.cross_fitted[name].value, evaluated.nested[name].value
        assert found.value == pytest.approx(a - b)
    predictions = nested_predictions(
        combiners, nested, oof, fallback_candidates=[], metric=metric("accuracy")
    )
    pair = {"crossed": evaluated.oof_combined, "nested": predictions["simplex"]}
    scored = score_methods(pair, np.asarray(oof.labels), oof.groups, 2, metrics=["accuracy"])
    crossed = {"crossed": scored["crossed"]}
    want = paired_gains(crossed, scored["nested"], metric("accuracy"))["crossed"]
    assert evaluated.base_model_leakage["accuracy"] == want.effect


def test_tables_of_other_rows_members_or_shared_patients_are_refused(
    tables: tuple[Predictions, tuple[NestedFold, ...]],
) -> None:
    oof, nested = tables
    mean = make_combiner("mean")
    with pytest.raises(DataError, match=r"240 rows.* 320 .* 80 rows"):
        evaluate(mean, oof, nested=nested[1:])
    with pytest.raises(DataError, match=r"400 rows.* 320 .* 0 rows"):
        evaluate(mean, oof, nested=(*nested, nested[0]))
    short = [dataclasses.replace(one, inner=one.inner.select(["rate"])) for one in nested]
    with pytest.raises(DataError, match=r"rate; .* rate"):
        evaluate(mean, oof, nested=short)
    shared = [dataclasses.replace(one, inner=oof) for one in nested]
    with pytest.raises(DataError, match=r"fold 0 .*20 .*p0"):
        evaluate(mean, oof, nested=shared)
