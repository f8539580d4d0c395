"""Calibration of the positive class: slope, intercept, observed over expected, and the curve.

References
----------
Van Calster, B., McLernon, D. J., van Smeden, M., Wynants, L., & Steyerberg, E. W. (2019).
Calibration: the Achilles heel of predictive analytics. BMC Medicine 17, 230.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.clinical.one_class import OneClass, ratio
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.shares import shares
from ensemble_kit.evaluation.uncertainty.t_intervals import Bounds, interval_of
from ensemble_kit.metrics.calibration import calibration_slope
from ensemble_kit.metrics.calibration_slope import intercepts_under, slopes_without

# Slope and intercept are refitted without each block if blocks x samples is at most this.
MAX_REFITTED = 1_000_000
MAX_BINS = 10
GROUPS_PER_BIN = 2
UNBOUNDED: Bounds = (-np.inf, None)


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """Samples of similar probability.

    Parameters
    ----------
    n, n_groups : int
    predicted : float
        Mean probability of the class.
    observed : Interval
        Share of samples of the class.
    """

    n: int
    n_groups: int
    predicted: float
    observed: Interval


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Agreement of the probabilities of the positive class with its frequency.

    Parameters
    ----------
    slope : Interval
        1: calibrated. Below 1: the probabilities are too extreme. Undefined if all probabilities are
        equal, or if they separate the classes perfectly.
    intercept : Interval
        Calibration in the large, in log odds. 0: calibrated. Above 0: the probabilities are too low.
    observed_to_expected : Interval
        Number of positive samples over the sum of the probabilities. 1: calibrated.
    bins : tuple of CalibrationBin
        Bins with about equal numbers of samples, by ascending probability.
    """

    slope: Interval
    intercept: Interval
    observed_to_expected: Interval
    bins: tuple[CalibrationBin, ...]


def calibration_of(table: OneClass) -> Calibration:
    """Slope, intercept, observed over expected, and the curve in bins, with intervals over groups."""
    return Calibration(
        _slope(table), _intercept(table), _observed_to_expected(table), calibration_bins(table)
    )


def calibration_bins(table: OneClass) -> tuple[CalibrationBin, ...]:
    """Up to 10 bins, fewer if there are few groups. Equal probabilities are in the same bin."""
    if not table.n:
        return ()
    n_bins = int(np.clip(table.n_groups // GROUPS_PER_BIN, 2, MAX_BINS))
    edges = np.quantile(table.proba, np.arange(1, n_bins) / n_bins)
    of_bin = np.unique(np.searchsorted(edges, table.proba, side="left"), return_inverse=True)[1]
    inside = [of_bin == b for b in range(int(of_bin.max()) + 1)]
    observed = shares(
        {str(b): (table.positive & some, some) for b, some in enumerate(inside)},
        table.labels, table.groups, int(table.labels.max()) + 1,
        level=table.level, intervals=table.jackknife is not None,
    )  # fmt: skip
    return tuple(
        CalibrationBin(
            int(some.sum()),
            len(np.unique(table.groups[some])),
            float(table.proba[some].mean()),
            observed[str(b)],
        )
        for b, some in enumerate(inside)
    )


def _slope(table: OneClass) -> Interval:
    labels = table.positive.astype(np.int64)
    proba = np.stack([1.0 - table.proba, table.proba], axis=1)
    jackknife = table.jackknife
    if jackknife is None or _is_large(table):
        left_out = np.zeros(0)
    else:
        left_out = slopes_without(labels, proba, table.groups, jackknife.blocks)
    return _interval(table, calibration_slope(labels, proba), left_out, UNBOUNDED)


def _intercept(table: OneClass) -> Interval:
    whole = intercepts_under(table.positive, table.proba, np.ones((1, table.n)))
    left_out = np.zeros(0)
    if table.jackknife is not None and not _is_large(table) and np.isfinite(whole[0]):
        weights = np.concatenate([some[:, table.groups] for some in table.jackknife.weights()])
        left_out = intercepts_under(table.positive, table.proba, weights)
    return _interval(table, float(whole[0]), left_out, UNBOUNDED)


def _observed_to_expected(table: OneClass) -> Interval:
    whole, left_out = table.sums(np.stack([table.positive, table.proba], axis=1))
    value = float(ratio(whole[0], whole[1]))
    return _interval(table, value, ratio(left_out[:, 0], left_out[:, 1]), (0.0, None))


def _interval(table: OneClass, value: float, left_out: Array, bounds: Bounds) -> Interval:
    design = table.design(table.positive, ~table.positive)
    if not np.isfinite(value) or design is None or not len(left_out) or value == bounds[0]:
        return Interval(value if np.isfinite(value) else None)
    return interval_of(value, left_out, design, bounds=bounds, level=table.level)


def _is_large(table: OneClass) -> bool:
    return table.jackknife is not None and len(table.jackknife.blocks) * table.n > MAX_REFITTED
