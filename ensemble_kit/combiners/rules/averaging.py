"""Combiners that average without weights: mean, geometric mean, median, trimmed mean, max, product.

`fit` only stores the number of members and classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensemble_kit.arrays import Array, log_softmax, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.kernels import chunks, mean_of_logits, mean_softmax
from ensemble_kit.combiners.rules.rules import (
    max_rule,
    median_rule,
    min_rule,
    normalised,
    trimmed_mean_rule,
)
from ensemble_kit.errors import UsageError
from ensemble_kit.predictions.method_predictions import Combined, decided


class MeanProba(Combiner):
    """The mean of the members' probabilities: the simplest ensemble, and a baseline of every table.

    Examples
    --------
    >>> logits = np.log([[[0.9, 0.1], [0.5, 0.5]]])
    >>> MeanProba().fit(logits, [0]).predict_proba(logits).round(6)
    array([[0.7, 0.3]])
    """

    is_rule = True

    def _combine(self, logits: Array) -> Combined:
        return decided(normalised(mean_softmax(logits).astype(np.float64)))


class MeanLogits(Combiner):
    """The softmax of the members' mean logit: the normalised geometric mean of probabilities.

    Examples
    --------
    >>> logits = np.log([[[0.9, 0.1], [0.5, 0.5]]])
    >>> MeanLogits().fit(logits, [0]).predict_proba(logits).round(6)
    array([[0.75, 0.25]])
    """

    is_rule = True

    def _combine(self, logits: Array) -> Combined:
        return decided(_pooled(mean_of_logits(logits).astype(np.float64), logits))


class ProductProba(Combiner):
    """The normalised product of the members' probabilities, as if members were independent.

    Members with extreme probabilities dominate; a probability of 0 is a veto.
    """

    def _combine(self, logits: Array) -> Combined:
        total = np.zeros((len(logits), logits.shape[2]))
        for rows in chunks(*logits.shape):
            total[rows] = log_softmax(logits[rows]).sum(axis=1)
        return decided(_pooled(total, logits))


def _pooled(pooled_logits: Array, logits: Array) -> Array:
    """Softmax of pooled logits; the plain mean for rows in which every class has a veto."""
    vetoed = ~np.isfinite(pooled_logits.max(axis=1))
    if not vetoed.any():
        return softmax(pooled_logits)
    proba = softmax(np.where(vetoed[:, None], 0.0, pooled_logits))
    proba[vetoed] = normalised(mean_softmax(logits[vetoed]).astype(np.float64))
    return proba


class _RuleOverProba(Combiner):
    """A rule of `rules`, applied chunk by chunk to the members' probabilities."""

    is_rule = True

    def _rule(self) -> Callable[[Array], Array]:
        raise NotImplementedError

    def _combine(self, logits: Array) -> Combined:
        rule = self._rule()
        out = np.empty((len(logits), logits.shape[2]))
        for rows in chunks(*logits.shape):
            out[rows] = normalised(rule(softmax(logits[rows])))
        return decided(out)


class MedianProba(_RuleOverProba):
    """The median of the members' probabilities per class: robust to a minority of members."""

    def _rule(self) -> Callable[[Array], Array]:
        return median_rule


class MaxProba(_RuleOverProba):
    """The highest probability of each class over the members."""

    def _rule(self) -> Callable[[Array], Array]:
        return max_rule


class MinProba(_RuleOverProba):
    """The lowest probability of each class over the members."""

    def _rule(self) -> Callable[[Array], Array]:
        return min_rule


class TrimmedMeanProba(_RuleOverProba):
    """The mean of probabilities without the lowest and highest `trim` share of members per class.

    Parameters
    ----------
    trim : float
        Share of members removed at each end, in [0, 0.5).
    """

    def __init__(self, trim: float = 0.2) -> None:
        self.trim = trim

    def _rule(self) -> Callable[[Array], Array]:
        if not 0 <= self.trim < 0.5:
            raise UsageError(
                f"Invalid trim={self.trim}",
                "the trimmed share must be at least 0 and below 0.5",
                "Use e.g. trim=0.2",
            )
        return lambda proba: trimmed_mean_rule(proba, self.trim)
