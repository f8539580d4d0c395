"""The derivative of a combiner: weights of means, gradients of stackers, margins of votes."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.explanation.combiner_slope import combiner_slope, log_odds_slope
from ensemble_kit.predictions.method_predictions import Combined, decided

N, M, C = 60, 4, 3
CLASSES = np.arange(6) % C


def fitted(name: str) -> tuple[Combiner, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(N) % C
    skill = np.array([2.0, 1.0, 0.5, 0.0])[:, None]
    logits = rng.normal(size=(N, M, C)) + skill * np.eye(C)[labels][:, None]
    return make_combiner(name).fit(logits, labels, np.arange(N) // 3), logits[:6]


def log_odds(combiner: Combiner, logits: np.ndarray) -> np.ndarray:
    inside = combiner.predict_proba(logits)[np.arange(len(logits)), CLASSES]
    return np.log(inside / (1 - inside))


@pytest.mark.parametrize(
    "name", ["logistic", "ridge", "mlp", "dirichlet", "two-layer", "classwise"]
)
def test_a_stackers_directions_predict_small_changes_of_its_log_odds(name: str) -> None:
    combiner, logits = fitted(name)
    slope = combiner_slope(combiner, logits, CLASSES)
    move = 1e-3 * np.random.default_rng(1).normal(size=logits.shape)
    change = log_odds(combiner, logits + move) - log_odds(combiner, logits - move)
    np.testing.assert_allclose(
        change, 2 * (slope.directions * move).sum(axis=(1, 2)), rtol=2e-3, atol=1e-7
    )
    assert not slope.replaced.any()


@pytest.mark.parametrize(
    ("name", "weights"),
    [("mean", [0.25] * 4), ("mean-logits", [0.25] * 4), ("simplex", None), ("greedy", None)],
)
def test_members_of_a_mean_have_their_weights(name: str, weights: list[float] | None) -> None:
    combiner, logits = fitted(name)
    own = np.array(weights or combiner.weights_)  # type: ignore[attr-defined]
    found = combiner_slope(combiner, logits, CLASSES).directions
    want = own[None, :, None] * log_odds_slope(logits, CLASSES)
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_the_derivative_does_not_vanish_for_confident_members() -> None:
    combiner, logits = fitted("mean")
    logits = logits.copy()
    logits[0, 0] = [80.0, 0.0, 0.0]
    found = combiner_slope(combiner, logits, CLASSES).directions[0, 0]
    np.testing.assert_allclose(found, [0.25, -0.125, -0.125], atol=1e-6)


def test_only_the_best_member_has_a_derivative() -> None:
    combiner, logits = fitted("best-member")
    found = np.abs(combiner_slope(combiner, logits, CLASSES).directions).sum(axis=(0, 2))
    assert np.flatnonzero(found > 1e-9).tolist() == [combiner.member_]  # type: ignore[attr-defined]


def test_votes_have_the_derivative_of_their_margins() -> None:
    combiner, _ = fitted("vote")
    logits = np.tile([[3.0, 1.0, 2.0]], (1, M, 1))
    found = combiner_slope(combiner, logits, np.array([1])).directions
    assert found[0, 0].tolist() == [-0.25, 0.25, 0.0]


def test_a_step_combiner_gets_margins_and_is_marked_as_replaced() -> None:
    class Steps(Combiner):
        def _combine(self, logits: np.ndarray) -> Combined:
            first = (logits[:, 0, :1] > 0).astype(float)
            return decided(0.2 + 0.6 * np.concatenate([first, 1 - first], axis=1))

    logits = np.random.default_rng(0).normal(size=(5, 3, 2))
    combiner = Steps().fit(logits, [0, 1, 0, 1, 0])
    slope = combiner_slope(combiner, logits, np.zeros(5, dtype=np.int64))
    assert slope.replaced.all()
    assert (slope.directions == np.array([1, -1]) / 3).all()


@pytest.mark.parametrize("name", ["mean", "logistic", "mlp", "median", "knora-u", "temperature"])
def test_directions_ignore_constants_added_to_a_members_logits(name: str) -> None:
    combiner, logits = fitted(name)
    found = combiner_slope(combiner, logits, CLASSES).directions
    np.testing.assert_allclose(found.sum(axis=2), 0, atol=1e-6)
