"""Tests and intervals against published examples, scipy, scikit-learn and simulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from ensemble_kit.cli import app
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.grim import verify_claim
from ensemble_kit.evaluation.uncertainty.hypothesis_tests import (
    delong,
    holm,
    mcnemar_exact,
    nadeau_bengio,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "n"), [(1177, 1182), (0, 10), (10, 10), (37, 80)])
def test_wilson_is_scipys(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_mcnemar_of_the_approval_ratings_by_hand() -> None:
    """Agresti, Categorical Data Analysis, 10.1: 794 / 150 / 86 / 570 of 1600 ratings in pairs.

    z = (150 - 86) / sqrt(236) = 4.17, z^2 = 17.36; the difference is .04 with standard error .00955.
    """
    a = np.array([True] * 150 + [False] * 86 + [True] * 794 + [False] * 570)
    b = np.array([False] * 150 + [True] * 86 + [True] * 794 + [False] * 570)
    found = mcnemar_exact(a, b)
    assert (found.statistic, found.estimate) == (64, 0.04)
    assert found.statistic**2 / 236 == pytest.approx(17.36, abs=0.005)
    tail = sum(Fraction(comb(236, k), 2**236) for k in range(87))
    assert found.p_value == pytest.approx(float(2 * tail), rel=1e-12)


def test_delong_gives_the_hand_worked_test() -> None:
    """Three positives and two negatives under two scores, one tie.

    First score: positives 5, 4, 2 against negatives 1, 3. Shares of negatives below each positive:
    1, 1, 1/2; shares of positives above each negative: 1, 2/3. Area 5/6.
    Second: positives 5, 1, 3 against 2, 3: 1, 0, 3/4 (a tie counts half); 2/3, 1/2. Area 7/12.
    Differences: 0, 1, -1/4 with variance 7/16, and 1/3, 1/6 with variance 1/72.
    The areas differ by 1/4 with variance 7/48 + 1/144 = 22/144, so z = 3 / sqrt(22).
    """
    positive = [1, 1, 1, 0, 0]
    found = delong(positive, [5, 4, 2, 1, 3], [5, 1, 3, 2, 3])
    assert found.estimate == pytest.approx(1 / 4)
    assert found.statistic == pytest.approx(3 / np.sqrt(22))
    assert found.p_value == pytest.approx(2 * norm.sf(3 / np.sqrt(22)))


def slow_delong(positive: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """DeLong, DeLong & Clarke-Pearson 1988, as written: kernel, structural components, contrast."""
    x, y = np.flatnonzero(positive), np.flatnonzero(~positive)

    def kernel(ours: float, theirs: float) -> float:
        return 1.0 if ours > theirs else 0.5 if ours == theirs else 0.0

    tables = [np.array([[kernel(s[i], s[j]) for j in y] for i in x]) for s in (a, b)]
    v10, v01 = [t.mean(axis=1) for t in tables], [t.mean(axis=0) for t in tables]
    covariance = np.cov(v10) / len(x) + np.cov(v01) / len(y)
    contrast = np.array([1.0, -1.0])
    gain = float(contrast @ [t.mean() for t in tables])
    return gain, gain / float(np.sqrt(contrast @ covariance @ contrast))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_levels", [5, 1000])
def test_delong_by_ranks_is_delong_by_all_pairs(seed: int, n_levels: int) -> None:
    # The ranks are those of Sun & Xu 2014, "Fast implementation of DeLong's algorithm".
    rng = np.random.default_rng(seed)
    positive = rng.random(40) < 0.4
    a, b = rng.integers(0, n_levels, (2, 40)) + 0.3 * n_levels * positive
    found = delong(positive, a, b)
    assert (found.estimate, found.statistic) == pytest.approx(slow_delong(positive, a, b))


def test_delong_estimate_is_the_difference_and_its_size_is_right_under_the_null() -> None:
    rng, p_values = np.random.default_rng(0), []
    for _ in range(400):
        positive = np.arange(80) % 2
        shared = rng.normal(size=80) + positive
        a, b = shared + rng.normal(size=80), shared + rng.normal(size=80)
        found = delong(positive, a, b)
        p_values.append(found.p_value)
    assert found.estimate == pytest.approx(roc_auc_score(positive, a) - roc_auc_score(positive, b))
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_nadeau_bengio_is_wider_than_the_plain_t_test() -> None:
    from scipy.stats import ttest_1samp

    gains = [0.02, 0.01, 0.03, 0.02, 0.015]
    assert nadeau_bengio(gains, test_share=0.0).p_value == pytest.approx(
        ttest_1samp(gains, 0).pvalue
    )
    assert nadeau_bengio(gains, test_share=0.25).p_value > ttest_1samp(gains, 0).pvalue


def test_holm_gives_the_worked_table() -> None:
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.005]), [0.03, 0.04, 0.04, 0.02])
    assert holm([0.9, 0.8]).max() == 1.0


def test_the_accuracy_of_the_readme_is_not_a_count_out_of_1182() -> None:
    claim = verify_claim("0.9962", 1182)
    assert not claim.possible
    assert verify_claim("99.58%", 1182).possible
    assert (
        round(verify_claim("99.58%", 1182).low, 4),
        round(verify_claim("99.58%", 1182).high, 4),
    ) == (0.9901, 0.9982)


def test_every_true_count_is_possible_at_any_rounding() -> None:
    for n in (7, 100, 1182):
        for right in range(0, n + 1, 3):
            for digits in (2, 3, 4):
                assert verify_claim(f"{right / n:.{digits}f}", n).possible


def test_a_claims_digits_are_those_it_is_written_with_in_any_notation() -> None:
    for text in ("0.99", "99%", "9.9e-1", "99e-2", ".99"):
        claim = verify_claim(text, 1000)
        assert (claim.possible, claim.fewest, claim.n_right, claim.most) == (True, 985, 990, 995)
    assert not verify_claim("9.900e-1", 50).possible
    assert verify_claim("9.8e-1", 50).n_right == 49


def test_every_count_that_rounds_to_a_claim_is_in_its_range_and_no_other() -> None:
    for n, text in ((997, "0.87"), (1182, "0.9958"), (640, "0.5")):
        digits = len(text) - 2
        # Ends that lie half a unit away round either way.
        counts = [c for c in range(n + 1) if abs(c / n - float(text)) <= 0.5 * 10**-digits + 1e-12]
        claim = verify_claim(text, n)
        assert (claim.fewest, claim.most) == (counts[0], counts[-1])
        assert claim.low == wilson_interval(counts[0], n)[0]
        assert claim.high == wilson_interval(counts[-1], n)[1]


def test_a_level_in_per_cent_and_a_word_for_a_number_are_refused_with_advice() -> None:
    with pytest.raises(UsageError, match=r"95.*--level 0.95"):
        verify_claim("0.99", 100, level=95)
    for text in ("nan", "inf", "good"):
        with pytest.raises(DataError, match=f"'{text}'"):
            verify_claim(text, 100)


def test_verify_claim_on_the_command_line() -> None:
    printed = (
        CliRunner()
        .invoke(app, ["verify-claim", "0.9962", "--n", "1182"], catch_exceptions=False)
        .output
    )
    first, weaker = printed.split("\n", 1)
    assert "impossible" in first
    assert "2355 of 2364" not in first
    assert "2355 of 2364" in weaker
    with pytest.raises(DataError, match=r"99\.62 "):
        verify_claim("99.62", 1182)


def _by_brute_force(text: str, n: int) -> dict[str, list[int]]:
    """Return all counts out of n that print as the text, each count printed in exact decimals."""
    value, one = Decimal(text.rstrip("%")), 100 if text.endswith("%") else 1
    unit = Decimal(1).scaleb(int(value.as_tuple().exponent))
    exact = Context(prec=60)
    modes = {"rounded": (ROUND_HALF_UP, ROUND_HALF_EVEN), "truncated": (ROUND_DOWN,)}
    return {
        how: [
            count
            for count in range(n + 1)
            if value
            in {exact.divide(count * one, n).quantize(unit, mode, exact) for mode in rounding}
        ]
        for how, rounding in modes.items()
    }


@pytest.mark.parametrize(
    ("text", "n"),
    [
        *(("96.66%", 450), ("0.9666", 450), ("96.67%", 450), ("99.58%", 1182), ("99.62%", 1182)),
        *(("99.57%", 1182), ("0.863", 156), ("0.99", 997), ("0.8", 997), ("97.0%", 401)),
        *(("0.9900", 50), ("66.6%", 3), ("0.12", 8), ("0.0", 30), ("1.00", 30), ("100%", 30)),
    ],
)
def test_the_counts_of_a_claim_are_those_of_brute_force_rounded_or_truncated(
    text: str, n: int
) -> None:
    claim, expected = verify_claim(text, n), _by_brute_force(text, n)
    found = {how: list[int]() for how in expected}
    for way in claim.counts:
        for how in found:
            if how in way.how:
                found[how] = [*range(way.fewest, way.most + 1)]
    assert found == expected
    assert claim.possible == any(expected.values())
    if claim.possible:
        assert claim.fewest <= claim.n_right <= claim.most
        assert claim.weaker == ()


@pytest.mark.parametrize(("text", "n"), [("0.863", 156), ("99.62%", 1182), ("97.73%", 1182)])
def test_the_means_of_runs_are_those_of_brute_force_without_repeated_fractions(
    text: str, n: int
) -> None:
    claim = verify_claim(text, n)
    digits = len(text.rstrip("%").split(".")[1]) + (2 if "%" in text else 0)
    limit = max(k for k in range(1, 11) if k * n <= 0.9 * 10**digits)
    expected = {
        Fraction(count, k * n)
        for k in range(2, limit + 1)
        for counts in _by_brute_force(text, k * n).values()
        for count in counts
    }
    runs = [way for way in claim.weaker if way.runs > 1]
    assert not claim.possible
    assert {Fraction(way.fewest, way.of) for way in runs} == expected
    assert len(runs) == len(expected)
    assert max(way.share for way in runs) <= 0.9
    assert str(limit + 1) in claim.not_listed[0]


def test_a_mean_of_three_runs_is_named_with_its_count_and_its_runs() -> None:
    first = verify_claim("0.863", 156).weaker[0]
    assert (first.fewest, first.most, first.of, first.runs) == (404, 404, 468, 3)
    assert first.share == pytest.approx(0.468)


def test_a_count_rounded_to_fewer_digits_is_found_behind_padded_zeros() -> None:
    way = verify_claim("0.8700", 53).weaker[0]
    assert (way.fewest, way.most, way.of, way.runs, way.folds) == (46, 46, 53, 1, 1)
    assert way.share == pytest.approx(0.53 / 100)
    assert verify_claim("87.0%", 23).weaker == verify_claim("0.870", 23).weaker


@pytest.mark.parametrize(
    ("text", "n", "folds"), [("0.8634", 22, 3), ("0.8700", 53, 10), ("0.7381", 17, 5)]
)
def test_a_mean_of_unequal_folds_is_found_where_brute_force_finds_one(
    text: str, n: int, folds: int
) -> None:
    size, larger = divmod(n, folds)
    in_small = (folds - larger) * size
    half = Fraction(1, 2 * 10**4)
    sums = {
        small + large
        for small in range(in_small + 1)
        for large in range(n - in_small + 1)
        if -half
        <= (Fraction(small, size) + Fraction(large, size + 1)) / folds - Fraction(text)
        <= 2 * half
    }
    found = {way.fewest for way in verify_claim(text, n).weaker if way.folds == folds}
    assert found <= sums
    assert bool(found) == bool(sums)


def test_true_means_of_folds_or_runs_and_truncated_values_have_an_explanation() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        n, runs = int(rng.integers(40, 400)), int(rng.integers(2, 11))
        right = int(rng.integers(n * runs // 2, n * runs + 1))
        claim = verify_claim(f"{Decimal(right) / (n * runs):.5f}", n)
        assert claim.counts or claim.weaker
        size, larger = divmod(n, runs)
        sizes = [size + 1] * larger + [size] * (runs - larger)
        mean = float(np.mean([rng.integers(s // 2, s + 1) / s for s in sizes]))
        claim = verify_claim(f"{mean:.5f}", n)
        assert claim.counts or claim.weaker or claim.not_listed
        assert verify_claim(f"{int(10**5 * (right // runs)) // n / 10**5:.5f}", n).possible


def test_a_claim_as_json_has_every_explanation(cli: Callable[..., tuple[int, str]]) -> None:
    found = json.loads(cli("verify-claim", "96.66%", "--n", "450", "--json")[1])
    assert found["possible"]
    assert [(way["fewest"], way["how"]) for way in found["counts"]] == [(435, "truncated")]
    found = json.loads(cli("verify-claim", "0.863", "--n", "156", "--json")[1])
    assert not found["possible"]
    assert (found["weaker"][0]["fewest"], found["weaker"][0]["runs"]) == (404, 3)


def test_a_claim_with_too_many_digits_is_refused() -> None:
    for text in ("1e-99999999", "0." + "3" * 40):
        with pytest.raises(DataError, match="18"):
            verify_claim(text, 7)


def test_without_variance_a_gain_has_no_p_value() -> None:
    opposite = delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert np.isnan(opposite.p_value)
    same = nadeau_bengio([0.02, 0.02, 0.02], test_share=0.5)
    assert (np.isnan(same.p_value), same.estimate) == (True, pytest.approx(0.02))


def test_holm_does_not_count_nan() -> None:
    np.testing.assert_allclose(holm([0.04, np.nan, 0.01]), [0.04, np.nan, 0.02])
