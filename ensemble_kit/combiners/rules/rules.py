"""Rules that combine class probabilities without fitting: pure functions over one array.

Each takes `proba` (n_samples, n_members, n_classes) and returns the support of each class
(n_samples, n_classes), not normalised.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array


def median_rule(proba: Array) -> Array:
    """The median over members, class by class."""
    return np.asarray(np.median(proba, axis=1))


def trimmed_mean_rule(proba: Array, trim: float = 0.2) -> Array:
    """The mean over members without the `trim` share of lowest and of highest, class by class.

    Examples
    --------
    >>> trimmed_mean_rule(np.array([[[0.0], [0.4], [0.6], [1.0]]]), trim=0.25)
    array([[0.5]])
    """
    n_members = proba.shape[1]
    cut = min(int(trim * n_members), (n_members - 1) // 2)
    return np.asarray(np.sort(proba, axis=1)[:, cut : n_members - cut].mean(axis=1))


def max_rule(proba: Array) -> Array:
    """The highest support over members."""
    return np.asarray(proba.max(axis=1))


def min_rule(proba: Array) -> Array:
    """The lowest support over members."""
    return np.asarray(proba.min(axis=1))


def normalised(support: Array) -> Array:
    """Support divided by its row sum; rows without any support become uniform."""
    total = support.sum(axis=1, keepdims=True)
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, support / safe, 1.0 / support.shape[1])
