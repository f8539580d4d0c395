"""Inputs of stackers: clipped log-probabilities of the members.

Adding a constant to a member's logits does not change them.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, Ints, log_softmax, softmax

# A logit of -inf must not become an infinite feature.
LOWEST = -12.0


def clipped_log_proba(logits: Array) -> Array:
    """Log-probabilities, at least `LOWEST`; float64 of shape (n_samples, n_members, n_classes)."""
    return np.maximum(log_softmax(logits), LOWEST)


def flat_features(logits: Array) -> Array:
    """Centred clipped log-probabilities, shape (n_samples, n_members * n_classes)."""
    z = clipped_log_proba(logits)
    z = z - z.mean(axis=2, keepdims=True)
    return z.reshape(len(z), -1)


def with_absent_classes(proba: Array, logits: Array, present: Ints) -> Array:
    """Replace probabilities of classes without a label in the fit by those of the mean.

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
        Probabilities of the fitted model.
    logits : array, shape (n_samples, n_members, n_classes)
    present : array of int
        Classes with a label in the fit; their probabilities are rescaled.

    Examples
    --------
    >>> logits = np.log([[[0.5, 0.3, 0.2]]])
    >>> with_absent_classes(np.array([[0.9, 0.1, 0.0]]), logits, np.array([0, 1])).round(2)
    array([[0.72, 0.08, 0.2 ]])
    """
    if len(present) == proba.shape[1]:
        return proba
    out = softmax(logits).mean(axis=1)
    left = out[:, present].sum(axis=1, keepdims=True)
    out[:, present] = proba[:, present] / proba[:, present].sum(axis=1, keepdims=True) * left
    return out
