"""Figures per patient: images of a group pooled to one answer, and the patient recognition rate.

Pooling takes a combined table; what a group is, is in the table. Fits nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.combiners.base import Combined, decided
from ensemble_kit.errors import DataError, UsageError, did_you_mean, first_few

POOLING = ("mean", "vote", "max")
Ints = npt.NDArray[np.int64]


def pooled(
    combined: Combined, labels: Ints, groups: npt.ArrayLike, rule: str = "mean"
) -> tuple[Combined, Ints, npt.NDArray[np.str_]]:
    """One answer per group.

    Parameters
    ----------
    combined : Combined
        Per image.
    labels : array of int, shape (n_samples,)
        One label a group.
    groups : array-like, shape (n_samples,)
    rule : {"mean", "vote", "max"}
        Mean of the probabilities; share of the images' votes; highest probability per class.

    Returns
    -------
    Combined, labels, names
        Per group, in the order of the names.

    Raises
    ------
    DataError
        A group whose images have several labels: it has no one answer.
    """
    if rule not in POOLING:
        raise UsageError(
            "Groups are pooled by a known rule", f"got '{rule}'", did_you_mean(rule, POOLING)
        )
    names, numbered = np.unique(np.asarray(groups), return_inverse=True)
    first = np.unique(numbered, return_index=True)[1]
    mixed = np.unique(numbered[labels != labels[first][numbered]])
    if len(mixed):
        raise DataError(
            "A group has one label to be judged as one",
            f"{len(mixed)} have several: {first_few(names[mixed])}",
            "Judge per image, or group by slide",
        )
    return decided(_pool(combined, numbered, len(names), rule)), labels[first], names


def _pool(combined: Combined, numbered: Ints, n_groups: int, rule: str) -> Array:
    n_classes = combined.proba.shape[1]
    support = np.zeros((n_groups, n_classes))
    if rule == "max":
        np.maximum.at(support, numbered, combined.proba)
    elif rule == "vote":
        told = combined.predicted >= 0
        np.add.at(support, (numbered[told], combined.predicted[told]), 1.0)
    else:
        np.add.at(support, numbered, combined.proba)
    total = support.sum(axis=1, keepdims=True)
    return np.where(total > 0, support / np.where(total > 0, total, 1.0), 1.0 / n_classes)


def recognition_rate(predicted: Ints, labels: Ints, groups: npt.ArrayLike) -> float:
    """Mean over patients of the accuracy on their images: BreakHis's patient recognition rate.

    References
    ----------
    Spanhol, F. A., Oliveira, L. S., Petitjean, C., & Heutte, L. (2016). A dataset for breast cancer
    histopathological image classification. IEEE TBME 63(7), 1455-1462.

    Examples
    --------
    >>> recognition_rate(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), ["a", "a", "a", "b"])
    0.8333333333333333
    """
    numbered = np.unique(np.asarray(groups), return_inverse=True)[1]
    right = np.bincount(numbered, weights=predicted == labels)
    return float((right / np.bincount(numbered)).mean())
