"""Percentile intervals that hold for several figures at once: the price of having looked at many.

Works on resamples that the figures share. Knows no method and no metric.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ensemble_kit.arrays import Array


def joint_intervals(
    resamples: Mapping[str, Array], level: float = 0.95
) -> dict[str, tuple[float, float] | None]:
    """One interval per name; all of them together cover in `level` of the resamples.

    Every interval cuts the same share off either end of its resamples, as little as lets `level`
    of the resamples lie inside all of them. Names that move together cost next to nothing, a
    figure that never moves costs nothing, and one alone has its plain percentile interval.

    Parameters
    ----------
    resamples : mapping of name to array, shape (n_resamples,)
        Row for row of the same resample; resamples in which a figure is undefined are left out.
    level : float

    Returns
    -------
    dict of name to (low, high), or None where over half of the resamples are undefined

    References
    ----------
    Beran, R. (1988). Balanced simultaneous confidence sets. JASA 83(403), 679-686. Westfall, P. H.,
    & Young, S. S. (1993). Resampling-based multiple testing. Wiley.

    Examples
    --------
    >>> values = np.arange(1001.0)
    >>> low, high = joint_intervals({"a": values, "b": 2 * values}, 0.9)["a"]
    >>> round(low, 6), round(high, 6)
    (50.0, 950.0)
    """
    defined = {k: v for k, v in resamples.items() if len(v) and np.isfinite(v).mean() >= 0.5}
    out: dict[str, tuple[float, float] | None] = dict.fromkeys(resamples)
    if not defined:
        return out
    values = np.stack(list(defined.values()))  # (n_names, n_resamples)
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] < 2:
        return out
    tail = _tail(values, level)
    ends = np.quantile(values, [tail, 1.0 - tail], axis=1)
    return out | {k: (float(a), float(b)) for k, a, b in zip(defined, *ends, strict=True)}


def _tail(values: Array, level: float) -> float:
    """The share to cut off either end of every row, so that `level` of the columns stay inside."""
    n = values.shape[1]
    depth = np.full(n, np.inf)
    for row in values:
        ordered = np.sort(row)
        # How far in from the nearer end; equals count as far in as the innermost of them.
        from_below = np.searchsorted(ordered, row, side="right") - 1
        from_above = n - 1 - np.searchsorted(ordered, row, side="left")
        np.minimum(depth, np.minimum(from_below, from_above), out=depth)
    if len(values) == 1:
        return (1.0 - level) / 2.0
    return min(float(np.quantile(depth, 1.0 - level)) / (n - 1), (1.0 - level) / 2.0)
