"""Classical tests and intervals for comparing classifiers: Wilson, McNemar, DeLong, Nadeau-Bengio, Holm."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError
from ensemble_kit.metrics.ranking import auroc_placements

# Smaller values are rounding errors of zero.
SMALLEST = 1e-12


@dataclasses.dataclass(frozen=True)
class Test:
    """Statistic, two-sided p value, and estimate of a test.

    Statistic and p value are NaN if the variance of the estimate is zero.
    """

    __test__ = False  # not a test case of pytest

    statistic: float
    p_value: float
    estimate: float


def wilson_interval(n_right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion of independent trials.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference.
    JASA 22(158), 209-212.

    Examples
    --------
    >>> low, high = wilson_interval(1177, 1182)
    >>> round(low, 4), round(high, 4)
    (0.9901, 0.9982)
    """
    if not 0 <= n_right <= n or n < 1:
        raise DataError(
            f"{n_right} of {n} is not a proportion",
            "it needs n of at least 1, and 0 to n correct predictions",
            "Check the counts",
        )
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = n_right / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def mcnemar_exact(right_a: npt.ArrayLike, right_b: npt.ArrayLike) -> Test:
    """Exact test that two classifiers err equally often on the same independent samples.

    Parameters
    ----------
    right_a, right_b : array-like of bool, shape (n_samples,)
        Whether each prediction is right.

    Returns
    -------
    Test
        `statistic`: samples that only a predicts correctly, minus samples that only b does;
        `estimate`: accuracy of a minus b.

    References
    ----------
    McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions
    or percentages. Psychometrika 12(2), 153-157.

    Examples
    --------
    >>> a = [True] * 9 + [False]
    >>> b = [False] * 9 + [True]
    >>> round(mcnemar_exact(a, b).p_value, 4)
    0.0215
    """
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    n, least = only_a + only_b, min(only_a, only_b)
    tail = (
        sum(comb(n, k) for k in range(least + 1)) / 2**n
        if n < 1000
        else _normal_tail(only_a, only_b)
    )
    return Test(float(only_a - only_b), min(1.0, 2 * tail), (only_a - only_b) / max(len(a), 1))


def _normal_tail(only_a: int, only_b: int) -> float:
    n = only_a + only_b
    return NormalDist().cdf(-max(abs(only_a - only_b) - 1, 0) / sqrt(n))


def delong(positive: npt.ArrayLike, scores_a: npt.ArrayLike, scores_b: npt.ArrayLike) -> Test:
    """Test that two scores have the same AUROC on the same samples.

    References
    ----------
    DeLong, E. R., DeLong, D. M., & Clarke-Pearson, D. L. (1988). Comparing the areas under two or
    more correlated receiver operating characteristic curves. Biometrics 44(3), 837-845.

    Examples
    --------
    >>> positive = [0, 0, 0, 1, 1, 1]
    >>> test = delong(positive, [1, 2, 3, 4, 5, 6], [1, 4, 3, 2, 5, 6])
    >>> round(test.estimate, 4)
    0.2222
    """
    is_positive = np.asarray(positive, dtype=bool)
    if min(is_positive.sum(), (~is_positive).sum()) < 2:
        raise DataError(
            f"There are {is_positive.sum()} positives among {len(is_positive)} samples",
            "DeLong's test needs at least two positives and two negatives",
            "Add samples",
        )
    placed = [
        auroc_placements(is_positive, np.asarray(s, dtype=np.float64)) for s in (scores_a, scores_b)
    ]
    gain = placed[0] - placed[1]
    estimate = float(gain[is_positive].mean())
    variance = float(
        gain[is_positive].var(ddof=1) / is_positive.sum()
        + gain[~is_positive].var(ddof=1) / (~is_positive).sum()
    )
    return _z_test(estimate, sqrt(variance))


def _z_test(estimate: float, spread: float) -> Test:
    z = _in_spreads(estimate, spread)
    return Test(z, 2 * NormalDist().cdf(-abs(z)), estimate)


def _in_spreads(estimate: float, spread: float) -> float:
    """The estimate in units of its spread; NaN if the spread is only rounding error."""
    if abs(estimate) < SMALLEST:
        return 0.0
    return estimate / spread if spread > SMALLEST * abs(estimate) else np.nan


def nadeau_bengio(differences: Sequence[float] | Array, *, test_share: float) -> Test:
    """Corrected resampled t test over folds, whose training sets overlap.

    Parameters
    ----------
    differences : sequence of float, shape (n_folds,)
        Metric of one method minus the other, per fold (and repeat).
    test_share : float
        Size of a fold over the size of its training set: 1 / (k - 1) for k folds.

    References
    ----------
    Nadeau, C., & Bengio, Y. (2003). Inference for the generalization error. Machine Learning 52,
    239-281.

    Examples
    --------
    >>> round(nadeau_bengio([0.02, 0.01, 0.03, 0.02, 0.02], test_share=0.25).p_value, 3)
    0.014
    """
    from scipy.stats import t

    gains = np.asarray(differences, dtype=np.float64)
    n = len(gains)
    if n < 2:
        raise DataError(f"There is {n} fold", "the test needs at least two", "Use all folds")
    spread = sqrt(float(gains.var(ddof=1)) * (1.0 / n + test_share))
    mean = float(gains.mean())
    statistic = _in_spreads(mean, spread)
    return Test(statistic, float(2 * t.sf(abs(statistic), n - 1)), mean)


def holm(p_values: Sequence[float] | Array) -> Array:
    """p values adjusted for several tests, shape (n_tests,); NaN (no test) stays NaN.

    References
    ----------
    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal
    of Statistics 6(2), 65-70.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN comes last
    raised = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    out = np.full(len(p), np.nan)
    out[order] = np.minimum(raised, 1.0)
    return out
