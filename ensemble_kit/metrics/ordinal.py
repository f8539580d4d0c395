"""Metrics of ordinal classes (0 < 1+ < 2+ < 3+), from confusion matrices (..., n_classes, n_classes).

Leading axes are preserved. Neighbouring classes are one step apart.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.metrics.classification import Matrices, _ratio, weighted_kappa
from ensemble_kit.metrics.confusion import Confusion


def _distance(confusion: Matrices) -> Array:
    index = np.arange(Confusion.of(confusion).found.shape[-1])
    return np.abs(index[:, None] - index[None, :]).astype(np.float64)


def quadratic_weighted_kappa(confusion: Matrices) -> Array:
    """Kappa with weights that grow with the squared distance between the classes.

    References
    ----------
    Cohen, J. (1968). Weighted kappa. Psychological Bulletin 70(4), 213-220.

    Examples
    --------
    >>> float(quadratic_weighted_kappa(np.eye(3)))
    1.0
    """
    return weighted_kappa(confusion, _distance(confusion) ** 2)


def mean_absolute_error(confusion: Matrices) -> Array:
    """Mean distance between label and prediction, in classes."""
    return cost(confusion, _distance(confusion))


def adjacent_errors(confusion: Matrices) -> Array:
    """Share of samples that are predicted exactly one class off."""
    return cost(confusion, (_distance(confusion) == 1).astype(np.float64))


def far_errors(confusion: Matrices) -> Array:
    """Share of samples that are predicted two or more classes off."""
    return cost(confusion, (_distance(confusion) >= 2).astype(np.float64))


def cost(confusion: Matrices, costs: Array) -> Array:
    """Mean cost per decided sample.

    Parameters
    ----------
    confusion : array, shape (..., n_classes, n_classes)
    costs : array, shape (n_classes, n_classes)
        Cost of predicting the column's class for the row's class.
    """
    counts = Confusion.of(confusion)
    return _ratio(counts.total(costs), counts.n)
