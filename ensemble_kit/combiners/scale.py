"""One factor on log-probabilities, fitted by maximum likelihood: the inverse of a temperature.

Newton's method on a convex loss. Knows no combiner.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, softmax

# Even scores that know nothing, or worse, keep their order: a factor of 0 would make ties of all.
SMALLEST = 1e-3


def best_scale(labels: npt.NDArray[np.int64], scores: Array, n_steps: int = 50) -> float:
    """The factor s >= `SMALLEST` of least log loss for softmax(s * scores).

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    scores : array, shape (n_samples, n_classes)
        Finite, e.g. clipped log-probabilities. Where they tell the classes apart without an error,
        every larger factor is better still: the factor then is where `n_steps` of at most one half
        end, which is a limit of ours and no finding.

    Examples
    --------
    >>> scores = np.log([[0.99, 0.01]] * 4)
    >>> round(best_scale(np.array([0, 0, 0, 1]), scores), 3)
    0.239
    """
    of_truth = scores[np.arange(len(labels)), labels]
    scale = 1.0
    for _ in range(n_steps):
        proba = softmax(scale * scores)
        mean = (proba * scores).sum(axis=1)
        curvature = float((proba * (scores - mean[:, None]) ** 2).sum())
        if curvature < 1e-12:
            break
        step = float(np.clip((mean - of_truth).sum() / curvature, -0.5, 0.5))
        scale = max(scale - step, SMALLEST)
        if abs(step) < 1e-10 or scale > 1e3:
            break
    return scale
