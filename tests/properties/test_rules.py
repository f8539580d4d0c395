"""Properties of the rules, on generated logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble_kit.combiners import COMBINERS, combiner_class, make_combiner
from ensemble_kit.evaluation.uncertainty.hypothesis_tests import holm, mcnemar_exact
from ensemble_kit.predictions.method_predictions import Combined

# Combiners that are not fitted to labels, and those for which a repeated member is that member.
RULES = sorted(
    name
    for name in COMBINERS
    if not (combiner_class(name).is_fitted_to_labels or combiner_class(name).needs_labels)
)
REPEATABLE = [name for name in RULES if combiner_class(name).is_rule]
FEW = settings(max_examples=40, deadline=None)
# Grid points, so that exact ties are frequent; large ones, for which a plain exp would overflow.
VALUES = st.sampled_from([-1000.0, -30.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 30.0, 1000.0])
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 4))
LOGITS = SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=VALUES))


def combined(name: str, logits: np.ndarray) -> Combined:
    return make_combiner(name).fit(logits, np.zeros(len(logits), dtype=int)).combine(logits)


def test_there_are_rules_to_check() -> None:
    assert {"vote", "mean", "mean-logits", "median", "max", "product"} <= set(RULES)
    assert {"vote", "mean", "mean-logits", "median"} <= set(REPEATABLE)


@pytest.mark.parametrize("name", RULES)
@FEW
@given(logits=LOGITS)
def test_rows_are_probabilities_for_any_logits(name: str, logits: np.ndarray) -> None:
    out = combined(name, logits)
    assert np.isfinite(out.proba).all()
    assert (out.proba >= 0).all()
    np.testing.assert_allclose(out.proba.sum(axis=1), 1.0, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
@FEW
@given(logits=LOGITS, seed=st.integers(0, 99))
def test_member_order_changes_nothing(name: str, logits: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(logits.shape[1])
    a, b = combined(name, logits), combined(name, logits[:, order])
    np.testing.assert_allclose(a.proba, b.proba, atol=1e-9)
    clear = np.sort(a.proba, axis=1)[:, -1] - np.sort(a.proba, axis=1)[:, -2] > 1e-9
    np.testing.assert_array_equal(a.predicted[clear], b.predicted[clear])


@pytest.mark.parametrize("name", REPEATABLE)
@FEW
@given(logits=LOGITS, times=st.integers(2, 5))
def test_one_member_repeated_decides_as_that_member(
    name: str, logits: np.ndarray, times: int
) -> None:
    alone = logits[:, :1]
    a, b = combined(name, alone), combined(name, np.repeat(alone, times, axis=1))
    clear = np.sort(alone[:, 0], axis=1)[:, -1] > np.sort(alone[:, 0], axis=1)[:, -2]
    np.testing.assert_array_equal(a.predicted[clear], b.predicted[clear])
    np.testing.assert_array_equal(a.predicted[clear], alone[:, 0].argmax(axis=1)[clear])


@pytest.mark.parametrize("name", RULES)
@FEW
@given(logits=LOGITS, shift=st.sampled_from([-8.0, 0.5, 64.0]))
def test_a_constant_on_all_logits_of_a_member_changes_nothing(
    name: str, logits: np.ndarray, shift: float
) -> None:
    moved = logits.copy()
    moved[:, 0] += shift
    np.testing.assert_allclose(combined(name, logits).proba, combined(name, moved).proba, atol=1e-9)


@FEW
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_holm_never_lowers_a_p_value_and_does_not_depend_on_order(
    p: list[float], seed: int
) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1).all()
    order = np.random.default_rng(seed).permutation(len(p))
    np.testing.assert_allclose(holm(np.array(p)[order]), adjusted[order])


@FEW
@given(right=arrays(bool, st.tuples(st.integers(1, 60), st.just(2))))
def test_mcnemar_is_the_binomial_test_and_symmetric(right: np.ndarray) -> None:
    from scipy.stats import binomtest

    a, b = right.T
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    found = mcnemar_exact(a, b).p_value
    assert found == mcnemar_exact(b, a).p_value
    if only_a + only_b:
        assert found == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    else:
        assert found == 1.0
