"""Shares of rows (covered, found, referred) with intervals over whole groups."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, group_numbers
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.jackknife import Jackknife
from ensemble_kit.evaluation.uncertainty.t_intervals import interval_of


def shares(
    parts: Mapping[str, tuple[Array, Array]],
    labels: Ints,
    groups: npt.ArrayLike,
    n_classes: int,
    *,
    level: float = 0.95,
    intervals: bool = True,
) -> dict[str, Interval]:
    """Each share with its interval over whole groups.

    Parameters
    ----------
    parts : mapping of name to (above, below)
        Two arrays of shape (n_samples,). The share is the ratio of their sums; undefined if the sum
        of `below` is 0.
    labels : array of int, shape (n_samples,)
        Groups are left out within the stratum of their most frequent class.
    groups : array-like, shape (n_samples,)

    Returns
    -------
    dict of name to Interval
        No interval with a single group. Groups with a sum of 0 in `below` are not counted.

    Examples
    --------
    >>> hit = np.ones(16)
    >>> found = shares({"found": (hit, hit)}, np.zeros(16, dtype=int), np.arange(16) // 2, 2)
    >>> found["found"].value, round(found["found"].low, 1)
    (1.0, 0.6)
    """
    numbered = group_numbers(groups)
    n_groups = int(numbered.max()) + 1 if len(numbered) else 0
    if not n_groups:
        return dict.fromkeys(parts, Interval(None))
    jackknife = Jackknife.of(labels, numbered, n_classes)
    sums = {
        name: tuple(_by_group(one, numbered, n_groups) for one in (*p, p[1] > 0))
        for name, p in parts.items()
    }
    return {
        name: _share(above, below, rows, jackknife, level, intervals)
        for name, (above, below, rows) in sums.items()
    }


def _by_group(values: Array, groups: Ints, n_groups: int) -> Array:
    return np.bincount(groups, weights=np.asarray(values, dtype=np.float64), minlength=n_groups)


def _share(
    above: Array,
    below: Array,
    rows: Array,
    jackknife: Jackknife,
    level: float,
    has_interval: bool,
) -> Interval:
    total = float(below.sum())
    if total <= 0:
        return Interval(None)
    value = float(above.sum()) / total
    if not has_interval or not len(jackknife.blocks):
        return Interval(value)
    sums = jackknife.left_out(lambda weights: {"above": weights @ above, "below": weights @ below})
    left_out = np.full(len(jackknife.blocks), np.nan)
    np.divide(sums["above"], sums["below"], out=left_out, where=sums["below"] > 0)
    design = jackknife.design(below[:, None], rows)
    return interval_of(value, left_out, design, level=level, of_decisions=True)
