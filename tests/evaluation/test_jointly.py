"""Verdicts on several methods at once: intervals hold jointly, and the choice is out-of-fold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.base import Combined, Combiner, decided
from ensemble_kit.evaluation.bootstrap import percentile_interval
from ensemble_kit.evaluation.compare import chosen, chosen_verdict
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.jointly import joint_intervals
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.testing import toy_predictions

QUICK = Protocol(n_resamples=400)


def normal(n_names: int, n: int = 4000, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {str(i): rng.normal(size=n) for i in range(n_names)}


def inside(resamples: dict[str, np.ndarray], intervals) -> np.ndarray:
    return np.all(
        [(v >= intervals[k][0]) & (v <= intervals[k][1]) for k, v in resamples.items()], axis=0
    )


@pytest.mark.parametrize("n_names", [1, 2, 18])
def test_joint_intervals_hold_together_as_often_as_promised(n_names: int) -> None:
    resamples = normal(n_names)
    share = inside(resamples, joint_intervals(resamples)).mean()
    assert share == pytest.approx(0.95, abs=0.008)


def test_independent_figures_pay_what_sidak_says() -> None:
    ends = joint_intervals(normal(10, 40_000))["3"]
    from scipy.stats import norm

    want = norm.ppf(1 - (1 - 0.95 ** (1 / 10)) / 2)
    assert np.abs(ends) == pytest.approx([want, want], abs=0.1)


def test_one_alone_or_many_alike_have_the_plain_interval() -> None:
    one = normal(1)["0"]
    plain = percentile_interval(one)
    assert joint_intervals({"a": one})["a"] == pytest.approx(plain)
    alike = {"a": one, "b": one, "c": -3 * one, "still": np.zeros(len(one))}
    assert joint_intervals(alike)["a"] == pytest.approx(plain, abs=0.01)
    assert joint_intervals(alike)["still"] == (0.0, 0.0)


def test_undefined_resamples_say_nothing() -> None:
    both = normal(2)
    both["0"][::10] = np.nan
    both["gone"] = np.full(4000, np.nan)
    found = joint_intervals(both)
    assert found["gone"] is None
    assert np.isfinite(found["0"] + found["1"]).all()


class Guess(Combiner):
    """The mean of the members with a few answers changed at random, differently for each seed."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _combine(self, logits) -> Combined:
        rng = np.random.default_rng(self.seed)
        proba = np.full((len(logits), logits.shape[2]), 0.1)
        proba[np.arange(len(logits)), logits.mean(axis=1).argmax(axis=1)] = 1.0
        flipped = rng.random(len(logits)) < 0.25
        proba[flipped] = rng.random((flipped.sum(), logits.shape[2]))
        return decided(proba / proba.sum(axis=1, keepdims=True))


def words_of_the_best(n_methods: int, n_tables: int = 20) -> list[str]:
    """What is said, cross-fitted, of the best of many methods that are all the same but for luck."""
    said = []
    for seed in range(n_tables):
        table = toy_predictions(150, 3, 3, n_groups=50, seed=seed)
        labels = np.random.default_rng(seed).permutation(np.asarray(table.labels))
        noise = dataclasses.replace(table, labels=labels)
        field = {f"guess{k}": Guess(1000 * seed + k) for k in range(n_methods)}
        judged = evaluate_all(
            field, noise, protocol=Protocol(n_resamples=300, metrics=("accuracy",))
        )
        best = chosen(judged, Protocol())
        said += [v.word for v in best.verdicts if v.against == "mean"]
    return said


def test_the_luckiest_of_many_guessers_is_not_called_better() -> None:
    assert words_of_the_best(12).count("better") <= 3


def test_the_sentence_says_among_how_many_the_method_was_picked() -> None:
    oof = toy_predictions()
    test = dataclasses.replace(
        toy_predictions(120, kind="test", seed=0), class_names=oof.class_names
    )
    methods = {name: make_combiner(name) for name in ("vote", "median", "max")}
    judged = evaluate_all(methods, oof, test, protocol=QUICK)
    said = chosen_verdict(judged, QUICK)
    assert "95 % jointly for 3 methods, over 24 patients, test" in said
    assert said.endswith(
        "picked among 3 methods by its cross-fitted balanced accuracy, "
        "before the test part was looked at."
    )
    alone = evaluate_all({"vote": make_combiner("vote")}, oof, test, protocol=QUICK)
    assert "picked" not in chosen_verdict(alone, QUICK)


def test_the_method_is_picked_without_the_test_part() -> None:
    oof = toy_predictions()
    methods = {name: make_combiner(name) for name in ("vote", "median", "max", "min")}
    alone = chosen(evaluate_all(methods, oof, protocol=QUICK), QUICK).name
    for seed in range(3):
        test = toy_predictions(90, kind="test", seed=seed)
        assert chosen(evaluate_all(methods, oof, test, protocol=QUICK), QUICK).name == alone


class Contrary(Combiner):
    """Says the opposite of the first member."""

    is_fitted_to_labels = True

    def _combine(self, logits) -> Combined:
        shifted = np.exp(-logits[:, 0] - (-logits[:, 0]).max(axis=1, keepdims=True))
        return decided(shifted / shifted.sum(axis=1, keepdims=True))


def test_a_fallen_method_is_called_so_in_its_verdict() -> None:
    judged = evaluate_all({"nearest": Contrary()}, toy_predictions(), protocol=QUICK)
    assert chosen_verdict(judged, QUICK).startswith("nearest (fell back to mean) is")
