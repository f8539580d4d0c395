"""The mean of probabilities under one weight per member, which a subclass fits."""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, Bools, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.kernels import chunks
from ensemble_kit.combiners.rules.rules import normalised
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions


def weighted_mean_proba(logits: Array, weights: Array) -> Array:
    """Mean probability under `weights` (n_members,); float64 of shape (n_samples, n_classes)."""
    used = np.flatnonzero(weights)
    out = np.empty((len(logits), logits.shape[2]))
    for rows in chunks(*logits.shape):
        out[rows] = np.tensordot(softmax(logits[rows][:, used]), weights[used], axes=([1], [0]))
    return normalised(out)


class WeightedMean(Combiner):
    """Base of combiners that fit non-negative `weights_`, shape (n_members,)."""

    is_fitted_to_labels = True
    weights_: Array

    @property
    def leaves_members_out(self) -> bool:
        """True: the weights are renormalised over the other members."""
        return True

    def _combine(self, logits: Array) -> Combined:
        return decided(weighted_mean_proba(logits, self.weights_))

    def _apply_without(self, some: Predictions, present: Bools) -> Combined:
        weights = self.weights_[present]
        # If all members with a positive weight are missing, the others get equal weights.
        weights = weights if weights.any() else weights + 1.0
        return decided(weighted_mean_proba(some.logits, weights))
