"""Intervals and paired differences from a jackknife over whole groups, by Student's t.

Intervals of several differences are simultaneous.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.jackknife import Design
from ensemble_kit.seeding import generator

Bounds = tuple[float, float | None]
# Metrics are skewed with few groups: the variance is multiplied by 1 + this / number of groups.
SKEWNESS = 1.5
# Number of pseudo-groups whose variance is that of groups that are right or wrong as a whole.
MAX_PULL = 0.5
N_DRAWS = 4000


def interval_of(
    value: float,
    left_out: Array,
    design: Design,
    *,
    bounds: Bounds = (0.0, 1.0),
    level: float,
    of_decisions: bool = False,
) -> Interval:
    """The interval of one metric.

    With two bounds it is a Wilson interval with the effective sample size of the metric and a t
    quantile; it never has zero width. With the lower bound 0 only, it is symmetric on the log scale
    to second order. Else it is symmetric.

    Parameters
    ----------
    value : float
    left_out : array, shape (n_blocks,)
        The metric without each block.
    bounds : (low, high)
        `high` is None without an upper bound; `low` is -inf without a lower bound.
    level : float
    of_decisions : bool
        Whether rows are right or wrong. The effective sample size is then at most the number of
        rows (Korn, E. L., & Graubard, B. I. (1998). Survey Methodology 24(2), 193-201).

    Returns
    -------
    Interval
        Without ends if the metric is undefined without some group, or if an unbounded metric does
        not vary.
    """
    if not np.isfinite(value):
        return Interval(None)
    if len(design.strata) == 0 or not np.isfinite(left_out).all():
        return Interval(float(value))
    variance, df = (float(one[0]) for one in design.variance(left_out[:, None]))
    quantile = _t_quantile(1.0 - (1.0 - level) / 2.0, df)
    variance *= 1.0 + SKEWNESS / design.n_effective
    low, high = bounds
    if high is not None:
        share = (value - low) / (high - low)
        of_rows = (
            of_decisions and high == 1.0
        )  # costs and distances are mostly far from their bounds
        least = (
            share * (1.0 - share) * (high - low) ** 2 * design.variance_of_rows if of_rows else 0.0
        )
        ends = _wilson(value, max(variance, least), quantile, design, low, high)
    elif variance <= (1e-12 * value) ** 2:
        return Interval(float(value))
    elif low == 0.0:
        half = quantile * variance**0.5 / value
        stretch = 1.0 + half + half**2 / 2.0
        ends = value / stretch, value * stretch
    else:
        ends = value - quantile * variance**0.5, value + quantile * variance**0.5
    return Interval(float(value), *map(float, ends))


def _wilson(
    value: float, variance: float, quantile: float, design: Design, low: float, high: float
) -> tuple[float, float]:
    """Wilson's interval with 1 / effective sample size = variance over value x (1 - value)."""
    share = (value - low) / (high - low)
    pull = MAX_PULL / design.n_effective**2
    spread = share * (1.0 - share)
    ratio = (variance / (high - low) ** 2 + pull * design.variance_of_groups) / (spread + pull)
    c = quantile**2 * ratio
    middle = (share + c / 2.0) / (1.0 + c)
    half = np.sqrt(max(c * spread, 0.0) + c * c / 4.0) / (1.0 + c)
    # Rounding may not put an end on the wrong side of the value.
    inside = min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)
    return low + (high - low) * inside[0], low + (high - low) * inside[1]


@dataclasses.dataclass(frozen=True)
class Gain:
    """A paired difference of two methods: its interval, and the p value of no difference."""

    effect: Interval
    p_value: float | None = None


def gains(
    values: Array, left_out: Array, design: Design, *, level: float, seed: int = 0
) -> list[Gain]:
    """Paired differences with simultaneous intervals.

    Parameters
    ----------
    values : array, shape (n_gains,)
    left_out : array, shape (n_blocks, n_gains)
        Each difference without each block.
    level : float
        Simultaneous confidence level; a single difference has a plain t interval.

    Returns
    -------
    list of Gain
        p values are two-sided and adjusted for all differences. There is no interval and no p value
        if the two methods do not differ in any block.

    References
    ----------
    Simultaneous t: Hothorn, T., Bretz, F., & Westfall, P. (2008). Biometrical Journal 50(3), 346-363.
    """
    out = [Gain(Interval(float(v) if np.isfinite(v) else None)) for v in values]
    if len(design.strata) == 0:
        return out
    variance, df = design.variance(left_out)
    # If all groups gain the same, the variance is that with one more group without a gain.
    variance = np.maximum(variance, (values / design.n_effective) ** 2)
    usable = np.flatnonzero(np.isfinite(values) & np.isfinite(variance) & (variance > 1e-24))
    if not len(usable):
        return out
    largest = _largest_t(left_out[:, usable], design, float(df[usable].min()), seed)
    least_df = float(df[usable].min())
    alone = 1.0 - level if largest is None else _each_level(largest, least_df, level)
    p_of_largest = None if largest is None else _two_sided(largest, least_df)
    for i in usable:
        error = float(variance[i]) ** 0.5
        half = _t_quantile(1.0 - alone / 2.0, float(df[i])) * error
        p = float(_two_sided(float(values[i]) / error, float(df[i])))
        if p_of_largest is not None:
            p = max(p, float(np.mean(p_of_largest <= p)))
        value = float(values[i])
        out[i] = Gain(Interval(value, value - half, value + half), p)
    return out


def _largest_t(left_out: Array, design: Design, df: float, seed: int) -> Array | None:
    """Draws of the largest |t| of several correlated differences; None for a single difference."""
    if left_out.shape[1] < 2:
        return None
    influence = np.zeros_like(left_out)
    for s in design.strata:
        some = design.block_strata == s
        influence[some] = left_out[some].mean(axis=0) - left_out[some]
    length = np.sqrt((influence**2).sum(axis=0))
    influence = influence[:, length > 0] / length[length > 0]
    rng = generator(seed, "simultaneous")
    normal = np.abs(rng.normal(size=(N_DRAWS, len(influence))) @ influence).max(axis=1, initial=0.0)
    return np.asarray(normal / np.sqrt(rng.chisquare(df, N_DRAWS) / df))


def _each_level(largest: Array, df: float, level: float) -> float:
    """The error rate of each interval for a joint error rate of 1 - level."""
    critical = float(np.quantile(largest, level))
    return min(float(_two_sided(critical, df)), 1.0 - level)


def _t_quantile(share: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


def _two_sided(t: Any, df: float) -> Any:
    from scipy.special import stdtr

    return 2.0 * stdtr(df, -np.abs(t))
