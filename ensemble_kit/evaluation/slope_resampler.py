"""How the calibration slope is resampled by group weights: Newton's step from the table's own fit.

The step takes each resample's own curvature, and up to `MAX_CURVED_GROUPS` groups what bends that.
With more than `MAX_FREE_CLASSES` classes, the intercepts follow the slope as they do on the table:
curvatures of all intercepts would take the squared number of classes per group. Knows no other
metric.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.metrics.recalibration import Recalibration, recalibration

Ints = npt.NDArray[np.int64]
Derivatives = Callable[[Ints], tuple[Array, Array, Array]]
MAX_CURVED_GROUPS = 200
MAX_FREE_CLASSES = 20
N_ROUNDS = 6
# Beyond this many cells, rows' second derivatives are summed part by part.
CHUNK_CELLS = 1 << 22


def slope_resampler(labels: Ints, proba: Array, groups: Ints) -> Callable[[Array], Array]:
    """Of the calibration slope; NaN where the table has none.

    NaN too where a resample's is farther from the table's than that is from 0, and than one unit
    of logit per standard deviation of the scores: it lacks the few errors that hold the slope, and
    may have none.
    """
    fit = recalibration(labels, proba)
    if fit is None:
        return lambda weights: np.full(len(weights), np.nan)
    n_groups = int(groups.max()) + 1
    derivatives = _derivatives(fit)
    first, second = _by_group(derivatives, groups, n_groups)
    third = (
        _third_by_group(derivatives, groups, n_groups) if n_groups <= MAX_CURVED_GROUPS else None
    )
    n_parameters = first.shape[1]
    steady = 1e-12 * float(np.trace(second.sum(axis=0))) * np.eye(n_parameters)

    def resample(weights: Array) -> Array:
        shape = (len(weights), n_parameters, n_parameters)
        slope = weights @ first
        curvature = (weights @ second.reshape(n_groups, -1)).reshape(shape) + steady
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        if third is not None:
            bend = (weights @ third.reshape(n_groups, -1)).reshape(*shape, n_parameters)
            step = _bent(step, curvature, bend)
        known = np.abs(step[:, 0]) <= max(abs(fit.parameters[0]), 1.0)
        return np.where(known, (fit.parameters[0] - step[:, 0]) / fit.spread, np.nan)

    return resample


def _bent(straight: Array, curvature: Array, bend: Array) -> Array:
    """The step where slope - curvature x + bend x x / 2 is zero, from the straight one on.

    Where that changes the step by more than its own length, it has none near: the straight one.
    """
    step = straight
    for _ in range(N_ROUNDS):
        pull = np.einsum("rijk,rj,rk->ri", bend, step, step) / 2.0
        step = straight + np.linalg.solve(curvature, pull[..., None])[..., 0]
    moved = np.abs(step - straight).max(axis=1)
    return np.where((moved <= np.abs(straight).max(axis=1))[:, None], step, straight)


def _derivatives(fit: Recalibration) -> Derivatives:
    """Of all parameters, or with many classes of the slope alone."""
    if len(fit.parameters) <= MAX_FREE_CLASSES:
        return fit.derivatives
    return partial(fit.derivatives_along, fit.steepest())


def _by_group(derivatives: Derivatives, groups: Ints, n_groups: int) -> tuple[Array, Array]:
    """First and second derivatives of each group's log loss, (n_groups, P) and (n_groups, P, P)."""
    n_classes, n_parameters = derivatives(np.arange(1))[2].shape[1:]
    first = np.zeros((n_groups, n_parameters))
    second = np.zeros((n_groups, n_parameters, n_parameters))
    step = max(1, CHUNK_CELLS // (n_classes * n_parameters))
    for start in range(0, len(groups), step):
        rows = np.arange(start, min(start + step, len(groups)))
        slope, weight, centred = derivatives(rows)
        np.add.at(first, groups[rows], slope)
        np.add.at(second, groups[rows], centred.transpose(0, 2, 1) @ (weight[..., None] * centred))
    return first, second


def _third_by_group(derivatives: Derivatives, groups: Ints, n_groups: int) -> Array:
    """Third derivatives of each group's log loss, shape (n_groups, P, P, P)."""
    n_parameters = derivatives(np.arange(1))[2].shape[2]
    out = np.zeros((n_groups, *[n_parameters] * 3))
    for g in range(n_groups):
        _, weight, centred = derivatives(np.flatnonzero(groups == g))
        flat = centred.reshape(-1, n_parameters)
        pairs = (weight.reshape(-1, 1, 1) * flat[:, :, None] * flat[:, None]).reshape(len(flat), -1)
        out[g] = (pairs.T @ flat).reshape([n_parameters] * 3)
    return out
