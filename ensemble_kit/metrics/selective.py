"""Selective prediction: the error among the samples that are decided.

Samples are ranked by a confidence. Samples with equal confidence are decided together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array


def ranked_decisions(
    labels: npt.NDArray[np.int64], proba: Array, predicted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], Array]:
    """Whether decisions are correct, and their confidence: the probability of the decided class.

    An abstention (-1) is an error with less confidence than any decision.

    Examples
    --------
    >>> proba = np.array([[0.8, 0.2], [0.5, 0.5]])
    >>> right, certainty = ranked_decisions(np.array([0, 1]), proba, np.array([0, -1]))
    >>> right.tolist(), certainty.tolist()
    ([True, False], [0.8, -1.0])
    """
    certainty = np.where(predicted < 0, -1.0, proba[np.arange(len(labels)), predicted])
    return predicted == labels, certainty


def risk_coverage(right: npt.ArrayLike, confidence: npt.ArrayLike) -> Array:
    """Rows (coverage, error among the covered), the most certain first, shape (n_levels, 2).

    References
    ----------
    El-Yaniv, R., & Wiener, Y. (2010). On the foundations of noise-free selective classification.
    JMLR 11, 1605-1641.

    Examples
    --------
    >>> risk_coverage([True, True, False, True], [0.9, 0.8, 0.7, 0.6]).tolist()
    [[0.25, 0.0], [0.5, 0.0], [0.75, 0.3333333333333333], [1.0, 0.25]]
    """
    hit, certainty = np.asarray(right, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    order = np.argsort(-certainty, kind="stable")
    wrong, seen = np.cumsum(1 - hit[order]), np.arange(1, len(hit) + 1)
    last = np.append(
        np.diff(certainty[order]) != 0, True
    )  # the end of each run of equal confidences
    return np.stack([seen[last] / len(hit), wrong[last] / seen[last]], axis=1)


def aurc(right: npt.ArrayLike, confidence: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean error over all coverages, lower is better.

    Samples with equal confidence count as in random order.

    Examples
    --------
    >>> round(aurc([True, True, False, True], [0.9, 0.8, 0.7, 0.6]), 4)
    0.1458
    """
    hit, certainty = np.asarray(right, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    _, level = np.unique(-certainty, return_inverse=True)
    mean_hit = (np.bincount(level, weights=hit) / np.bincount(level))[level]
    order = np.argsort(-certainty, kind="stable")
    return float((np.cumsum(1 - mean_hit[order]) / np.arange(1, len(hit) + 1)).mean())


def coverage_at_error(
    right: npt.ArrayLike, confidence: npt.ArrayLike, max_error: float
) -> tuple[float, float]:
    """The largest coverage with at most `max_error`, and the confidence below which to refer.

    Use out-of-fold rows only. (0, inf) if no coverage is sufficient.
    """
    curve = risk_coverage(right, confidence)
    fine = np.flatnonzero(curve[:, 1] <= max_error + 1e-12)
    if not len(fine):
        return 0.0, float("inf")
    coverage = float(curve[fine[-1], 0])
    n_decided = round(coverage * len(np.asarray(confidence)))
    return coverage, float(np.sort(np.asarray(confidence, dtype=np.float64))[::-1][n_decided - 1])
