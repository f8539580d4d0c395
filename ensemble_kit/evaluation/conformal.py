"""Conformal prediction sets: class sets that hold the truth with a stated chance.

Calibrate on rows that the scores did not learn from: cross-fitted ones. Knows no combiner.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, UsageError, did_you_mean

SCORES = ("lac", "aps", "raps")


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

    def predict(self, proba: Array) -> npt.NDArray[np.bool_]:
        """Which classes are in each set, shape (n_samples, n_classes)."""
        inside: npt.NDArray[np.bool_] = nonconformity(proba, self.score) <= self.thresholds
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


def calibrate(
    proba: Array,
    labels: npt.NDArray[np.int64],
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
        Patients: then each weighs the same, whatever its number of images, and the promise is for
        a random image of a new patient.
    per_class : bool
        Keep the promise for each class.

    References
    ----------
    Vovk, V., Gammerman, A., & Shafer, G. (2005). Algorithmic Learning in a Random World. Springer.
    Dunn, R., Wasserman, L., & Ramdas, A. (2023). Distribution-free prediction sets for two-layer
    hierarchical models. JASA 118(544) (groups).

    Examples
    --------
    >>> proba = np.array([[0.9, 0.1]] * 19)
    >>> calibrate(proba, np.zeros(19, dtype=int)).predict(np.array([[0.95, 0.05], [0.5, 0.5]])).tolist()
    [[True, False], [False, False]]
    """
    if not 0 < miss < 1:
        raise DataError("The chance to miss lies in (0, 1)", f"got {miss}", "Use e.g. miss=0.1")
    strange = nonconformity(proba, score)[np.arange(len(labels)), labels]
    units = (
        np.arange(len(labels))
        if groups is None
        else np.unique(np.asarray(groups), return_inverse=True)[1]
    )
    n_classes = proba.shape[1]
    if not per_class:
        return ConformalSets(score, np.full(n_classes, _threshold(strange, units, miss)))
    found = [_threshold(strange[labels == c], units[labels == c], miss) for c in range(n_classes)]
    return ConformalSets(score, np.array(found))


def _threshold(strange: Array, units: npt.NDArray[np.int64], miss: float) -> float:
    """The smallest value that units of equal weight, and one to come, stay under often enough."""
    if not len(strange):
        return np.inf
    _, numbered, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(strange, kind="stable")
    reached = np.cumsum(1.0 / sizes[numbered[order]]) / (len(sizes) + 1)
    enough = np.flatnonzero(reached >= 1 - miss - 1e-12)
    return float(strange[order[enough[0]]]) if len(enough) else np.inf


def coverage(sets: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Measured: share of sets that hold the truth, their mean size, share of one class, of none."""
    size = sets.sum(axis=1)
    return {
        "coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "mean_size": float(size.mean()),
        "single": float((size == 1).mean()),
        "empty": float((size == 0).mean()),
    }
