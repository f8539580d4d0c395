"""Losses of a trial on held-out folds, over all images and per patient.

Solo: the log loss of the member itself. Team: that of the mean with the other members' stored
predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.metrics.proper_scores import log_loss_per_sample


@dataclasses.dataclass(frozen=True)
class FoldLoss:
    """The log loss (nats) of one held-out fold.

    Parameters
    ----------
    loss : float
        Mean over the images.
    n : int
        Number of images.
    patients : tuple of float
        Mean loss of each patient, in the order of their names.
    """

    loss: float
    n: int
    patients: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FoldLoss:
        return cls(float(values["loss"]), int(values["n"]), tuple(values["patients"]))


def fold_loss(
    logits: Array,
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.str_],
    team: Array | None = None,
) -> FoldLoss:
    """The loss of one fold.

    Parameters
    ----------
    logits : array, shape (n_samples, n_classes)
    team : array, shape (n_samples, n_others, n_classes), optional
        Probabilities of the other members; the loss is then that of the mean over all members.

    Examples
    --------
    >>> found = fold_loss(np.zeros((3, 2)), np.array([0, 1, 1]), np.array(["a", "b", "b"]))
    >>> round(found.loss, 3), len(found.patients)
    (0.693, 2)
    """
    proba = softmax(logits[:, None].astype(np.float64))
    if team is not None:
        proba = np.concatenate([proba, team], axis=1)
    each = log_loss_per_sample(labels, proba.mean(axis=1))
    _, patient_of = np.unique(groups, return_inverse=True)
    per_patient = np.bincount(patient_of, weights=each) / np.bincount(patient_of)
    return FoldLoss(float(each.mean()), len(each), tuple(map(float, per_patient)))


def overall(folds: Sequence[FoldLoss]) -> float:
    """The mean loss over all images of some folds.

    Examples
    --------
    >>> overall([FoldLoss(1.0, 1, (1.0,)), FoldLoss(2.0, 3, (2.0,))])
    1.75
    """
    return sum(f.loss * f.n for f in folds) / sum(f.n for f in folds)
