"""Conformal prediction sets: class sets that hold the truth with a stated chance.

Calibrate on rows that the scores did not learn from: cross-fitted ones. Knows no combiner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, UsageError, did_you_mean

SCORES = ("lac", "aps", "raps")
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# Sums of equal weights must not decide by their last digit.
SLACK = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class ConformalSets:
    """Calibrated thresholds; a class is in the set where its score is at most its threshold.

    Parameters
    ----------
    score : {"lac", "aps", "raps"}
    thresholds : array, shape (n_classes,)
        Infinite where there are too few calibration rows to promise anything less than all.
    """

    score: str
    thresholds: Array

    def predict(self, proba: Array) -> Bools:
        """Which classes are in each set, shape (n_samples, n_classes)."""
        inside: Bools = nonconformity(proba, self.score) <= self.thresholds
        return inside


def nonconformity(proba: Array, score: str) -> Array:
    """How strange each class would be, shape (n_samples, n_classes).

    `lac`: one minus its probability. `aps`: the probability of all classes likelier, and its own.
    `raps`: that, with .01 for each rank beyond the second, against long sets.

    References
    ----------
    Sadinle, M., Lei, J., & Wasserman, L. (2019). JASA 114(525). Romano, Y., Sesia, M., & Candes, E.
    (2020). NeurIPS. Angelopoulos, A., et al. (2021). ICLR.
    """
    if score not in SCORES:
        raise UsageError(
            "A conformal score has a name", f"got '{score}'", did_you_mean(score, SCORES)
        )
    if score == "lac":
        return np.asarray(1.0 - proba)
    order = np.argsort(-proba, axis=1, kind="stable")
    total = np.cumsum(np.take_along_axis(proba, order, axis=1), axis=1)
    if score == "raps":
        total = total + 0.01 * np.maximum(np.arange(proba.shape[1]) - 1, 0)
    out = np.empty_like(total)
    np.put_along_axis(out, order, total, axis=1)
    return out


def units_needed(miss: float) -> int:
    """The fewest patients (or images) that a promise takes: with fewer, sets hold all classes.

    Examples
    --------
    >>> units_needed(0.1), units_needed(0.05)
    (9, 19)
    """
    _check_miss(miss)
    return math.ceil(1.0 / miss - SLACK * 1e3) - 1


def _check_miss(miss: float) -> None:
    if not 0 < miss < 1:
        raise DataError("The chance to miss lies in (0, 1)", f"got {miss}", "Use e.g. miss=0.1")


def calibrate(
    proba: Array,
    labels: Ints,
    *,
    miss: float = 0.1,
    score: str = "lac",
    groups: npt.ArrayLike | None = None,
    per_class: bool = False,
) -> ConformalSets:
    """Thresholds so that sets miss the truth of a new sample with a chance of at most `miss`.

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
        Cross-fitted, so that they are exchangeable with those of new samples.
    labels : array of int, shape (n_samples,)
    miss : float
        In (0, 1).
    score : {"lac", "aps", "raps"}
    groups : array-like, shape (n_samples,), optional
        Patients: then each weighs the same, whatever its number of images. Assumed is that patients
        are exchangeable, and the images within each; images of different patients need not be.
        The promise is for a random image of a new patient.
    per_class : bool
        Keep the promise for each class: for a random image of that class of a new patient who has
        one.

    References
    ----------
    Vovk, V., Gammerman, A., & Shafer, G. (2005). Algorithmic Learning in a Random World. Springer.
    Lee, Y., Barber, R. F., & Willett, R. (2023). Distribution-free inference with hierarchical
    data. arXiv:2306.06342 (groups: this weighting, valid at any number of them). Dunn, R.,
    Wasserman, L., & Ramdas, A. (2023). Distribution-free prediction sets for two-layer hierarchical
    models. JASA 118(544).

    Examples
    --------
    >>> proba = np.array([[0.9, 0.1]] * 19)
    >>> calibrate(proba, np.zeros(19, dtype=int)).predict(np.array([[0.95, 0.05], [0.5, 0.5]])).tolist()
    [[True, False], [False, False]]
    """
    _check_miss(miss)
    strange = nonconformity(proba, score)[np.arange(len(labels)), labels]
    units = _units(groups, len(labels))
    n_classes = proba.shape[1]
    if not per_class:
        return ConformalSets(score, np.full(n_classes, _threshold(strange, units, miss)))
    found = [_threshold(strange[labels == c], units[labels == c], miss) for c in range(n_classes)]
    return ConformalSets(score, np.array(found))


def _units(groups: npt.ArrayLike | None, n_samples: int) -> Ints:
    if groups is None:
        return np.arange(n_samples)
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _weights(units: Ints) -> Array:
    """Of each row: units weigh the same, and one to come weighs as much; shape (n_samples,)."""
    _, numbered, sizes = np.unique(units, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / sizes[numbered] / (len(sizes) + 1))


def _threshold(strange: Array, units: Ints, miss: float) -> float:
    """The smallest value that units of equal weight, and one to come, stay under often enough."""
    if not len(strange):
        return np.inf
    order = np.argsort(strange, kind="stable")
    reached = np.cumsum(_weights(units)[order])
    enough = np.flatnonzero(reached >= 1 - miss - SLACK)
    return float(strange[order[enough[0]]]) if len(enough) else np.inf


def cross_conformal(
    proba: Array,
    labels: Ints,
    fold: Ints,
    new: Mapping[int, Array],
    *,
    miss: float = 0.1,
    score: str = "lac",
    groups: npt.ArrayLike | None = None,
    per_class: bool = False,
) -> Bools:
    """Sets of new samples, each compared with every fold's rows by that fold's own models.

    Like is compared with like: split conformal applies thresholds of single folds' models to the
    average of all. The proven bound is `1 - 2 miss`, what is met in practice near `1 - miss`.

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
        Out-of-fold.
    labels, fold : array of int, shape (n_samples,)
    new : mapping of fold to array of shape (n_new, n_classes)
        What the models that left that fold out say of the new samples.
    miss, score, groups, per_class
        As in `calibrate`.

    Returns
    -------
    array of bool, shape (n_new, n_classes)

    References
    ----------
    Vovk, V. (2015). Cross-conformal predictors. Annals of Mathematics and AI 74. Barber, R. F.,
    Candes, E., Ramdas, A., & Tibshirani, R. (2021). Predictive inference with the jackknife+.
    Annals of Statistics 49(1) (the bound, of exchangeable rows).
    """
    _check_miss(miss)
    strange = nonconformity(proba, score)[np.arange(len(labels)), labels]
    units = _units(groups, len(labels))
    n_classes = proba.shape[1]
    candidates = {int(k): nonconformity(one, score) for k, one in new.items()}
    out = np.ones((len(next(iter(candidates.values()))), n_classes), dtype=bool)
    for c in range(n_classes):
        rows = np.flatnonzero(labels == c) if per_class else np.arange(len(labels))
        weights = _weights(units[rows])
        below = np.zeros(len(out))
        for k, of_class in candidates.items():
            mine = fold[rows] == k
            below += _weight_below(strange[rows][mine], weights[mine], of_class[:, c])
        out[:, c] = below < 1 - miss - SLACK
    return out


def _weight_below(values: Array, weights: Array, at: Array) -> Array:
    """The weight of the values strictly below each of `at`."""
    order = np.argsort(values, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weights[order])])
    below: Array = total[np.searchsorted(values[order], at, side="left")]
    return below


def cross_fitted_sets(
    proba: Array,
    labels: Ints,
    fold: Ints,
    *,
    miss: float = 0.1,
    score: str = "lac",
    groups: npt.ArrayLike | None = None,
    per_class: bool = False,
) -> Bools:
    """Sets of the calibration rows themselves, each under thresholds of the other folds."""
    out = np.ones(proba.shape, dtype=bool)
    units = _units(groups, len(labels))
    for k in np.unique(fold):
        others = fold != k
        fitted = calibrate(
            proba[others], labels[others], miss=miss, score=score, groups=units[others],
            per_class=per_class,
        )  # fmt: skip
        out[~others] = fitted.predict(proba[~others])
    return out


def coverage(sets: Bools, labels: Ints) -> dict[str, float]:
    """Measured: share of sets that hold the truth, their mean size, share of one class, of none."""
    size = sets.sum(axis=1)
    return {
        "coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "mean_size": float(size.mean()),
        "single": float((size == 1).mean()),
        "empty": float((size == 0).mean()),
    }
