"""Shares of rows (covered, found, referred) with intervals that resample whole groups.

A share is a sum over a sum, so that its resamples are matrix products. Knows no method.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.bootstrap import Interval, percentile_interval, resampling
from ensemble_kit.evaluation.significance import wilson_interval

Ints = npt.NDArray[np.int64]


def shares(
    parts: Mapping[str, tuple[Array, Array]],
    labels: Ints,
    groups: npt.ArrayLike,
    n_classes: int,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Each share with its interval, all from one set of group resamples.

    Parameters
    ----------
    parts : mapping of name to (above, below)
        Two arrays of shape (n_samples,): the share is their sums' ratio; undefined where nothing
        is below.
    labels : array of int, shape (n_samples,)
        Resampling is stratified by the groups' most frequent class.
    groups : array-like, shape (n_samples,)

    Returns
    -------
    dict of name to Interval
        A share of exactly 0 or 1 never varies in a resample, which is no certainty: its interval is
        Wilson's over the groups that count in it, at least as wide as one over rows. No interval
        with a single group.

    Examples
    --------
    >>> hit = np.array([1.0, 1.0, 1.0, 1.0])
    >>> found = shares({"found": (hit, hit)}, np.zeros(4, dtype=int), ["a", "a", "b", "b"], 2)
    >>> found["found"].value, round(found["found"].low, 2)
    (1.0, 0.34)
    """
    numbered = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    n_groups = int(numbered.max()) + 1 if len(numbered) else 0
    sums = {
        name: tuple(_by_group(one, numbered, n_groups) for one in p) for name, p in parts.items()
    }
    drawn: dict[str, list[Array]] = {name: [] for name in parts}
    if n_groups > 1 and n_resamples > 0:
        for weights in resampling(labels, numbered, n_classes, n_resamples, seed):
            for name, (above, below) in sums.items():
                drawn[name].append(_ratio(weights @ above, weights @ below))
    return {
        name: _interval(above, below, drawn[name], level) for name, (above, below) in sums.items()
    }


def _by_group(values: Array, groups: Ints, n_groups: int) -> Array:
    return np.bincount(groups, weights=np.asarray(values, dtype=np.float64), minlength=n_groups)


def _ratio(above: Array, below: Array) -> Array:
    out = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _interval(above: Array, below: Array, drawn: list[Array], level: float) -> Interval:
    total = float(below.sum())
    if total <= 0:
        return Interval(None)
    value = float(above.sum()) / total
    if not drawn:
        return Interval(value)
    if min(value, 1.0 - value) < 1e-12:
        n = int((below > 0).sum())
        return Interval(float(round(value)), *wilson_interval(round(value) * n, n, level))
    ends = percentile_interval(np.concatenate(drawn), level)
    return Interval(value, *ends) if ends else Interval(value)
