"""Intervals and tests over whole groups: a stratified jackknife with Student's t quantiles.

Every group (the patient) is left out once, within the stratum of its most frequent class, so that
class counts are taken as fixed. Knows no metric and no method.

Chosen by simulation against the percentile and the rescaled bootstrap, plain t and sign-flip tests:
see `experiments/benchmarks/coverage.py`.

References
----------
Quenouille/Tukey delete-one jackknife within strata: Wolter, K. M. (2007). Introduction to variance
estimation, ch. 4. Degrees of freedom: Satterthwaite, F. E. (1946). Biometrics Bulletin 2(6), 110-114.
Effective number of clusters of unequal size: Carter, A. V., Schnepel, K. T., & Steigerwald, D. G.
(2017). Review of Economics and Statistics 99(4), 698-709. Variance moderated between strata: Smyth,
G. K. (2004). Statistical Applications in Genetics and Molecular Biology 3(1), 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.interval import Interval
from ensemble_kit.seeding import generator

Ints = npt.NDArray[np.int64]
Bounds = tuple[float, float | None]
# Beyond so many groups, blocks of them are left out: the variance is the same.
MAX_LEFT_OUT = 1000
# Numbers in one chunk of weights: 64 MB of float64.
CHUNK_WEIGHTS = 1 << 23
# How much the variance of all strata counts in each: as one degree of freedom.
PRIOR_DF = 1.0
# Single metrics are skewed where groups are few: their variance is raised by this over their number.
SKEWNESS = 1.5
# How many pseudo-groups pull the variance towards that of groups that are right or wrong as a whole.
CEILING = 0.5
N_DRAWS = 4000


def strata_of(labels: Ints, groups: Ints, n_classes: int) -> Ints:
    """Each group's most frequent class, shape (n_groups,); classes of one group are pooled.

    A stratum of one group would never vary, so such groups join the largest stratum.
    """
    n_groups = int(groups.max()) + 1
    table = np.bincount(groups * n_classes + labels, minlength=n_groups * n_classes)
    stratum = table.reshape(n_groups, n_classes).argmax(axis=1)
    sizes = np.bincount(stratum, minlength=n_classes)
    return np.where(sizes[stratum] < 2, int(sizes.argmax()), stratum)


@dataclasses.dataclass(frozen=True, eq=False)
class Jackknife:
    """Which groups are left out together, and the stratum of each such block.

    Parameters
    ----------
    strata : array of int, shape (n_groups,)
    blocks : tuple of arrays of int
        Groups by position; each group alone up to `MAX_LEFT_OUT` groups.
    block_strata : array of int, shape (n_blocks,)
    """

    strata: Ints
    blocks: tuple[Ints, ...]
    block_strata: Ints

    @staticmethod
    def of(labels: Ints, groups: Ints, n_classes: int) -> Jackknife:
        """For samples with these labels, whose groups are numbered from 0."""
        strata = strata_of(labels, groups, n_classes)
        n_groups = len(strata)
        blocks: list[Ints] = []
        of_block: list[int] = []
        for s in np.unique(strata):
            some = np.flatnonzero(strata == s)
            n_blocks = len(some)
            if n_groups > MAX_LEFT_OUT:
                n_blocks = min(len(some), max(2, round(MAX_LEFT_OUT * len(some) / n_groups)))
            if len(some) > 1:
                blocks += [some[b::n_blocks] for b in range(n_blocks)]
                of_block += [int(s)] * n_blocks
        return Jackknife(strata, tuple(blocks), np.array(of_block, dtype=np.int64))

    def weights(self) -> Iterator[Array]:
        """Group weights with each block left out, its stratum's others standing in for it.

        Chunks of shape (n, n_groups); all chunks together hold a row a block.
        """
        n_groups = len(self.strata)
        step = max(1, CHUNK_WEIGHTS // n_groups)
        sizes = np.bincount(self.strata)
        for start in range(0, len(self.blocks), step):
            part = self.blocks[start : start + step]
            weights = np.ones((len(part), n_groups))
            for row, block, s in zip(weights, part, self.block_strata[start:], strict=False):
                row[self.strata == s] = sizes[s] / (sizes[s] - len(block))
                row[block] = 0.0
            yield weights

    def design(self, counted: Array) -> Design:
        """What a metric that rests on these counts knows of its groups.

        Parameters
        ----------
        counted : array, shape (n_groups, n_parts)
            Rows of each group in each part of the metric: one column of all rows for a mean over
            rows, one column a class for a mean over classes.
        """
        counted = counted[:, counted.sum(axis=0) > 0]
        share = (counted / counted.sum(axis=0)).mean(axis=1) if counted.size else None
        if share is None or not len(self.blocks):
            return Design(self.block_strata, np.zeros(0, np.int64), *[np.zeros(0)] * 3)
        blocks = np.array([share[block].sum() for block in self.blocks])
        strata = np.array(
            [s for s in np.unique(self.block_strata) if share[self.strata == s].any()]
        )
        return Design(
            self.block_strata,
            strata,
            np.array([share[self.strata == s].sum() for s in strata]),
            np.array([_effective(share[self.strata == s]) for s in strata]),
            np.array([_effective(blocks[self.block_strata == s]) for s in strata]),
        )


def _effective(sizes: Array) -> float:
    """How many groups of equal size say as much as these."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """Strata of one metric: how much of it rests on each, and on how many groups.

    Parameters
    ----------
    block_strata : array of int, shape (n_blocks,)
    strata : array of int, shape (n_strata,)
        Those that the metric rests on.
    weight : array, shape (n_strata,)
        Share of the metric; sums to 1.
    effective, effective_blocks : array, shape (n_strata,)
        Groups, and left-out blocks, if they all had the same size.
    """

    block_strata: Ints
    strata: Ints
    weight: Array
    effective: Array
    effective_blocks: Array

    @property
    def n_effective(self) -> float:
        return float(self.effective.sum())

    @property
    def floor(self) -> float:
        """Variance, over value x (1 - value), if groups were right or wrong as a whole."""
        return float((self.weight**2 / self.effective).sum())

    def variance(self, left_out: Array) -> tuple[Array, Array]:
        """Variance and degrees of freedom of several statistics.

        Parameters
        ----------
        left_out : array, shape (n_blocks, n_statistics)
            Each statistic without each block; NaN where it is undefined then.

        Returns
        -------
        variance, df : arrays, shape (n_statistics,)
            NaN where the statistic is undefined without some block.
        """
        per_stratum = []
        for s in self.strata:
            some = left_out[self.block_strata == s]
            n = len(some)
            per_stratum.append((n - 1) / n * ((some - some.mean(axis=0)) ** 2).sum(axis=0))
        scale = (self.effective / self.weight**2)[:, None]
        single = np.array(per_stratum) * scale  # (n_strata, n_statistics)
        df = np.maximum(self.effective_blocks - 1.0, 1e-3)[:, None]
        counts = np.array([(self.block_strata == s).sum() - 1 for s in self.strata]) * self.weight
        pooled = counts @ single / counts.sum()
        moderated = (PRIOR_DF * pooled + df * single) / (PRIOR_DF + df)
        parts = np.maximum(single, moderated) / scale
        total = parts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom = total**2 / (parts**2 / (df + PRIOR_DF)).sum(axis=0)
        return total, np.where(total > 0, np.maximum(freedom, 1.0), self._fewest_df())

    def _fewest_df(self) -> float:
        parts = self.weight**2 / self.effective
        return max(float(parts.sum() ** 2 / (parts**2 / self.effective_blocks).sum()), 1.0)


def interval_of(
    value: float, left_out: Array, design: Design, *, bounds: Bounds = (0.0, 1.0), level: float
) -> Interval:
    """The interval of one metric.

    Between two bounds it is Wilson's, with the metric's own effective sample size and Student's t,
    so that it never has zero width and does not jump where the last error goes. Above one bound it
    is symmetric on the logarithmic scale to second order; else on the plain one.

    Parameters
    ----------
    value : float
    left_out : array, shape (n_blocks,)
        The metric without each block.
    bounds : (low, high)
        High is None where the metric has no upper bound, low is -inf where it has none.
    level : float

    Returns
    -------
    Interval
        Without ends where the metric is undefined without some group, and where an unbounded
        metric does not vary at all.
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
        ends = _wilson(value, variance, quantile, design, low, high)
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
    pull = CEILING / design.n_effective**2
    spread = share * (1.0 - share)
    ratio = (variance / (high - low) ** 2 + pull * design.floor) / (spread + pull)
    c = quantile**2 * ratio
    middle = (share + c / 2.0) / (1.0 + c)
    half = np.sqrt(max(c * spread, 0.0) + c * c / 4.0) / (1.0 + c)
    inside = max(middle - half, 0.0), min(middle + half, 1.0)
    return low + (high - low) * inside[0], low + (high - low) * inside[1]


@dataclasses.dataclass(frozen=True)
class Gain:
    """A paired difference of two methods: its interval, and the p value of no difference."""

    effect: Interval
    p_value: float | None = None


def gains(
    values: Array, left_out: Array, design: Design, *, level: float, seed: int = 0
) -> list[Gain]:
    """Paired differences with intervals that hold for all of them at once.

    Parameters
    ----------
    values : array, shape (n_gains,)
    left_out : array, shape (n_blocks, n_gains)
        Each difference without each block.
    level : float
        Of all intervals together; one difference alone has its plain t interval.

    Returns
    -------
    list of Gain
        p values are two-sided and adjusted for all differences. Neither exists where the two
        methods do not differ in any block.

    References
    ----------
    Simultaneous t: Hothorn, T., Bretz, F., & Westfall, P. (2008). Biometrical Journal 50(3), 346-363.
    """
    out = [Gain(Interval(float(v) if np.isfinite(v) else None)) for v in values]
    if len(design.strata) == 0:
        return out
    variance, df = design.variance(left_out)
    # Where all groups gain the same, the variance is as if one more did not gain.
    variance = np.maximum(variance, (values / design.n_effective) ** 2)
    usable = np.flatnonzero(np.isfinite(values) & np.isfinite(variance) & (variance > 1e-24))
    if not len(usable):
        return out
    largest = _largest_t(left_out[:, usable], design, float(df[usable].min()), seed)
    alone = 1.0 - level if largest is None else _each_level(largest, df[usable].min(), level)
    for i in usable:
        error = float(variance[i]) ** 0.5
        half = _t_quantile(1.0 - alone / 2.0, float(df[i])) * error
        p = float(_two_sided(float(values[i]) / error, float(df[i])))
        if largest is not None:
            p = max(p, float(np.mean(_two_sided(largest, float(df[usable].min())) <= p)))
        value = float(values[i])
        out[i] = Gain(Interval(value, value - half, value + half), p)
    return out


def _largest_t(left_out: Array, design: Design, df: float, seed: int) -> Array | None:
    """Draws of the largest |t| of several correlated differences; None for one of them."""
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
    """The error rate of each interval that leaves 1 - level for all of them."""
    critical = float(np.quantile(largest, level))
    return min(float(_two_sided(critical, df)), 1.0 - level)


def _t_quantile(share: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


def _two_sided(t: Any, df: float) -> Any:
    from scipy.special import stdtr

    return 2.0 * stdtr(df, -np.abs(t))
