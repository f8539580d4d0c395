"""Intervals and paired comparisons of predictions given as plain arrays.

The commands use the same computations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.clinical.net_benefit import THRESHOLDS, NetBenefit, decision_curve
from ensemble_kit.evaluation.clinical.one_class import OneClass
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.scores.verdict import verdict
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.metrics import metric as metric_of
from ensemble_kit.predictions.method_predictions import Combined, decided


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The gain of the first of two sets of predictions over the second.

    Parameters
    ----------
    value, low, high : float or None
        Paired difference, positive if the first is better, with its interval over groups.
    p_value : float or None
        Two-sided p value; None if too few groups differ to show a difference.
    verdict : {"better", "not shown", "worse"}
    n_groups : int
    sentence : str
    """

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    verdict: str
    n_groups: int
    sentence: str


def metric_interval(
    labels: npt.ArrayLike,
    proba: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    metric: str = "balanced_accuracy",
    level: float = 0.95,
) -> Interval:
    """A metric with its interval over whole groups (patients).

    Parameters
    ----------
    labels : array-like of int, shape (n_samples,)
        Class indices.
    proba : array-like, shape (n_samples, n_classes)
        Probabilities; the most probable class is the predicted class.
    groups : array-like, shape (n_samples,)
        The patient of each sample. The interval treats the class counts of patients as fixed.
    metric : str
        A key of `ek.METRICS`.
    level : float
        Confidence level, e.g. 0.95.

    Returns
    -------
    Interval
        `value`, `low`, `high`. The ends are None with a single group. Metrics that average over
        classes also have no ends if all images of a class come from one group.

    Raises
    ------
    DataError
        Arrays of different lengths, labels that are not class indices, or invalid probabilities.

    Examples
    --------
    >>> proba = np.tile([[0.9, 0.1], [0.2, 0.8]], (40, 1))
    >>> found = metric_interval([0, 1] * 40, proba, np.arange(80) // 8, metric="accuracy")
    >>> found.value, round(found.low, 2), found.high
    (1.0, 0.67, 1.0)
    """
    truth, (one,) = _checked(labels, groups, proba)
    scored = score_methods(
        {"it": one},
        truth,
        np.asarray(groups),
        one.proba.shape[1],
        metrics=[metric_of(metric)],
        level=level,
    )
    return scored["it"].values[metric]


def compare_predictions(
    labels: npt.ArrayLike,
    proba_a: npt.ArrayLike,
    proba_b: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    metric: str = "balanced_accuracy",
    level: float = 0.95,
) -> Comparison:
    """The paired difference of two sets of predictions, over whole groups (patients).

    Parameters
    ----------
    labels : array-like of int, shape (n_samples,)
        Class indices.
    proba_a, proba_b : array-like, shape (n_samples, n_classes)
        Probabilities of the same samples.
    groups : array-like, shape (n_samples,)
        The patient of each sample.
    metric : str
        A key of `ek.METRICS`.
    level : float
        Confidence level, e.g. 0.95.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        Arrays of different lengths, labels that are not class indices, or invalid probabilities.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels, groups = np.arange(200) % 2, np.arange(200) // 10
    >>> p = np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.3, 200), 0.01, 0.99)
    >>> good, chance = np.stack([1 - p, p], 1), rng.dirichlet([1, 1], 200)
    >>> compare_predictions(labels, good, chance, groups).verdict
    'better'
    """
    truth, (first, second) = _checked(labels, groups, proba_a, proba_b)
    wanted = metric_of(metric)
    scored = score_methods(
        {"a": first, "b": second}, truth, np.asarray(groups), first.proba.shape[1],
        metrics=[wanted], level=level,
    )  # fmt: skip
    outcome = verdict(
        "a", scored["a"], "b", scored["b"], metric_name=wanted, part="test", level=level
    )
    effect, n_groups = outcome.effect, scored["a"].values.n_groups
    return Comparison(
        effect.value,
        effect.low,
        effect.high,
        outcome.p_value,
        outcome.word,
        n_groups,
        outcome.sentence,
    )


def net_benefit(
    labels: npt.ArrayLike,
    proba: npt.ArrayLike,
    groups: npt.ArrayLike,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    positive: int,
    level: float = 0.95,
) -> tuple[NetBenefit, ...]:
    """A decision curve: the net benefit of a class against the rest at each threshold.

    Parameters
    ----------
    labels : array-like of int, shape (n_samples,)
        Class indices.
    proba : array-like, shape (n_samples, n_classes)
    groups : array-like, shape (n_samples,)
        The patient of each sample.
    thresholds : sequence of float
        Between 0 and 1. A sample is positive if its probability is at least the threshold.
    positive : int
        The index of the positive class.
    level : float
        Confidence level, e.g. 0.95.

    Returns
    -------
    tuple of NetBenefit
        `threshold`, `value` (with its interval over groups), `treat_all`, by ascending threshold.

    Raises
    ------
    DataError
        Arrays of different lengths, labels that are not class indices, or invalid probabilities.
    UsageError
        A threshold that is not between 0 and 1, or a positive class that is not a class index.

    Examples
    --------
    >>> proba = np.array([[0.1, 0.9], [0.8, 0.2], [0.9, 0.1], [0.7, 0.3], [1.0, 0.0]])
    >>> found = net_benefit([1, 1, 1, 0, 0], proba, np.arange(5), [0.2], positive=1)
    >>> round(found[0].value.value, 2), round(found[0].treat_all, 2)
    (0.35, 0.5)
    """
    truth, (one,) = _checked(labels, groups, proba)
    n_classes = one.proba.shape[1]
    if not 0 <= positive < n_classes:
        raise UsageError(
            f"The positive class {positive} is not one of the {n_classes} classes",
            f"indices go from 0 to {n_classes - 1}",
            "Set `positive` to the column of its probability",
        )
    return decision_curve(OneClass.of(one, truth, groups, positive, level=level), thresholds).points


def _checked(
    labels: npt.ArrayLike, groups: npt.ArrayLike, *probas: npt.ArrayLike
) -> tuple[Ints, list[Combined]]:
    truth = np.asarray(labels)
    tables: list[Array] = [np.asarray(one, dtype=np.float64) for one in probas]
    shapes = [one.shape for one in tables]
    n = len(truth)
    if any(len(s) != 2 or s != (n, shapes[0][1]) for s in shapes) or len(np.asarray(groups)) != n:
        raise DataError(
            f"{n} labels do not fit probabilities of shape {shapes} and {len(np.asarray(groups))} groups",
            "each needs one row per sample",
            "Give labels (n,), probabilities (n, n_classes) and groups (n,)",
        )
    n_classes = shapes[0][1]
    if not n or truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= n_classes:
        raise DataError(
            f"Invalid labels {np.unique(truth)[:5].tolist()} of type {truth.dtype}",
            f"labels are class indices from 0 to {n_classes - 1}",
            "Map class names to their column first",
        )
    for one in tables:
        sums_to_one = np.abs(one.sum(axis=1) - 1) <= 1e-3
        bad = np.flatnonzero(~(sums_to_one & np.isfinite(one).all(axis=1) & (one >= 0).all(axis=1)))
        if len(bad):
            raise DataError(
                f"{len(bad)} of {n} rows are not probabilities, e.g. row {bad[0]}: "
                f"{one[bad[0]].round(3).tolist()}",
                "probabilities are finite, not negative, and sum to 1 in each row",
                "Give softmax outputs, not logits",
            )
    return truth.astype(np.int64), [decided(one) for one in tables]
