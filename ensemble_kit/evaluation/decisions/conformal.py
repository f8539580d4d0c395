"""Conformal prediction sets: sets of classes with a guaranteed coverage of 1 - alpha.

Calibrate on cross-fitted predictions: rows that the probabilities were not fitted to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Bools, Ints, group_numbers
from ensemble_kit.errors import DataError, UsageError, did_you_mean

SCORES = ("lac", "aps", "raps")
# Rounding tolerance for sums of equal weights.
SLACK = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class ConformalSets:
    """Calibrated thresholds; a class is in the set if its score is at most its threshold.

    Parameters
    ----------
    score : {"lac", "aps", "raps"}
    thresholds : array, shape (n_classes,)
        Infinite if there are too few calibration rows; sets then contain every class.
    """

    score: str
    thresholds: Array

    def predict(self, proba: Array) -> Bools:
        """Which classes are in each set, shape (n_samples, n_classes)."""
        inside: Bools = nonconformity(proba, self.score) <= self.thresholds
        return inside


def nonconformity(proba: Array, score: str) -> Array:
    """Nonconformity score of each class, shape (n_samples, n_classes).

    `lac`: one minus the probability of the class. `aps`: cumulative probability of the class and
    all more probable classes. `raps`: `aps` plus a penalty of .01 for each rank beyond the second,
    which makes sets smaller.

    References
    ----------
    Sadinle, M., Lei, J., & Wasserman, L. (2019). JASA 114(525). Romano, Y., Sesia, M., & Candes, E.
    (2020). NeurIPS. Angelopoulos, A., et al. (2021). ICLR.
    """
    if score not in SCORES:
        raise UsageError(
            f"Unknown conformal score '{score}'",
            f"the scores are {', '.join(SCORES)}",
            did_you_mean(score, SCORES),
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


def units_needed(alpha: float) -> int:
    """Minimum number of patients (or images) for calibration; with fewer, sets contain all classes.

    Examples
    --------
    >>> units_needed(0.1), units_needed(0.05)
    (9, 19)
    """
    _check_alpha(alpha)
    return math.ceil(1.0 / alpha - SLACK * 1e3) - 1


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise DataError(
            f"Invalid error rate (alpha) {alpha}",
            "it must be between 0 and 1",
            "Use e.g. 0.1 for a coverage of 90 %",
        )


def calibrate(
    proba: Array,
    labels: Ints,
    *,
    alpha: float = 0.1,
    score: str = "lac",
    groups: npt.ArrayLike | None = None,
    per_class: bool = False,
) -> ConformalSets:
    """Thresholds of sets that contain the true class of a new sample with probability of at least 1 - `alpha`.

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
        Cross-fitted probabilities; they should be exchangeable with the probabilities of new samples.
    labels : array of int, shape (n_samples,)
    alpha : float
        Error rate, between 0 and 1.
    score : {"lac", "aps", "raps"}
    groups : array-like, shape (n_samples,), optional
        Patients. Each patient has the same weight. The coverage holds for a random image of a new
        patient, if patients are exchangeable and the images within each patient are exchangeable.
    per_class : bool
        Calibrate for each class separately (class-conditional coverage). The coverage holds for a
        random image of that class of a new patient who has one.

    References
    ----------
    Vovk, V., Gammerman, A., & Shafer, G. (2005). Algorithmic Learning in a Random World. Springer.
    Lee, Y., Barber, R. F., & Willett, R. (2023). Distribution-free inference with hierarchical
    data. arXiv:2306.06342 (the weighting of groups). Dunn, R., Wasserman, L., & Ramdas, A. (2023).
    Distribution-free prediction sets for two-layer hierarchical models. JASA 118(544).

    Examples
    --------
    >>> proba = np.array([[0.9, 0.1]] * 19)
    >>> calibrate(proba, np.zeros(19, dtype=int)).predict(np.array([[0.95, 0.05], [0.5, 0.5]])).tolist()
    [[True, False], [False, False]]
    """
    _check_alpha(alpha)
    nonconforming = nonconformity(proba, score)[np.arange(len(labels)), labels]
    units = _units(groups, len(labels))
    n_classes = proba.shape[1]
    if not per_class:
        return ConformalSets(score, np.full(n_classes, _threshold(nonconforming, units, alpha)))
    found = [
        _threshold(nonconforming[labels == c], units[labels == c], alpha) for c in range(n_classes)
    ]
    return ConformalSets(score, np.array(found))


def _units(groups: npt.ArrayLike | None, n_samples: int) -> Ints:
    if groups is None:
        return np.arange(n_samples)
    return group_numbers(groups)


def _weights(units: Ints) -> Array:
    """Weight of each row, shape (n_samples,): equal for all units, one of them for the new unit."""
    _, numbered, sizes = np.unique(units, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / sizes[numbered] / (len(sizes) + 1))


def _threshold(nonconforming: Array, units: Ints, alpha: float) -> float:
    """The conformal quantile: the 1 - `alpha` quantile of the scores, with the new unit at infinity."""
    if not len(nonconforming):
        return np.inf
    order = np.argsort(nonconforming, kind="stable")
    reached = np.cumsum(_weights(units)[order])
    enough = np.flatnonzero(reached >= 1 - alpha - SLACK)
    return float(nonconforming[order[enough[0]]]) if len(enough) else np.inf


def cross_conformal(
    proba: Array,
    labels: Ints,
    fold: Ints,
    new: Mapping[int, Array],
    *,
    alpha: float = 0.1,
    score: str = "lac",
    groups: npt.ArrayLike | None = None,
    per_class: bool = False,
) -> Bools:
    """Cross-conformal sets: each new sample is compared with each fold by the models of that fold.

    Split conformal applies thresholds from the models of single folds to the average of all
    models. Cross-conformal prediction avoids this mismatch. The guaranteed coverage is
    `1 - 2 alpha`; in practice it is near `1 - alpha`.

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
        Out-of-fold probabilities.
    labels, fold : array of int, shape (n_samples,)
    new : mapping of fold to array of shape (n_new, n_classes)
        Probabilities of the new samples by the models that were trained without that fold.
    alpha, score, groups, per_class
        See `calibrate`.

    Returns
    -------
    array of bool, shape (n_new, n_classes)

    References
    ----------
    Vovk, V. (2015). Cross-conformal predictors. Annals of Mathematics and AI 74. Barber, R. F.,
    Candes, E., Ramdas, A., & Tibshirani, R. (2021). Predictive inference with the jackknife+.
    Annals of Statistics 49(1) (the bound, for exchangeable rows).
    """
    _check_alpha(alpha)
    nonconforming = nonconformity(proba, score)[np.arange(len(labels)), labels]
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
            below += _weight_below(nonconforming[rows][mine], weights[mine], of_class[:, c])
        out[:, c] = below < 1 - alpha - SLACK
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
    alpha: float = 0.1,
    score: str = "lac",
    groups: npt.ArrayLike | None = None,
    per_class: bool = False,
) -> Bools:
    """Sets of the calibration rows, each with thresholds of the other folds."""
    out = np.ones(proba.shape, dtype=bool)
    units = _units(groups, len(labels))
    for k in np.unique(fold):
        others = fold != k
        fitted = calibrate(
            proba[others], labels[others], alpha=alpha, score=score, groups=units[others],
            per_class=per_class,
        )  # fmt: skip
        out[~others] = fitted.predict(proba[~others])
    return out
