"""Intervals of proportions where all are right, or none: no resample differs, which is no certainty.

Wilson's, over the groups that count, as `shares` has them. Knows no method and no bootstrap.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.evaluation.bootstrap import Interval
from ensemble_kit.evaluation.significance import wilson_interval
from ensemble_kit.metrics.confusion import GroupConfusions

Ints = npt.NDArray[np.int64]
# Figures that are a proportion, or a mean of one per class.
PROPORTIONS = ("accuracy", "balanced_accuracy")


def is_flat(value: float | None) -> bool:
    """Whether a proportion is exactly 0 or 1: it is so in every resample."""
    return value is not None and min(abs(value), abs(1.0 - value)) < 1e-12


def with_wilson(found: Interval, name: str, counts: GroupConfusions, level: float) -> Interval:
    """The interval of a metric, or Wilson's where that is a flat proportion.

    Parameters
    ----------
    found : Interval
        Left as it is where it has no ends.
    name : str
    counts : GroupConfusions

    Examples
    --------
    >>> class_0 = np.zeros(8, dtype=np.int64)
    >>> eight_right = GroupConfusions.of(class_0, class_0, np.arange(8), 2)
    >>> print(with_wilson(Interval(1.0, 1.0, 1.0), "accuracy", eight_right, 0.95))
    1.000 [0.676, 1.000]
    """
    if name not in PROPORTIONS:
        return found
    n_groups = counts.n_groups_true
    if name == "accuracy":
        n_groups = np.array([counts.n_groups])
    return wilson_if_flat(found, n_groups, level)


def class_with_wilson(
    found: Interval, name: str, c: int, counts: GroupConfusions, level: float
) -> Interval:
    """The same of one class's sensitivity, specificity or precision."""
    counted = {
        "sensitivity": counts.n_groups_true,
        "specificity": counts.n_groups_of_others,
        "precision": counts.n_groups_told,
    }
    if name not in counted:
        return found
    return wilson_if_flat(found, counted[name][[c]], level)


def wilson_if_flat(found: Interval, n_groups: Ints, level: float) -> Interval:
    """The interval of a mean of proportions, or Wilson's where all of them are 0, or 1.

    Wilson's intervals are put together by squares, as the proportions are of different samples.

    Parameters
    ----------
    found : Interval
        Left as it is where it has no ends.
    n_groups : array of int, shape (n_proportions,)
        How many groups count in each; 0 for one that is not there.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference.
    JASA 22(158), 209-212. Zou, G. Y., & Donner, A. (2008). Construction of confidence limits about
    effect measures: a general approach. Statistics in Medicine 27(10), 1693-1702.
    """
    if found.value is None or found.low is None or not is_flat(found.value):
        return found
    widths = [1.0 - wilson_interval(int(n), int(n), level)[0] for n in n_groups[n_groups > 0]]
    width = float(np.sqrt(np.square(widths).sum()) / len(widths))
    value = float(round(found.value))
    return Interval(value, 1.0 - width, 1.0) if value else Interval(value, 0.0, width)
