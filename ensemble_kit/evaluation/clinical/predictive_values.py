"""Sensitivity, specificity, and predictive values at the prevalence of the study and at others.

References
----------
Zou, G. Y., & Donner, A. (2008). Construction of confidence limits about effect measures: a general
approach. Statistics in Medicine 27(10), 1693-1702.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.clinical.one_class import OneClass, ratio
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.shares import shares


@dataclasses.dataclass(frozen=True)
class AtPrevalence:
    """Predictive values at one prevalence.

    Parameters
    ----------
    prevalence : float
    is_of_study : bool
        Whether this is the share of positive samples in the table.
    ppv, npv : Interval
        Undefined (None) if no sample is called positive (`ppv`) or negative (`npv`).
    """

    prevalence: float
    is_of_study: bool
    ppv: Interval
    npv: Interval


@dataclasses.dataclass(frozen=True)
class PredictiveValues:
    """Sensitivity, specificity and predictive values of the decisions.

    Parameters
    ----------
    sensitivity, specificity : Interval
    at : tuple of AtPrevalence
        At the prevalence of the study first, then at the stated prevalences.
    """

    sensitivity: Interval
    specificity: Interval
    at: tuple[AtPrevalence, ...]


def predictive_values(table: OneClass, prevalences: Sequence[float] = ()) -> PredictiveValues:
    """Sensitivity, specificity, PPV and NPV of the decisions, with intervals over groups.

    At a stated prevalence p, PPV = p sensitivity / (p sensitivity + (1 - p) (1 - specificity)) and
    NPV = (1 - p) specificity / ((1 - p) specificity + p (1 - sensitivity)). Their intervals follow
    from those of sensitivity and specificity (MOVER, Zou & Donner 2008); p is treated as known.

    Raises
    ------
    UsageError
        A prevalence is not between 0 and 1.
    """
    for one in prevalences:
        check_prevalence(one)
    positive, called = table.positive.astype(np.float64), table.called
    negative, cleared = 1.0 - positive, 1.0 - table.called
    own = shares(
        {
            "sensitivity": (positive * called, positive),
            "specificity": (negative * cleared, negative),
            "ppv": (positive * called, called),
            "npv": (negative * cleared, cleared),
        },
        table.labels, table.groups, int(table.labels.max(initial=0)) + 1,
        level=table.level, intervals=table.jackknife is not None,
    )  # fmt: skip
    sensitivity, specificity = own["sensitivity"], own["specificity"]
    shared = _correlation(table)
    stated = [
        AtPrevalence(
            float(p),
            False,
            _of_ratio(p, _complement(specificity), sensitivity, shared),
            _of_ratio(1.0 - p, _complement(sensitivity), specificity, shared),
        )
        for p in prevalences
    ]
    study = AtPrevalence(table.prevalence, True, own["ppv"], own["npv"])
    return PredictiveValues(sensitivity, specificity, (study, *stated))


def check_prevalence(prevalence: float) -> None:
    """Raise UsageError unless the prevalence is above 0 and below 1."""
    if not 0.0 < prevalence < 1.0:
        raise UsageError(
            f"Invalid prevalence {prevalence:g}",
            "a prevalence is above 0 and below 1",
            "Give the share of patients who have the class where you work, e.g. .15",
        )


def _complement(share: Interval) -> Interval:
    if share.value is None:
        return share
    ends = [None if one is None else 1.0 - one for one in (share.high, share.low)]
    return Interval(1.0 - share.value, *ends)


def _of_ratio(p: float, wrong: Interval, right: Interval, correlation: float) -> Interval:
    """p / (p + (1 - p) wrong / right), which falls as wrong / right rises."""
    if wrong.value is None or right.value is None or wrong.value + right.value <= 0.0:
        return Interval(None)

    def at(above: float, below: float) -> float:
        return p * below / (p * below + (1.0 - p) * above)

    value = at(wrong.value, right.value)
    if wrong.low is None or wrong.high is None or right.low is None or right.high is None:
        return Interval(value)
    least, most = ratio_ends(wrong, right, correlation)
    low, high = (0.0 if np.isinf(one) else at(one, 1.0) for one in (most, least))
    return Interval(value, min(low, value), max(high, value))


def ratio_ends(above: Interval, below: Interval, correlation: float) -> tuple[float, float]:
    """MOVER limits of above / below: the interval of above - limit x below then ends at 0."""

    def end(first: float | None, second: float | None, *, is_upper: bool) -> float:
        x, y = float(above.value or 0.0), float(below.value or 0.0)
        dx, dy = float(first or 0.0) - x, float(second or 0.0) - y
        a, c = y * y - dy * dy, x * x - dx * dx
        b = x * y + correlation * dx * dy
        root = np.sqrt(max(b * b - a * c, 0.0))
        if is_upper:
            return float((b + root) / a) if a > 0.0 else float("inf")
        return max(float(c / (b + root)), 0.0) if b + root > 0.0 else 0.0

    return (
        end(above.low, below.high, is_upper=False),
        end(above.high, below.low, is_upper=True),
    )


def _correlation(table: OneClass) -> float:
    """Correlation of the errors of the two rates; 0 if each group has one class.

    A positive correlation is set to 0, because it would make intervals shorter.
    """
    if table.jackknife is None:
        return 0.0
    positive, called = table.positive, table.called
    columns = [positive * called, positive, ~positive * called, ~positive]
    _, out = table.sums(np.stack(columns, axis=1))
    rates: Array = np.stack([ratio(out[:, 0], out[:, 1]), ratio(out[:, 2], out[:, 3])])
    if not np.isfinite(rates).all():
        return 0.0
    products = np.zeros((2, 2))
    for s in np.unique(table.jackknife.block_strata):
        some = rates[:, table.jackknife.block_strata == s]
        some = some - some.mean(axis=1, keepdims=True)
        products += (some.shape[1] - 1) / some.shape[1] * some @ some.T
    spread = np.sqrt(products[0, 0] * products[1, 1])
    return float(np.clip(products[0, 1] / spread, -1.0, 0.0)) if spread > 0.0 else 0.0
