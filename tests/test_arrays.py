"""Checks of logits and labels, softmax compared with scipy, and derived seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax as scipy_softmax

from ensemble_kit.arrays import check_labels, check_logits, frozen, log_softmax, softmax
from ensemble_kit.errors import DataError
from ensemble_kit.seeding import derive_seed, generator

LOGITS = arrays(np.float64, (4, 3, 2), elements=st.floats(-1e4, 1e4))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(LOGITS)
def test_softmax_equals_scipy(logits: np.ndarray) -> None:
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=-1), atol=1e-12)
    np.testing.assert_allclose(softmax(logits).sum(axis=-1), 1.0, atol=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(LOGITS, st.floats(-1e3, 1e3))
def test_softmax_ignores_a_constant_shift(logits: np.ndarray, shift: float) -> None:
    np.testing.assert_allclose(softmax(logits + shift), softmax(logits), atol=1e-9)


def test_softmax_computes_in_float64() -> None:
    z = np.array([[10.0, 0.0]], dtype=np.float16)
    assert softmax(z).dtype == np.float64
    assert softmax(z)[0, 1] == pytest.approx(np.exp(-10) / (1 + np.exp(-10)), rel=1e-12)


def test_huge_logits_do_not_overflow() -> None:
    assert softmax(np.array([3e38, 0.0])).tolist() == [1.0, 0.0]
    assert log_softmax(np.array([3e38, 0.0]))[0] == 0.0


def test_minus_infinity_is_probability_zero() -> None:
    logits = np.array([[[0.0, -np.inf]]])
    assert softmax(check_logits(logits)).tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_are_refused_with_their_position(value: float) -> None:
    logits = np.zeros((4, 3, 2))
    logits[2, 1, 0] = value
    with pytest.raises(DataError, match=r"1 of 12 \(sample, member\) rows"):
        check_logits(logits)
    with pytest.raises(DataError, match=r"\(2, 1\)"):
        check_logits(logits, allow_missing=True)


def test_a_row_of_minus_infinity_is_refused() -> None:
    logits = np.zeros((2, 1, 2))
    logits[1] = -np.inf
    with pytest.raises(DataError, match=r"\(1, 0\)"):
        check_logits(logits, allow_missing=True)


def test_a_missing_row_is_accepted_only_if_allowed() -> None:
    logits = np.zeros((2, 2, 2))
    logits[1, 0] = np.nan
    assert check_logits(logits, allow_missing=True).shape == (2, 2, 2)
    with pytest.raises(DataError, match=r"\(1, 0\)"):
        check_logits(logits)


def test_infinities_of_both_signs_are_refused() -> None:
    logits = np.zeros((2, 1, 2))
    logits[0, 0, 0], logits[1, 0, 0] = np.inf, -np.inf
    with pytest.raises(DataError, match="1 of 2"):
        check_logits(logits)


def test_finite_logits_with_an_overflowing_sum_are_accepted() -> None:
    logits = np.full((4, 1, 2), 1.7e308)
    assert check_logits(logits) is logits


@pytest.mark.parametrize(
    ("shape", "printed"),
    [((4, 2), r"\(4, 2\)"), ((4, 0, 2), r"\(4, 0, 2\)"), ((4, 3, 1), r"\(4, 3, 1\)")],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], printed: str) -> None:
    with pytest.raises(DataError, match=printed):
        check_logits(np.zeros(shape))


def test_floats_stay_as_they_are_and_other_numbers_become_float32() -> None:
    doubles = np.zeros((1, 1, 2))
    assert check_logits(doubles) is doubles
    assert check_logits(np.zeros((1, 1, 2), dtype=np.int64)).dtype == np.float32


def test_labels_become_int64_and_must_be_class_indices() -> None:
    assert check_labels(np.array([0, 1], dtype=np.uint8), 2, 2).dtype == np.int64
    for labels, printed in (([0, 2], "0 and 2"), ([-1, 0], "-1 and 0"),
                         ([0.0, 1.0], "float64"), (["a", "b"], "<U1"),
                         ([0], "for 2 samples")):  # fmt: skip
        with pytest.raises(DataError, match=printed):
            check_labels(labels, 2, 2)


def test_a_frozen_array_is_read_only_and_its_source_is_not() -> None:
    source = np.zeros(3)
    view = frozen(source)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    source[0] = 1


# -- seeds ---------------------------------------------------------------------------------


def test_derived_seeds_are_the_same_on_every_machine() -> None:
    # A fixed value: a change of it would change all results.
    assert derive_seed(0, "resnet18", 1) == 7715685058822472169
    assert (
        generator(0, "folds").integers(1000, size=3).tolist()
        == generator(0, "folds").integers(1000, size=3).tolist()
    )


def test_names_of_seeds_are_separated() -> None:
    seeds = {
        derive_seed(0, "ab", "c"), derive_seed(0, "a", "bc"), derive_seed(0, "abc"),
        derive_seed(1, "abc"), derive_seed(0), derive_seed(0, ""),
    }  # fmt: skip
    assert len(seeds) == 6


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(-(10**12), 10**12), st.text(st.characters(codec="utf-8")))
def test_a_derived_seed_fits_every_generator(seed: int, name: str) -> None:
    assert 0 <= derive_seed(seed, name) < 2**63
