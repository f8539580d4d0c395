"""The derivative of an ensemble's score of a class with respect to the logits of each member.

Pools of probabilities: the weight of each member. Votes: equal weights on the members' margins.
All other combiners: the derivative of the class's log odds, by central differences.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, softmax
from ensemble_kit.combiners import name_of
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.baselines import BestMember
from ensemble_kit.combiners.calibrated import TemperatureScaled
from ensemble_kit.combiners.dynamic_selection import DynamicSelection
from ensemble_kit.combiners.rules.averaging import (
    MaxProba,
    MeanLogits,
    MeanProba,
    MedianProba,
    MinProba,
    TrimmedMeanProba,
)
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.combiners.weights.greedy_selection import GreedySelection
from ensemble_kit.combiners.weights.simplex import SimplexWeights
from ensemble_kit.errors import UsageError

POOLS = (
    MeanProba, MedianProba, TrimmedMeanProba, MaxProba, MinProba, BestMember, SimplexWeights,
    GreedySelection, DynamicSelection,
)  # fmt: skip
STEP = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class CombinerSlope:
    """The derivative of the ensemble's score with respect to the members' logits.

    Parameters
    ----------
    directions : array of float64, shape (n, n_members, n_classes)
    replaced : array of bool, shape (n,)
        True if the combiner has no derivative there (it is a step, or saturated). The direction is
        then the members' margins with equal weights.
    """

    directions: Array
    replaced: npt.NDArray[np.bool_]


def refuse_features(combiner: Combiner) -> None:
    """Raise `UsageError` if a combiner uses features: its derivative by logits is not enough."""
    if combiner.needs_features:
        raise UsageError(
            f"'{name_of(combiner)}' cannot be explained",
            "it combines pooled features, and maps need a method that combines logits",
            "Explain another method, or a member: --method NAME",
        )


def combiner_slope(combiner: Combiner, logits: Array, classes: Ints) -> CombinerSlope:
    """The derivative of the score of one class per row.

    Parameters
    ----------
    combiner : Combiner
        Fitted.
    logits : array, shape (n, n_members, n_classes)
    classes : array of int, shape (n,)
        The explained class of each row.

    Examples
    --------
    >>> logits = np.zeros((1, 2, 2))
    >>> combiner = MeanProba().fit(logits, [0])
    >>> combiner_slope(combiner, logits, np.array([1])).directions[0].round(6).tolist()
    [[-0.5, 0.5], [-0.5, 0.5]]
    """
    logits = np.asarray(logits, dtype=np.float64)
    if isinstance(combiner, TemperatureScaled):  # one factor for all members
        return combiner_slope(combiner.inner_, logits, classes)
    if isinstance(combiner, MajorityVote):
        found = margins(logits, classes) / logits.shape[1]
    elif isinstance(combiner, MeanLogits):
        found = log_odds_slope(logits, classes) / logits.shape[1]
    elif isinstance(combiner, POOLS):
        weights = pool_weights(combiner, logits, classes)
        found = weights[:, :, None] * log_odds_slope(logits, classes)
    else:
        found = _numeric(combiner, logits, classes)
    lost = ~np.isfinite(found).all(axis=(1, 2)) | ~found.any(axis=(1, 2))
    equal = margins(logits, classes) / logits.shape[1]
    return CombinerSlope(np.where(lost[:, None, None], equal, found), lost)


def log_odds_slope(logits: Array, classes: Ints) -> Array:
    """Derivative of each member's log odds of the class. It does not vanish for confident members.

    Returns
    -------
    array, shape (n, n_members, n_classes)
        1 for the class. For another class, minus its probability given that the class is wrong.
    """
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, :, classes] = -np.inf
    found = -softmax(others)
    found[rows, :, classes] = 1.0
    return found


def margins(logits: Array, classes: Ints) -> Array:
    """Derivative of each member's margin: the logit of the class minus the highest other logit."""
    rows, members = np.arange(len(logits))[:, None], np.arange(logits.shape[1])[None]
    others = logits.copy()
    others[rows[:, 0], :, classes] = -np.inf
    found = np.zeros_like(logits)
    found[rows, members, others.argmax(axis=2)] = -1.0
    found[rows[:, 0], :, classes] = 1.0
    return found


def pool_weights(combiner: Combiner, logits: Array, classes: Ints) -> Array:
    """Derivative of the ensemble's probability by each member's, shape (n, n_members).

    For a weighted mean of probabilities, these are its weights.
    """
    proba = softmax(logits)
    n, n_members, n_classes = proba.shape
    rows = np.arange(n)
    before = combiner.predict_proba(logits)[rows, classes]
    found = np.empty((n, n_members))
    for m in range(n_members):
        own = proba[:, m]
        inside = own[rows, classes]
        target = np.zeros((n, n_classes))
        target[rows, classes] = 1.0
        # Confident members are moved towards the other classes.
        away = (1.0 - target) / (n_classes - 1)
        target = np.where((inside > 0.5)[:, None], away, target)
        moved = proba.copy()
        moved[:, m] = (1 - STEP) * own + STEP * target
        with np.errstate(divide="ignore"):
            after = combiner.predict_proba(np.log(moved))[rows, classes]
        found[:, m] = (after - before) / (moved[rows, m, classes] - inside)
    return found


def _numeric(combiner: Combiner, logits: Array, classes: Ints) -> Array:
    found = np.empty_like(logits)
    for m in range(logits.shape[1]):
        for c in range(logits.shape[2]):
            step = np.zeros_like(logits)
            step[:, m, c] = STEP
            up, down = (_log_odds(combiner, logits + s * step, classes) for s in (1, -1))
            with np.errstate(invalid="ignore"):
                found[:, m, c] = (up - down) / (2 * STEP)
    return found


def _log_odds(combiner: Combiner, logits: Array, classes: Ints) -> Array:
    proba = combiner.predict_proba(logits)
    rows = np.arange(len(proba))
    inside = proba[rows, classes]
    others = proba.copy()
    others[rows, classes] = 0.0
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(inside) - np.log(others.sum(axis=1)))
