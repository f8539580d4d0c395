"""Counts and sums over samples, from which most metrics are computed.

The sums of all resamples of the groups are a matrix product.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.metrics.calibration import N_BINS, bins_equal_mass, bins_equal_width
from ensemble_kit.metrics.confusion import Confusion, GroupConfusions
from ensemble_kit.metrics.proper_scores import brier_per_sample, log_loss_per_sample

N_OTHERS = 4 + 2 * 3 * N_BINS


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums over samples, with any leading axes (resamples).

    Parameters
    ----------
    counts : Confusion
        True class by predicted class. An abstention is an error, divided evenly among the wrong
        classes, so that an abstention never improves a metric of decisions.
    others : array, shape (..., N_OTHERS)
        The other sums: n, n_decided, log_loss, brier, and both kinds of bins.

    References
    ----------
    Schuetz, G. M., Schlattmann, P., & Dewey, M. (2012). Use of 3x2 tables with an intention to
    diagnose approach to assess clinical performance of diagnostic tests. BMJ 345, e6717.
    """

    counts: Confusion
    others: Array

    @property
    def confusion(self) -> Array:
        """The confusion matrices in full, shape (..., n_classes, n_classes)."""
        return self.counts.full

    @property
    def n(self) -> Array:
        """Number of samples, shape (...)."""
        return self.others[..., 0]

    @property
    def n_decided(self) -> Array:
        """Number of samples without an abstention, shape (...)."""
        return self.others[..., 1]

    @property
    def log_loss(self) -> Array:
        """Summed log loss, shape (...)."""
        return self.others[..., 2]

    @property
    def brier(self) -> Array:
        """Summed Brier score, shape (...)."""
        return self.others[..., 3]

    @property
    def bins(self) -> Array:
        """Count, summed confidence, and hits per bin of equal width, shape (..., 3, N_BINS).

        Confidence is the probability of the predicted class.
        """
        return self._bins(0)

    @property
    def mass_bins(self) -> Array:
        """The same per bin of equal mass, shape (..., 3, N_BINS)."""
        return self._bins(1)

    def _bins(self, kind: int) -> Array:
        return self.others[..., 4:].reshape(*self.others.shape[:-1], 2, 3, N_BINS)[..., kind, :, :]


@dataclasses.dataclass(frozen=True, eq=False)
class GroupSums:
    """The sums of each group of samples.

    Parameters
    ----------
    counts : GroupConfusions
    others : array, shape (n_groups, N_OTHERS)
        As in `Sums`.
    """

    counts: GroupConfusions
    others: Array

    def weighted(self, weights: Array) -> Sums:
        """The sums of resamples of the groups.

        Parameters
        ----------
        weights : array, shape (..., n_groups)
            How often each group counts in each resample.
        """
        return Sums(self.counts.weighted(weights), weights @ self.others)

    def total(self) -> Sums:
        """The sums of the whole table."""
        return self.weighted(np.ones(len(self.others)))


def sums_by_group(labels: Ints, proba: Array, predicted: Ints, groups: Ints) -> GroupSums:
    """The sums of each group.

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    proba : array, shape (n_samples, n_classes)
    predicted : array of int, shape (n_samples,)
        -1 if the combiner abstained: an error of decision. Confidence and hits are then those of a
        random draw among the most probable classes. Losses use the probabilities.
    groups : array of int, shape (n_samples,)
        Numbered `0 .. n_groups - 1`.
    """
    n_groups = int(groups.max()) + 1

    def per_group(weights: Array | None = None) -> Array:
        return np.bincount(groups, weights=weights, minlength=n_groups).astype(np.float64)

    confidence, hit = confidence_and_hit(labels, proba, predicted)
    columns = [
        per_group(),
        per_group((predicted >= 0).astype(np.float64)),
        per_group(log_loss_per_sample(labels, proba)),
        per_group(brier_per_sample(labels, proba)),
        _bin_sums(bins_equal_width(confidence), confidence, hit, groups, n_groups),
        _bin_sums(bins_equal_mass(confidence), confidence, hit, groups, n_groups),
    ]
    counts = GroupConfusions.of(labels, predicted, groups, proba.shape[1])
    return GroupSums(counts, np.column_stack(columns))


def confidence_and_hit(labels: Ints, proba: Array, predicted: Ints) -> tuple[Array, Array]:
    """The probability of the decided class, and whether it is correct; (n_samples,) each."""
    rows = np.arange(len(labels))
    confidence, hit = proba[rows, predicted], (predicted == labels).astype(np.float64)
    abstained = predicted < 0
    if abstained.any():
        some = proba[abstained]
        confidence[abstained] = some.max(axis=1)
        level = some == confidence[abstained][:, None]
        hit[abstained] = level[np.arange(len(some)), labels[abstained]] / level.sum(axis=1)
    return confidence, hit


def _bin_sums(which: Ints, top: Array, hit: Array, groups: Ints, n_groups: int) -> Array:
    cell = groups * N_BINS + which
    rows = [
        np.bincount(cell, weights=w, minlength=n_groups * N_BINS).reshape(n_groups, N_BINS)
        for w in (None, top, hit)
    ]
    return np.concatenate(rows, axis=1).astype(np.float64)  # (n_groups, 3 * N_BINS)


def sums_of(labels: npt.ArrayLike, proba: Array, predicted: npt.ArrayLike | None = None) -> Sums:
    """The sums of a whole table.

    Examples
    --------
    >>> sums_of([0, 1], np.array([[0.8, 0.2], [0.6, 0.4]])).confusion.tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    truth = np.asarray(labels, dtype=np.int64)
    chosen = proba.argmax(axis=1) if predicted is None else np.asarray(predicted, dtype=np.int64)
    return sums_by_group(truth, proba, chosen, np.zeros(len(truth), dtype=np.int64)).total()
