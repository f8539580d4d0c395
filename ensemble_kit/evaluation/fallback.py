"""Fall back to the plain mean where a fitted combiner does not beat it on rows of other groups.

The choice for one fold rests on the other folds' cross-fitted rows, so that the figures of the
fallback are cross-fitted too. Fits nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.combiners.base import Combined
from ensemble_kit.metrics import Metric
from ensemble_kit.metrics.sums import sums_of

Ints = npt.NDArray[np.int64]


def beats(ours: Combined, mean: Combined, labels: Ints, wanted: Metric) -> bool:
    """Whether `ours` has the lower log loss, or the better figure; one of the two suffices."""
    a, b = (sums_of(labels, one.proba, one.predicted) for one in (ours, mean))
    if float(a.log_loss) < float(b.log_loss):
        return True
    if wanted.of_sums is None:
        return False
    sign = 1.0 if wanted.higher_is_better else -1.0
    return sign * float(wanted.of_sums(a)) > sign * float(wanted.of_sums(b))


def with_fallback(
    ours: Combined, mean: Combined, labels: Ints, fold: Ints, wanted: Metric
) -> Combined:
    """The cross-fitted answers of "use this combiner if it beats the mean on the other folds".

    Parameters
    ----------
    ours, mean : Combined
        Cross-fitted, over the same rows.
    labels, fold : array of int, shape (n_samples,)
    """
    use_mean = np.zeros(len(labels), dtype=bool)
    for k in np.unique(fold):
        others = fold != k
        if not beats(ours.take(others), mean.take(others), labels[others], wanted):
            use_mean |= fold == k
    return Combined(
        np.where(use_mean[:, None], mean.proba, ours.proba),
        np.where(use_mean, mean.predicted, ours.predicted),
        np.where(use_mean, mean.tied, ours.tied),
    )
