"""One factor on log-probabilities, fitted by maximum likelihood: the inverse of a temperature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, softmax

# A factor of 0 would tie all classes. Scores that separate the classes have no finite optimum.
SMALLEST, LARGEST = 1e-3, 25.0


def best_scale(labels: npt.NDArray[np.int64], scores: Array) -> float:
    """The factor s of lowest log loss for softmax(s * scores), between `SMALLEST` and `LARGEST`.

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    scores : array, shape (n_samples, n_classes)
        Finite, e.g. log-probabilities.

    Examples
    --------
    >>> scores = np.log([[0.99, 0.01]] * 4)
    >>> round(best_scale(np.array([0, 0, 0, 1]), scores), 3)
    0.239
    """
    from scipy.optimize import brentq

    of_truth = scores[np.arange(len(labels)), labels].sum()

    def slope(log_scale: float) -> float:  # of the log loss, which is convex
        return float((softmax(np.exp(log_scale) * scores) * scores).sum() - of_truth)

    low, high = np.log(SMALLEST), np.log(LARGEST)
    if slope(low) >= 0:
        return SMALLEST
    if slope(high) <= 0:
        return LARGEST
    return float(np.exp(brentq(slope, low, high, xtol=1e-12)))
