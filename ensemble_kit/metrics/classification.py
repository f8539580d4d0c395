"""Metrics of confusion matrices (..., n_classes, n_classes), true by predicted class.

Leading axes (resamples) are preserved. Macro metrics are means over the classes among the labels.
Matrices are given in full or as `Confusion`.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.metrics.confusion import Confusion

Matrices = Array | Confusion


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> Array:
    """Counts of true class by predicted class; abstentions (-1) are left out.

    Examples
    --------
    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    truth, chosen = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    is_decided = chosen >= 0
    counts = np.bincount(truth[is_decided] * n_classes + chosen[is_decided], minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.float64)


def _ratio(above: Array, below: Array) -> Array:
    """`above / below`, NaN if `below` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _over_present(per_class: Array, counts: Confusion) -> Array:
    """Mean of the defined values over the classes among the labels."""
    values = np.where(counts.true > 0, per_class, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the value of an empty resample is NaN
        return np.asarray(np.nanmean(values, axis=-1))


def accuracy(confusion: Matrices) -> Array:
    """Share of samples that are predicted correctly."""
    counts = Confusion.of(confusion)
    return _ratio(counts.found.sum(axis=-1), counts.n)


def sensitivity_per_class(confusion: Matrices) -> Array:
    """Share of each class that is predicted correctly (recall), shape (..., n_classes); NaN for absent classes."""
    counts = Confusion.of(confusion)
    return _ratio(counts.found, counts.true)


def specificity_per_class(confusion: Matrices) -> Array:
    """Share of the samples of other classes that are not predicted as this class, (..., n_classes)."""
    counts = Confusion.of(confusion)
    others = counts.n[..., None] - counts.true
    false = counts.predicted - counts.found
    return _ratio(others - false, others)


def precision_per_class(confusion: Matrices) -> Array:
    """Share of the predictions of each class that are correct; NaN for classes never predicted."""
    counts = Confusion.of(confusion)
    return _ratio(counts.found, counts.predicted)


def f1_per_class(confusion: Matrices) -> Array:
    """Harmonic mean of precision and sensitivity, shape (..., n_classes)."""
    counts = Confusion.of(confusion)
    return _ratio(2.0 * counts.found, counts.true + counts.predicted)


def balanced_accuracy(confusion: Matrices) -> Array:
    """Mean sensitivity of the classes present."""
    counts = Confusion.of(confusion)
    return _over_present(sensitivity_per_class(counts), counts)


def macro_specificity(confusion: Matrices) -> Array:
    """Mean specificity of the classes present; NaN if there is only one."""
    counts = Confusion.of(confusion)
    return _over_present(specificity_per_class(counts), counts)


def macro_precision(confusion: Matrices) -> Array:
    """Mean precision of the classes present; a class never predicted counts as 0."""
    counts = Confusion.of(confusion)
    return _over_present(np.nan_to_num(precision_per_class(counts), nan=0.0), counts)


def macro_f1(confusion: Matrices) -> Array:
    """Mean F1 of the classes present."""
    counts = Confusion.of(confusion)
    return _over_present(f1_per_class(counts), counts)


def mcc(confusion: Matrices) -> Array:
    """Matthews correlation of labels and predictions, any number of classes; 0 where undefined.

    References
    ----------
    Gorodkin, J. (2004). Comparing two K-category assignments by a K-category correlation
    coefficient. Computational Biology and Chemistry 28(5-6), 367-374.
    """
    counts = Confusion.of(confusion)
    n, truth, chosen = counts.n, counts.true, counts.predicted
    covariance = counts.found.sum(axis=-1) * n - (truth * chosen).sum(axis=-1)
    spread = (n**2 - (truth**2).sum(axis=-1)) * (n**2 - (chosen**2).sum(axis=-1))
    return np.nan_to_num(_ratio(covariance, np.sqrt(np.maximum(spread, 0.0))), nan=0.0)


def cohen_kappa(confusion: Matrices) -> Array:
    """Agreement of labels and predictions beyond chance; NaN if both have one class only.

    References
    ----------
    Cohen, J. (1960). A coefficient of agreement for nominal scales. Educational and Psychological
    Measurement 20(1), 37-46.
    """
    counts = Confusion.of(confusion)
    return weighted_kappa(counts, 1.0 - np.eye(counts.found.shape[-1]))


def weighted_kappa(confusion: Matrices, cost: Array) -> Array:
    """1 minus observed over expected cost, for any matrix of costs with a zero diagonal."""
    counts = Confusion.of(confusion)
    expected_cost = ((counts.true @ cost) * counts.predicted).sum(axis=-1)
    return 1.0 - _ratio(counts.total(cost) * counts.n, expected_cost)
