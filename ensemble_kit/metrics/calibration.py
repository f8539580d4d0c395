"""Calibration metrics: whether a confidence of 80 % is correct 8 times in 10.

Metrics are functions of sums per bin of confidence, (..., 3, n_bins): count, summed confidence,
hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.metrics.calibration_slope import recalibration

N_BINS = 15


def bins_equal_width(confidence: Array) -> npt.NDArray[np.int64]:
    """The bin of each confidence: (0, 1/15], (1/15, 2/15], ...; shape (n_samples,)."""
    return np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)


def bins_equal_mass(confidence: Array) -> npt.NDArray[np.int64]:
    """The bin of each confidence, edges at its quantiles; equal confidences are in the same bin."""
    if not len(confidence):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(confidence, np.arange(1, N_BINS) / N_BINS)
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def mass_bins_without(
    confidence: Array,
    hit: Array,
    groups: npt.NDArray[np.int64],
    blocks: Sequence[npt.NDArray[np.int64]],
) -> Array:
    """Bins of equal mass without each block of groups, with new edges; (n_blocks, 3, N_BINS).

    Parameters
    ----------
    confidence, hit : array, shape (n_samples,)
    groups : array of int, shape (n_samples,)
    blocks : sequence of arrays of int
        Groups that are left out together.
    """
    order = np.argsort(confidence, kind="stable")
    confidence, n = confidence[order], len(confidence)
    values = np.stack([np.ones(n), confidence, hit[order]])
    before = _with_zero(np.cumsum(values, axis=1))
    out = np.zeros((len(blocks), 3, N_BINS))
    for row, removed in zip(out, _rows_of(groups[order], blocks), strict=True):
        n_left = n - len(removed)
        if not n_left:
            continue
        # The remaining row k is row k + (number of removed rows before it).
        shift = removed - np.arange(len(removed))
        at = np.arange(1, N_BINS) / N_BINS * (n_left - 1)
        low = at.astype(np.int64)
        first, second = (
            confidence[k + np.searchsorted(shift, k, side="right")]
            for k in (low, np.minimum(low + 1, n_left - 1))
        )
        edges = first + (at - low) * (second - first)
        ends = np.append(np.searchsorted(confidence, edges, side="right"), n)
        removed_before = _with_zero(np.cumsum(values[:, removed], axis=1))
        sums = before[:, ends] - removed_before[:, np.searchsorted(removed, ends, side="left")]
        row[:] = np.diff(sums, axis=1, prepend=0.0)
    return out


def _with_zero(sums: Array) -> Array:
    return np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)


def _rows_of(
    groups: npt.NDArray[np.int64], blocks: Sequence[npt.NDArray[np.int64]]
) -> Iterator[npt.NDArray[np.int64]]:
    """The sorted rows of each block of groups."""
    by_group = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[by_group], np.arange(int(groups.max(initial=-1)) + 2))
    for block in blocks:
        yield np.sort(np.concatenate([by_group[starts[g] : starts[g + 1]] for g in block]))


def expected_calibration_error(bins: Array) -> Array:
    """Mean distance between confidence and hit rate, weighted by the bins' counts.

    References
    ----------
    Naeini, M. P., Cooper, G. F., & Hauskrecht, M. (2015). Obtaining well calibrated probabilities
    using Bayesian binning. AAAI.
    """
    count, confidence, hits = bins[..., 0, :], bins[..., 1, :], bins[..., 2, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(confidence - hits).sum(axis=-1) / count.sum(axis=-1))


def debiased_calibration_error(bins: Array) -> Array:
    """Root mean squared calibration error minus the sampling noise of the bins, at least 0.

    References
    ----------
    Kumar, A., Liang, P., & Ma, T. (2019). Verified uncertainty calibration. NeurIPS.
    """
    count, confidence, hits = bins[..., 0, :], bins[..., 1, :], bins[..., 2, :]
    safe = np.maximum(count, 1.0)
    rate = hits / safe
    noise = rate * (1.0 - rate) / np.maximum(count - 1.0, 1.0)
    squared = (confidence / safe - rate) ** 2 - noise
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, count * squared, 0.0).sum(axis=-1) / count.sum(axis=-1)
    return np.sqrt(np.maximum(mean, 0.0))


def reliability_table(bins: Array) -> Array:
    """Rows (count, mean confidence, hit rate) of the nonempty bins, shape (n_used, 3)."""
    used = bins[0] > 0
    return np.stack(
        [bins[0, used], bins[1, used] / bins[0, used], bins[2, used] / bins[0, used]], axis=1
    )


def calibration_slope(labels: npt.NDArray[np.int64], proba: Array) -> float:
    """The factor on the log-probabilities that fits the labels best, together with intercepts.

    1 is well calibrated in spread, below 1 is overconfident. The intercepts absorb classes that are
    predicted too often or too rarely. NaN if no factor fits best: see `recalibration`.

    References
    ----------
    Cox, D. R. (1958). Two further applications of a model for binary regression. Biometrika
    45(3/4), 562-565. Van Calster, B., McLernon, D. J., van Smeden, M., Wynants, L., & Steyerberg,
    E. W. (2019). Calibration: the Achilles heel of predictive analytics. BMC Medicine 17, 230.

    Examples
    --------
    >>> proba = np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])
    >>> round(calibration_slope(np.array([0, 0, 1, 1, 0]), proba), 3)
    0.25
    """
    fit = recalibration(labels, proba)
    return float("nan") if fit is None else fit.slope
