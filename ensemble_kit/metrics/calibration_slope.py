"""Logistic recalibration: one slope on log-probabilities, and an intercept per class but the first.

Fitted by Newton's method. With a slope of 1 and two classes, the intercept alone is calibration in
the large.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, log_softmax
from ensemble_kit.metrics.proper_scores import SMALLEST_PROBA

N_STEPS = 50
N_FEW_STEPS = 8
# For scores of unit spread: a smaller step means that the maximum is reached.
SMALLEST_STEP = 1e-9
# With a smaller mean curvature, the slope is not determined by the data.
SMALLEST_CURVATURE = 1e-9
# Blocks x rows that are refitted at once: 8 MB of float64.
CHUNK = 1 << 20
# Largest step of the intercept: the loss is flat far from the fit.
LONGEST_STEP = 4.0


@dataclasses.dataclass(frozen=True, eq=False)
class Recalibration:
    """The fit of softmax(slope * log proba + intercepts) to labels.

    Parameters
    ----------
    scores : array, shape (n_samples, n_present)
        Log-probabilities of the classes among the labels, divided by their `spread`.
    labels : array of int, shape (n_samples,)
        Numbers of these classes.
    parameters : array, shape (n_present,)
        Maximum-likelihood slope (on those scores) and intercepts.
    spread : float
    """

    scores: Array
    labels: Ints
    parameters: Array
    spread: float

    @property
    def slope(self) -> float:
        return float(self.parameters[0] / self.spread)


def recalibration(labels: Ints, proba: Array) -> Recalibration | None:
    """The maximum-likelihood fit; None if it does not exist.

    It does not exist for one class, for constant scores, and for scores that separate the classes
    perfectly (a larger slope always has a higher likelihood).

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    proba : array, shape (n_samples, n_classes)
        Classes without a label are left out.

    References
    ----------
    Cox, D. R. (1958). Two further applications of a model for binary regression. Biometrika
    45(3/4), 562-565.

    Examples
    --------
    >>> proba = np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])
    >>> round(recalibration(np.array([0, 0, 1, 1, 0]), proba).slope, 3)
    0.25
    """
    present, numbered = np.unique(labels, return_inverse=True)
    scores = np.log(np.maximum(proba[:, present], SMALLEST_PROBA))
    scores -= scores.mean(axis=1, keepdims=True)
    spread = float(scores.std())
    if len(present) < 2 or spread < SMALLEST_STEP:
        return None
    parameters = _fit(scores / spread, numbered, spread)
    if parameters is None:
        return None
    return Recalibration(scores / spread, numbered, parameters, spread)


def slopes_without(labels: Ints, proba: Array, groups: Ints, blocks: Sequence[Ints]) -> Array:
    """The slope fitted again without each block of groups, shape (n_blocks,).

    NaN if no slope fits best, or if a class is missing without the block.

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    proba : array, shape (n_samples, n_classes)
    groups : array of int, shape (n_samples,)
    blocks : sequence of arrays of int
        Groups that are left out together; no group is in two blocks.
    """
    out = np.full(len(blocks), np.nan)
    fit = recalibration(labels, proba)
    if fit is None:
        return out
    block_of = np.full(int(groups.max(initial=0)) + 1, -1)
    for b, block in enumerate(blocks):
        block_of[block] = b
    used = block_of[groups] != np.arange(len(blocks))[:, None]
    n_present = fit.scores.shape[1]
    if n_present == 2:
        out[:] = _slopes_of_two(fit, used)
    for b in np.flatnonzero(np.isnan(out)).tolist():
        rows = used[b]
        one = recalibration(labels[rows], proba[rows])
        if one is not None and one.scores.shape[1] == n_present:
            out[b] = one.slope
    return out


def _slopes_of_two(fit: Recalibration, used: npt.NDArray[np.bool_]) -> Array:
    """Slopes for two classes by a few Newton steps from the whole fit; NaN if these do not converge."""
    x = np.stack([fit.scores[:, 1] - fit.scores[:, 0], np.ones(len(fit.labels))])
    products = np.stack([x[0] * x[0], x[0], x[1]])
    n_at_once = max(1, CHUNK // len(fit.labels))
    parts = []
    for start in range(0, len(used), n_at_once):
        weight = used[start : start + n_at_once].astype(np.float64)
        at = np.tile(fit.parameters, (len(weight), 1))
        for _ in range(N_FEW_STEPS):
            chance = _logistic(at @ x)
            first = (weight * (chance - fit.labels)) @ x.T
            aa, ab, bb = ((weight * chance * (1.0 - chance)) @ products.T).T
            flat = aa * bb - ab**2 < SMALLEST_CURVATURE * np.maximum(aa, bb) * len(fit.labels)
            below = np.where(flat, np.nan, aa * bb - ab**2)
            step = np.stack(
                [bb * first[:, 0] - ab * first[:, 1], aa * first[:, 1] - ab * first[:, 0]]
            )
            step = (step / below).T
            at = at - step
            if not np.nanmax(np.abs(step), initial=0.0) >= SMALLEST_STEP:
                break
        reached = np.abs(step).max(axis=1) < SMALLEST_STEP
        parts.append(np.where(reached, at[:, 0] / fit.spread, np.nan))
    return np.concatenate(parts) if parts else np.zeros(0)


def intercepts_under(positive: npt.NDArray[np.bool_], chance: Array, weights: Array) -> Array:
    """Calibration in the large: the shift of the log odds that makes expected and observed counts equal.

    Parameters
    ----------
    positive : array of bool, shape (n_samples,)
    chance : array, shape (n_samples,)
        Predicted probability of the positive class.
    weights : array, shape (n_weightings, n_samples)

    Returns
    -------
    array, shape (n_weightings,)
        0: calibrated in the large. Above 0: the probabilities are too low on average. Probabilities
        of exactly 0 and 1 do not change. NaN if no shift fits, e.g. if all samples are positive.

    References
    ----------
    Van Calster, B., McLernon, D. J., van Smeden, M., Wynants, L., & Steyerberg, E. W. (2019).
    Calibration: the Achilles heel of predictive analytics. BMC Medicine 17, 230.

    Examples
    --------
    >>> half = np.full(4, 0.5)
    >>> found = intercepts_under(np.array([True, True, True, False]), half, np.ones((1, 4)))
    >>> bool(np.isclose(found[0], np.log(3)))
    True
    """
    moves = (chance > SMALLEST_PROBA) & (chance < 1.0 - SMALLEST_PROBA)
    offset = np.log(chance[moves]) - np.log1p(-chance[moves])
    observed = weights @ positive - weights @ (~moves & (chance > 0.5))
    n_at_once = max(1, CHUNK // max(len(offset), 1))
    parts = [
        _intercepts(observed[some], offset, weights[some][:, moves])
        for some in np.array_split(np.arange(len(weights)), -(-len(weights) // n_at_once) or 1)
    ]
    return np.concatenate(parts)


def _intercepts(observed: Array, offset: Array, weights: Array) -> Array:
    at, step = np.zeros(len(weights)), np.ones(len(weights))
    total = weights.sum(axis=1)
    for _ in range(N_STEPS):
        chance = _logistic(offset + at[:, None])
        first = np.einsum("bn,bn->b", weights, chance) - observed
        slope = np.einsum("bn,bn->b", weights, chance * (1.0 - chance))
        step = np.clip(first / np.maximum(slope, 1e-300), -LONGEST_STEP, LONGEST_STEP)
        at = at - step
        if np.abs(step).max(initial=0.0) < SMALLEST_STEP:
            break
    # Jackknife weights have rounding errors, so counts are compared with a tolerance.
    slack = 1e-9 * (1.0 + total)
    defined = (observed > slack) & (observed < total - slack) & (np.abs(step) < SMALLEST_STEP)
    return np.where(defined, at, np.nan)


def _logistic(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0))))


def _fit(scores: Array, labels: Ints, start: float) -> Array | None:
    at = np.zeros(scores.shape[1])
    at[0] = start
    for _ in range(N_STEPS):
        first, curvature = _summed_derivatives(scores, labels, at)
        if np.linalg.eigvalsh(curvature)[0] < SMALLEST_CURVATURE * len(labels):
            return None
        step = np.linalg.solve(curvature, first)
        if np.abs(step).max() < SMALLEST_STEP:
            return at
        at = at - _shortened(scores, labels, at, step)
    return None


def _log_proba(scores: Array, at: Array) -> Array:
    return log_softmax(at[0] * scores + np.append(0.0, at[1:]))


def _summed_derivatives(scores: Array, labels: Ints, at: Array) -> tuple[Array, Array]:
    """First and second derivatives of the loss, shapes (n_parameters,) and its square."""
    weight = np.exp(_log_proba(scores, at))
    mean = np.einsum("nc,nc->n", weight, scores)
    pulled = weight * (scores - mean[:, None])  # (n_samples, n_classes)
    first = weight.sum(axis=0) - np.bincount(labels, minlength=len(at))
    first[0] = mean.sum() - scores[np.arange(len(labels)), labels].sum()
    curvature = np.diag(weight.sum(axis=0)) - weight.T @ weight
    curvature[0] = curvature[:, 0] = pulled.sum(axis=0)
    curvature[0, 0] = np.einsum("nc,nc->", pulled, scores)
    return first, curvature


def _shortened(scores: Array, labels: Ints, at: Array, step: Array) -> Array:
    """The step, halved until it does not raise the loss."""
    limit = _loss(scores, labels, at) + 1e-12 * len(labels)
    for _ in range(N_STEPS):
        if _loss(scores, labels, at - step) <= limit:
            break
        step = step / 2.0
    return step


def _loss(scores: Array, labels: Ints, at: Array) -> float:
    return -float(_log_proba(scores, at)[np.arange(len(labels)), labels].sum())
