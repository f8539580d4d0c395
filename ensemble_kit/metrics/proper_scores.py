"""Losses of probabilities per sample: log loss and Brier score. Lower is better."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array

SMALLEST_PROBA = 1e-15


def log_loss_per_sample(labels: npt.NDArray[np.int64], proba: Array) -> Array:
    """Minus the logarithm of the true class's probability, at least 1e-15; shape (n_samples,)."""
    of_truth = proba[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(of_truth, SMALLEST_PROBA)))


def brier_per_sample(labels: npt.NDArray[np.int64], proba: Array) -> Array:
    """Squared distance to the one-hot truth, summed over classes (0 to 2); shape (n_samples,).

    References
    ----------
    Brier, G. W. (1950). Verification of forecasts expressed in terms of probability. Monthly
    Weather Review 78(1), 1-3.
    """
    of_truth = proba[np.arange(len(labels)), labels]
    return np.asarray((proba**2).sum(axis=1) - 2.0 * of_truth + 1.0)
