"""The metric of the best of several methods, corrected for the choice: bootstrap bias correction.

Methods are chosen on resampled groups and scored on the groups that were not drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, group_numbers
from ensemble_kit.evaluation.scores.per_image import Measured
from ensemble_kit.evaluation.uncertainty.bootstrap import resampling
from ensemble_kit.evaluation.uncertainty.jackknife import strata_of
from ensemble_kit.metrics import OVER_CLASSES, Metric
from ensemble_kit.predictions.method_predictions import Combined


@dataclasses.dataclass(frozen=True)
class CorrectedChoice:
    """The metric of the chosen method, corrected for having been chosen.

    Parameters
    ----------
    n_methods : int
        Number of methods to choose from.
    value : float or None
        None if it is undefined in more than 90 % of the resamples.
    gains : mapping of baseline to float
        Corrected gain of the chosen method over each baseline, positive if it is better.
    """

    n_methods: int
    value: float | None
    gains: Mapping[str, float]


def corrected_choice(
    methods: Mapping[str, Combined],
    baselines: Mapping[str, Combined],
    labels: Ints,
    groups: npt.ArrayLike,
    n_classes: int,
    *,
    wanted: Metric,
    n_resamples: int = 2000,
    seed: int = 0,
) -> CorrectedChoice:
    """The metric of the best of several methods, corrected for the choice.

    Parameters
    ----------
    methods, baselines : mapping of name to Combined
        Cross-fitted predictions of the same rows; the best of the methods is chosen.
    labels : array of int, shape (n_samples,)
    groups : array-like, shape (n_samples,)
        Whole groups are resampled, within the stratum of their most frequent class.
    wanted : Metric
        Metric of the choice.
    n_resamples : int
    seed : int

    References
    ----------
    Tsamardinos, I., Greasidou, E., & Borboudakis, G. (2018). Bootstrapping the out-of-sample
    predictions for efficient and accurate cross-validation. Machine Learning 107, 1895-1922.
    """
    numbered = group_numbers(groups)
    strata = strata_of(labels, numbered, n_classes)
    measured = [
        Measured.of(one, labels, numbered, [wanted], True)
        for one in [*methods.values(), *baselines.values()]
    ]
    present = np.zeros((len(strata), n_classes))
    np.add.at(present, (numbered, labels), 1.0)
    present = present[:, present.sum(axis=0) > 0]
    sign = 1.0 if wanted.higher_is_better else -1.0
    chosen_values, gains = [], []
    for drawn in resampling(labels, numbered, n_classes, n_resamples, seed):
        rest = _rest(drawn, strata)
        inside, outside = (_metric(measured, w, present, wanted) for w in (drawn, rest))
        n_methods = len(methods)
        merit = np.where(np.isfinite(inside[:n_methods]), sign * inside[:n_methods], -np.inf)
        best = outside[merit.argmax(axis=0), np.arange(len(drawn))]
        chosen_values.append(best)
        gains.append(sign * (best - outside[n_methods:]))
    value, gain = _mean(np.concatenate(chosen_values)), np.concatenate(gains, axis=1)
    return CorrectedChoice(
        len(methods),
        value,
        {
            name: mean
            for name, row in zip(baselines, gain, strict=True)
            if (mean := _mean(row)) is not None
        },
    )


def _metric(measured: Sequence[Measured], weights: Array, present: Array, wanted: Metric) -> Array:
    """Shape (n_methods, n_resamples); NaN if a resample lacks a class that the metric averages."""
    values = np.stack([one.under(weights)[wanted.name] for one in measured])
    if wanted.name in OVER_CLASSES:
        values[:, (weights @ present <= 0).any(axis=1)] = np.nan
    return values


def _rest(drawn: Array, strata: Ints) -> Array:
    """Weights of the groups that were not drawn; the total weight of each stratum is unchanged."""
    rest = (drawn == 0).astype(np.float64)
    for s in np.unique(strata):
        some = strata == s
        left = rest[:, some].sum(axis=1, keepdims=True)
        rest[:, some] *= some.sum() / np.maximum(left, 1.0)
    return rest


def _mean(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) >= 0.1 * len(values) and len(known) else None
