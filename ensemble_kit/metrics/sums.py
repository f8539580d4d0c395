"""What most metrics need of a table: counts and sums that add up over samples and groups.

Because they add, a bootstrap over groups is one matrix product, and a jackknife one subtraction.
Knows no metric.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.metrics.calibration import N_BINS, bins_equal_mass, bins_equal_width
from ensemble_kit.metrics.probability import brier_per_sample, log_loss_per_sample

Ints = npt.NDArray[np.int64]
NOT_BINS = 4  # n, n_decided, log_loss, brier


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums over samples; every field may carry leading axes (groups, resamples).

    Parameters
    ----------
    confusion : array, shape (..., n_classes, n_classes)
        True class by predicted class; an abstention is an error, shared out evenly among the
        wrong classes, so that no figure of decisions gains by it.
    n, n_decided, log_loss, brier : array, shape (...)
    bins, mass_bins : array, shape (..., 3, N_BINS)
        Count, summed confidence, and hits per bin of confidence: of equal width, of equal mass.
        Confidence is the probability of the class decided for.

    References
    ----------
    Schuetz, G. M., Schlattmann, P., & Dewey, M. (2012). Use of 3x2 tables with an intention to
    diagnose approach to assess clinical performance of diagnostic tests. BMJ 345, e6717.
    """

    confusion: Array
    n: Array
    n_decided: Array
    log_loss: Array
    brier: Array
    bins: Array
    mass_bins: Array

    @property
    def flat(self) -> Array:
        """All sums side by side, shape (..., n_columns): what gets multiplied by weights."""
        lead = self.n.shape
        return np.concatenate(
            [
                self.confusion.reshape(*lead, -1),
                np.stack([self.n, self.n_decided, self.log_loss, self.brier], axis=-1),
                self.bins.reshape(*lead, -1),
                self.mass_bins.reshape(*lead, -1),
            ],
            axis=-1,
        )

    @staticmethod
    def of_flat(flat: Array) -> Sums:
        """The sums that `flat` laid side by side."""
        n_bins = 2 * 3 * N_BINS
        n_classes = round((flat.shape[-1] - NOT_BINS - n_bins) ** 0.5)
        lead, c2 = flat.shape[:-1], n_classes**2
        rest = flat[..., c2 + NOT_BINS :].reshape(*lead, 2, 3, N_BINS)
        return Sums(
            flat[..., :c2].reshape(*lead, n_classes, n_classes),
            n=flat[..., c2],
            n_decided=flat[..., c2 + 1],
            log_loss=flat[..., c2 + 2],
            brier=flat[..., c2 + 3],
            bins=rest[..., 0, :, :],
            mass_bins=rest[..., 1, :, :],
        )

    def total(self) -> Sums:
        """Summed over the first axis."""
        return Sums.of_flat(self.flat.sum(axis=0))


def sums_by_group(labels: Ints, proba: Array, predicted: Ints, groups: Ints) -> Sums:
    """The sums of each group, with a leading axis (n_groups,).

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    proba : array, shape (n_samples, n_classes)
    predicted : array of int, shape (n_samples,)
        -1 where the combiner abstained: an error of decision. Confidence and hits are then those
        of a fair draw among the likeliest classes, as losses there are of the probabilities too.
    groups : array of int, shape (n_samples,)
        Numbered `0 .. n_groups - 1`.
    """
    n_groups, n_classes = int(groups.max()) + 1, proba.shape[1]
    told = predicted >= 0

    def per_group(weights: Array | None = None) -> Array:
        return np.bincount(groups, weights=weights, minlength=n_groups).astype(np.float64)

    sure, hit = _confidence_and_hit(labels, proba, predicted)
    return Sums(
        _confusion(groups * n_classes + labels, predicted, n_groups, n_classes),
        per_group(),
        per_group(told.astype(np.float64)),
        per_group(log_loss_per_sample(labels, proba)),
        per_group(brier_per_sample(labels, proba)),
        _bin_sums(bins_equal_width(sure), sure, hit, groups, n_groups),
        _bin_sums(bins_equal_mass(sure), sure, hit, groups, n_groups),
    )


def _confusion(group_and_label: Ints, predicted: Ints, n_groups: int, n_classes: int) -> Array:
    """Confusion per group, shape (n_groups, n_classes, n_classes), abstentions shared out."""
    told = predicted >= 0
    shape = (n_groups, n_classes, n_classes)
    cell = group_and_label[told] * n_classes + predicted[told]
    counts = np.bincount(cell, minlength=n_groups * n_classes**2).reshape(shape).astype(np.float64)
    if told.all():
        return counts
    silent = np.bincount(group_and_label[~told], minlength=n_groups * n_classes)
    wrong = (1.0 - np.eye(n_classes)) / max(n_classes - 1, 1)
    return counts + silent.reshape(*shape[:2], 1) * wrong


def _confidence_and_hit(labels: Ints, proba: Array, predicted: Ints) -> tuple[Array, Array]:
    """The probability of the class decided for, and whether that is right; (n_samples,) each."""
    rows = np.arange(len(labels))
    sure, hit = proba[rows, predicted], (predicted == labels).astype(np.float64)
    silent = predicted < 0
    if silent.any():
        some = proba[silent]
        sure[silent] = some.max(axis=1)
        level = some == sure[silent][:, None]
        hit[silent] = level[np.arange(len(some)), labels[silent]] / level.sum(axis=1)
    return sure, hit


def _bin_sums(which: Ints, top: Array, hit: Array, groups: Ints, n_groups: int) -> Array:
    cell = groups * N_BINS + which
    rows = [
        np.bincount(cell, weights=w, minlength=n_groups * N_BINS).reshape(n_groups, N_BINS)
        for w in (None, top, hit)
    ]
    return np.stack(rows, axis=1).astype(np.float64)  # (n_groups, 3, N_BINS)


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
