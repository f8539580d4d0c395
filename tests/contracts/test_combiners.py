"""Every public combiner passes every check, is a scikit-learn estimator, and can be saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_score

from ensemble_kit.combiners import COMBINERS, make_combiner
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.combiners.saved import load_combiner, save_combiner
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.testing import LAWS, toy_predictions

QUICK = {
    "mlp": {"epochs": 3, "n_networks": 2},
    "feature-mlp": {"epochs": 3, "n_networks": 2, "components": 4},
    "pooled-mlp": {"epochs": 2},
}
NAMES = list(COMBINERS)


def quick(name: str) -> Combiner:
    return make_combiner(name, **QUICK.get(name, {}))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_every_combiner_passes_the_check(name: str, law) -> None:
    law(quick(name), toy_predictions(120, 4, 3, n_groups=20, n_features=6))


@pytest.mark.parametrize("name", NAMES)
def test_every_combiner_handles_two_classes(name: str) -> None:
    for law in (LAWS[0], LAWS[3]):
        law(quick(name), toy_predictions(90, 3, 2, n_groups=15, n_features=6))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "oracle"])
def test_a_saved_combiner_is_restored(name: str, tmp_path: Path) -> None:
    table = toy_predictions(120, 4, 3, n_groups=20, n_features=6)
    fitted = quick(name).fit_to(table)
    save_combiner(tmp_path, fitted)
    again = load_combiner(tmp_path)
    assert repr(again) == repr(fitted)
    np.testing.assert_array_equal(again.apply(table).proba, fitted.apply(table).proba)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "oracle"])
def test_every_combiner_is_a_scikit_learn_classifier(name: str) -> None:
    combiner = quick(name)
    assert is_classifier(combiner)
    assert clone(combiner).get_params() == combiner.get_params()


def test_cross_val_score_works_unchanged() -> None:
    table = toy_predictions(120, 4, 3, n_groups=20)
    scores = cross_val_score(MeanProba(), table.logits, table.labels, cv=4, scoring="neg_log_loss")
    assert scores.shape == (4,)
    assert (scores < 0).all()
    assert (scores > -np.log(3)).all()


def test_grid_search_finds_the_tie_rule_that_is_right() -> None:
    labels, rows = np.arange(90) % 3, np.arange(90)
    logits = np.zeros((90, 2, 3))
    logits[rows, 0, labels] = 3.0  # the more confident of two members that never agree is right
    logits[rows, 1, (labels + 1) % 3] = 1.0
    search = GridSearchCV(MajorityVote(), {"ties": ["lowest", "proba"]}, cv=3).fit(logits, labels)
    assert search.best_params_ == {"ties": "proba"}
    assert search.best_score_ == 1.0


class ForgetsToNormalise(Combiner):
    def _combine(self, logits: np.ndarray) -> Combined:
        proba = np.exp(logits.astype(np.float64).mean(axis=1))
        return Combined(proba, proba.argmax(axis=1), np.zeros(len(proba), dtype=bool))


class TreatsFirstMemberBetter(MeanProba):
    def _combine(self, logits: np.ndarray) -> Combined:
        return super()._combine(logits[:, :1])


@pytest.mark.parametrize(
    ("broken", "law"),
    [(ForgetsToNormalise(), "proba is in"), (TreatsFirstMemberBetter(), "member order")],
)
def test_the_suite_finds_a_broken_combiner(broken: Combiner, law: str) -> None:
    table = toy_predictions(120, 4, 3, n_groups=20)

    def run_all() -> None:
        for one in LAWS:
            one(broken, table)

    with pytest.raises(AssertionError, match=law):
        run_all()
