"""Means over images, and paired differences of means, with intervals over whole groups."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, group_numbers
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.jackknife import Design, Jackknife
from ensemble_kit.evaluation.uncertainty.t_intervals import Bounds, Gain, gains, interval_of


def mean_interval(
    values: npt.ArrayLike,
    groups: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    bounds: Bounds = (0.0, 1.0),
    level: float = 0.95,
) -> Interval:
    """The mean over images, with its interval over whole groups (patients).

    Parameters
    ----------
    values : array-like, shape (n_images,)
        Finite values.
    groups : array-like, shape (n_images,)
    labels : array-like of int, shape (n_images,)
        The classes; groups are left out within the stratum of their most frequent class.
    bounds : (low, high)
        Bounds of a value.

    Returns
    -------
    Interval
        Without ends if there is a single group.

    Examples
    --------
    >>> found = mean_interval([0.2, 0.4, 0.3, 0.5], ["a", "b", "c", "d"], [0, 0, 0, 0])
    >>> round(found.value, 2), found.low < found.value < found.high
    (0.35, True)
    """
    means, left_out, design = _resampled(np.asarray(values, np.float64)[:, None], groups, labels)
    if not len(left_out):
        return Interval(float(means[0]))
    return interval_of(float(means[0]), left_out[:, 0], design, bounds=bounds, level=level)


def mean_differences(
    ours: npt.ArrayLike,
    theirs: Mapping[str, npt.ArrayLike],
    groups: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    level: float = 0.95,
) -> dict[str, Gain]:
    """The mean of `ours - theirs` for each of several others, with simultaneous intervals.

    Parameters as for `mean_interval`.
    """
    first = np.asarray(ours, np.float64)
    columns = np.stack([first - np.asarray(one, np.float64) for one in theirs.values()], axis=1)
    means, left_out, design = _resampled(columns, groups, labels)
    if not len(left_out):
        return {name: Gain(Interval(float(v))) for name, v in zip(theirs, means, strict=True)}
    return dict(zip(theirs, gains(means, left_out, design, level=level), strict=True))


def _resampled(
    columns: Array, groups: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Array, Array, Design]:
    """Means of the columns, and without each block of groups; shapes (k,) and (n_blocks, k)."""
    numbered = group_numbers(groups)
    truth = np.asarray(labels, dtype=np.int64)
    counts = np.bincount(numbered).astype(np.float64)
    sums = np.zeros((len(counts), columns.shape[1]))
    np.add.at(sums, numbered, columns)
    jackknife = Jackknife.of(truth, numbered, int(truth.max()) + 1)
    found = jackknife.left_out(lambda w: {"means": (w @ sums) / (w @ counts)[:, None]})
    left_out = found.get("means", np.empty((0, columns.shape[1])))
    return columns.mean(axis=0), left_out, jackknife.design(counts[:, None])
