"""Figures of a confusion matrix; every function takes (..., n_classes, n_classes), true by predicted.

Leading axes (resamples) stay. Macro figures are means over the classes that are present among the
labels. Knows no probabilities.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> Array:
    """Counts of true class by predicted class; abstentions (-1) are left out.

    Examples
    --------
    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    truth, chosen = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    told = chosen >= 0
    counts = np.bincount(truth[told] * n_classes + chosen[told], minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.float64)


def _ratio(above: Array, below: Array) -> Array:
    """`above / below`, NaN where nothing is below."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _over_present(per_class: Array, confusion: Array) -> Array:
    """Mean over the classes among the labels, of the figures that are defined."""
    values = np.where(confusion.sum(axis=-1) > 0, per_class, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a resample may be empty: its figure is NaN
        return np.asarray(np.nanmean(values, axis=-1))


def _diagonal(confusion: Array) -> Array:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def accuracy(confusion: Array) -> Array:
    """Share of samples that are right."""
    return _ratio(_diagonal(confusion).sum(axis=-1), confusion.sum(axis=(-2, -1)))


def sensitivity_per_class(confusion: Array) -> Array:
    """Share of each class that is found (recall), shape (..., n_classes); NaN for absent classes."""
    return _ratio(_diagonal(confusion), confusion.sum(axis=-1))


def specificity_per_class(confusion: Array) -> Array:
    """Share of the other classes' samples that are not taken for this one, (..., n_classes)."""
    total = confusion.sum(axis=(-2, -1))[..., None]
    others = total - confusion.sum(axis=-1)
    false = confusion.sum(axis=-2) - _diagonal(confusion)
    return _ratio(others - false, others)


def precision_per_class(confusion: Array) -> Array:
    """Share of each class's predictions that are right; NaN for classes never predicted."""
    return _ratio(_diagonal(confusion), confusion.sum(axis=-2))


def f1_per_class(confusion: Array) -> Array:
    """Harmonic mean of precision and sensitivity, shape (..., n_classes)."""
    return _ratio(2.0 * _diagonal(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


def balanced_accuracy(confusion: Array) -> Array:
    """Mean sensitivity of the classes present."""
    return _over_present(sensitivity_per_class(confusion), confusion)


def macro_specificity(confusion: Array) -> Array:
    """Mean specificity of the classes present; NaN where there is only one."""
    return _over_present(specificity_per_class(confusion), confusion)


def macro_precision(confusion: Array) -> Array:
    """Mean precision of the classes present; a class never predicted counts as 0."""
    return _over_present(np.nan_to_num(precision_per_class(confusion), nan=0.0), confusion)


def macro_f1(confusion: Array) -> Array:
    """Mean F1 of the classes present."""
    return _over_present(f1_per_class(confusion), confusion)


def mcc(confusion: Array) -> Array:
    """Matthews correlation of labels and predictions, any number of classes; 0 where undefined.

    References
    ----------
    Gorodkin, J. (2004). Comparing two K-category assignments by a K-category correlation
    coefficient. Computational Biology and Chemistry 28(5-6), 367-374.
    """
    n = confusion.sum(axis=(-2, -1))
    truth, chosen = confusion.sum(axis=-1), confusion.sum(axis=-2)
    covariance = _diagonal(confusion).sum(axis=-1) * n - (truth * chosen).sum(axis=-1)
    spread = (n**2 - (truth**2).sum(axis=-1)) * (n**2 - (chosen**2).sum(axis=-1))
    return np.nan_to_num(_ratio(covariance, np.sqrt(np.maximum(spread, 0.0))), nan=0.0)


def cohen_kappa(confusion: Array) -> Array:
    """Agreement beyond chance of labels and predictions; NaN where both are one class.

    References
    ----------
    Cohen, J. (1960). A coefficient of agreement for nominal scales. Educational and Psychological
    Measurement 20(1), 37-46.
    """
    n_classes = confusion.shape[-1]
    return weighted_kappa(confusion, 1.0 - np.eye(n_classes))


def weighted_kappa(confusion: Array, cost: Array) -> Array:
    """1 minus observed over expected cost, for any matrix of costs with a zero diagonal."""
    n = confusion.sum(axis=(-2, -1))
    expected = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]
    observed_cost = (confusion * cost).sum(axis=(-2, -1)) * n
    return 1.0 - _ratio(observed_cost, (expected * cost).sum(axis=(-2, -1)))
