"""Tests and intervals against published examples, scipy, scikit-learn and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from ensemble_kit.cli import app
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.claims import verify_claim
from ensemble_kit.evaluation.significance import (
    delong,
    holm,
    nadeau_bengio,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "n"), [(1177, 1182), (0, 10), (10, 10), (37, 80)])
def test_wilson_is_scipys(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


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


def test_the_claim_from_the_readme_is_no_count_out_of_1182() -> None:
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
    assert "one of 1001 counts, from 98500 to 99500 right" in verify_claim(".99", 100_000).sentence


def test_a_level_in_per_cent_and_a_word_for_a_number_are_refused_with_advice() -> None:
    with pytest.raises(UsageError, match=r"got 95. Use e.g. --level 0.95"):
        verify_claim("0.99", 100, level=95)
    for text in ("nan", "inf", "good"):
        with pytest.raises(DataError, match=f"got '{text}'"):
            verify_claim(text, 100)


def test_verify_claim_answers_on_the_command_line() -> None:
    said = (
        CliRunner()
        .invoke(app, ["verify-claim", "0.9962", "--n", "1182"], catch_exceptions=False)
        .output
    )
    assert "impossible: no count out of 1182 gives it" in said
    with pytest.raises(DataError, match="per cent with its sign"):
        verify_claim("99.62", 1182)


def test_holm_does_not_count_what_was_no_test() -> None:
    np.testing.assert_allclose(holm([0.04, np.nan, 0.01]), [0.04, np.nan, 0.02])
