"""Figures for ordered classes (0 < 1+ < 2+ < 3+), of confusion matrices (..., n_classes, n_classes).

Leading axes stay. Assumes that neighbouring classes are one grade apart.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.metrics.classification import _ratio, weighted_kappa


def _grades_apart(n_classes: int) -> Array:
    grade = np.arange(n_classes)
    return np.abs(grade[:, None] - grade[None, :]).astype(np.float64)


def quadratic_weighted_kappa(confusion: Array) -> Array:
    """Kappa with costs that grow with the square of the grades apart.

    References
    ----------
    Cohen, J. (1968). Weighted kappa. Psychological Bulletin 70(4), 213-220.

    Examples
    --------
    >>> float(quadratic_weighted_kappa(np.eye(3)))
    1.0
    """
    return weighted_kappa(confusion, _grades_apart(confusion.shape[-1]) ** 2)


def mean_absolute_error(confusion: Array) -> Array:
    """Mean number of grades between label and prediction."""
    return cost(confusion, _grades_apart(confusion.shape[-1]))


def adjacent_errors(confusion: Array) -> Array:
    """Share of samples that are exactly one grade off."""
    return cost(confusion, (_grades_apart(confusion.shape[-1]) == 1).astype(np.float64))


def far_errors(confusion: Array) -> Array:
    """Share of samples that are two grades off or more."""
    return cost(confusion, (_grades_apart(confusion.shape[-1]) >= 2).astype(np.float64))


def cost(confusion: Array, costs: Array) -> Array:
    """Mean cost per decided sample.

    Parameters
    ----------
    confusion : array, shape (..., n_classes, n_classes)
    costs : array, shape (n_classes, n_classes)
        What it costs to take the row's class for the column's.
    """
    return _ratio((confusion * costs).sum(axis=(-2, -1)), confusion.sum(axis=(-2, -1)))
