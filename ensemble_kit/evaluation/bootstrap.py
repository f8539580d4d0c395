"""Bootstrap over whole groups, by weights: resampling is a matrix product, never a copy.

All methods share one set of weights, so that differences are paired. Knows no combiner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError
from ensemble_kit.seeding import generator

Ints = npt.NDArray[np.int64]
# Weights of one chunk of resamples: 64 MB of float64.
CHUNK_WEIGHTS = 1 << 23
INTERVALS = ("percentile", "bca")
MAX_LEFT_OUT = 1000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure and what it could have been: None where it cannot be told."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "n/a"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def strata_of(labels: Ints, groups: Ints, n_classes: int) -> Ints:
    """Each group's most frequent class, shape (n_groups,); classes of one group are pooled.

    A stratum of one group would never vary, so such groups join the largest stratum.
    """
    n_groups = int(groups.max()) + 1
    table = np.bincount(groups * n_classes + labels, minlength=n_groups * n_classes)
    stratum = table.reshape(n_groups, n_classes).argmax(axis=1)
    sizes = np.bincount(stratum, minlength=n_classes)
    return np.where(sizes[stratum] < 2, int(sizes.argmax()), stratum)


def group_weights(strata: Ints, n_resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each group is drawn, chunks of shape (n, n_groups), float64.

    Groups are drawn with replacement within their stratum; all chunks together hold `n_resamples`.
    """
    n_groups = len(strata)
    members = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    step = max(1, min(n_resamples, CHUNK_WEIGHTS // n_groups))
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        weights = np.empty((n, n_groups))
        for some in members:
            drawn = rng.integers(0, len(some), size=(n, len(some)), dtype=np.int32)
            drawn += (np.arange(n, dtype=np.int32) * len(some))[:, None]
            counts = np.bincount(drawn.ravel(), minlength=n * len(some))
            weights[:, some] = counts.reshape(n, len(some))
        yield weights


def resampling(
    labels: Ints, groups: Ints, n_classes: int, n_resamples: int, seed: int
) -> Iterator[Array]:
    """Group weights of a table's stratified resamples; the same table and seed give the same.

    Raises
    ------
    DataError
        A negative number of resamples.
    """
    if n_resamples < 1:
        raise DataError(
            "A bootstrap draws at least one resample",
            f"got {n_resamples}",
            "Use e.g. n_resamples=2000",
        )
    return group_weights(
        strata_of(labels, groups, n_classes), n_resamples, generator(seed, "bootstrap")
    )


def percentile_interval(resampled: Array, level: float = 0.95) -> tuple[float, float] | None:
    """The middle `level` of the resampled figures; None where more than half are undefined."""
    usable = resampled[np.isfinite(resampled)]
    if len(usable) < 0.5 * len(resampled) or len(usable) < 2:
        return None
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(usable, [tail, 1.0 - tail])
    return float(low), float(high)


def left_out_weights(strata: Ints) -> tuple[Iterator[Array], Ints]:
    """Group weights with each group left out in turn, its stratum's others standing in for it.

    Beyond `MAX_LEFT_OUT` groups, blocks of them: the acceleration is the same.

    Returns
    -------
    chunks of array, shape (n, n_groups)
    strata : array of int, shape (n_left_out,)
        Of each group, or block, left out.
    """
    n_groups = len(strata)
    blocks: list[Ints] = []
    of_stratum: list[int] = []
    for s in np.unique(strata):
        some = np.flatnonzero(strata == s)
        n_blocks = len(some)
        if n_groups > MAX_LEFT_OUT:
            n_blocks = min(len(some), max(2, round(MAX_LEFT_OUT * len(some) / n_groups)))
        if len(some) > 1:
            blocks += [some[b::n_blocks] for b in range(n_blocks)]
            of_stratum += [int(s)] * n_blocks

    def chunks() -> Iterator[Array]:
        step = max(1, CHUNK_WEIGHTS // n_groups)
        for start in range(0, len(blocks), step):
            part = blocks[start : start + step]
            weights = np.ones((len(part), n_groups))
            for row, block, s in zip(weights, part, of_stratum[start:], strict=False):
                size = int((strata == s).sum())
                row[strata == s] = size / (size - len(block))
                row[block] = 0.0
            yield weights

    return chunks(), np.array(of_stratum, dtype=np.int64)


def bca_interval(
    value: float,
    resampled: Array,
    left_out: Array,
    level: float = 0.95,
    *,
    strata: Ints | None = None,
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated bootstrap interval.

    Parameters
    ----------
    value : float
        The figure on the whole table.
    resampled : array, shape (n_resamples,)
    left_out : array, shape (n_groups,)
        The figure without each group in turn.
    strata : array of int, shape (n_groups,), optional
        Within which groups were resampled.

    References
    ----------
    Efron, B. (1987). Better bootstrap confidence intervals. JASA 82(397), 171-185. Davison, A. C.,
    & Hinkley, D. V. (1997). Bootstrap methods and their application, section 5.3 (strata).
    """
    usable = resampled[np.isfinite(resampled)]
    if percentile_interval(resampled, level) is None:
        return None
    normal = NormalDist()
    below = ((usable < value).sum() + 0.5 * (usable == value).sum()) / len(usable)
    bias = normal.inv_cdf(float(np.clip(below, 1e-6, 1 - 1e-6)))
    known = np.isfinite(left_out)
    acceleration = _acceleration(left_out[known], None if strata is None else strata[known])
    ends = []
    for tail in ((1.0 - level) / 2.0, (1.0 + level) / 2.0):
        z = bias + normal.inv_cdf(tail)
        ends.append(normal.cdf(bias + z / max(1.0 - acceleration * z, 1e-9)))
    low, high = np.quantile(usable, np.clip(ends, 0.0, 1.0))
    return float(low), float(high)


def _acceleration(left_out: Array, strata: Ints | None) -> float:
    """A sixth of the skewness of the groups' influences."""
    cubes = squares = 0.0
    of = np.zeros(len(left_out), dtype=np.int64) if strata is None else strata
    for s in np.unique(of):
        some = left_out[of == s]
        influence = (len(some) - 1) * (some.mean() - some) / len(some)
        cubes += float((influence**3).sum())
        squares += float((influence**2).sum())
    return cubes / (6.0 * squares**1.5) if squares > 0 else 0.0
