"""Decision curves: the net benefit of calling a sample positive at each probability threshold.

The class shares are treated as fixed, like the class counts of patients in all intervals.

References
----------
Vickers, A. J., & Elkin, E. B. (2006). Decision curve analysis. Medical Decision Making 26(6),
565-574. Van Calster, B., et al. (2025). Evaluation of performance measures in predictive artificial
intelligence models to support medical decisions (STRATOS). The Lancet Digital Health 7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import UsageError, first_few
from ensemble_kit.evaluation.clinical.one_class import OneClass, ratio
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.t_intervals import gains, interval_of

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


@dataclasses.dataclass(frozen=True)
class NetBenefit:
    """Net benefit at one threshold, in true positives per sample.

    Parameters
    ----------
    threshold : float
        A sample is called positive if its probability is at least the threshold.
    value : Interval
        TP / n - FP / n x threshold / (1 - threshold); 0 if no sample is called positive.
    treat_all : float
        Net benefit if every sample is called positive. It has no interval, because the class shares
        are treated as fixed.
    """

    threshold: float
    value: Interval
    treat_all: float


@dataclasses.dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit at several thresholds, and the same without each block of groups.

    Parameters
    ----------
    points : tuple of NetBenefit
    left_out : array, shape (n_blocks, n_thresholds)
    """

    points: tuple[NetBenefit, ...]
    left_out: Array


def decision_curve(table: OneClass, thresholds: Sequence[float] = THRESHOLDS) -> DecisionCurve:
    """Net benefit at each threshold, with intervals over groups.

    With the share p of positive samples, w = threshold / (1 - threshold), and sensitivity and
    specificity at the threshold, net benefit is p sensitivity - (1 - p) w (1 - specificity). Its
    interval is a Wilson interval, rescaled to the bounds -(1 - p) w and p.
    """
    at = checked_thresholds(thresholds)
    weight = at / (1.0 - at)
    found = table.proba[:, None] >= at
    positive = table.positive[:, None]
    columns = [found & positive, ~found & ~positive, positive, ~positive]
    whole, left_out = table.sums(np.concatenate(columns, axis=1))
    k, p = len(at), table.prevalence
    rates = [_rates(sums, k) for sums in (whole[None], left_out)]
    # Net benefit, rescaled to 0 (all wrong) to 1 (all right).
    least, span = -(1.0 - p) * weight, p + (1.0 - p) * weight
    shares = [(_part(p, se) + _part(1.0 - p, sp) * weight) / span for se, sp in rates]
    points = []
    for i, threshold in enumerate(at.tolist()):
        design = table.design(np.where(table.positive, 1.0, weight[i]))
        share = Interval(float(shares[0][0, i]))
        if design is not None:
            share = interval_of(
                shares[0][0, i], shares[1][:, i], design, level=table.level, of_decisions=True
            )
        points.append(
            NetBenefit(
                threshold, _moved(share, least[i], span[i]), float(p - (1.0 - p) * weight[i])
            )
        )
    return DecisionCurve(tuple(points), least + span * shares[1])


def benefit_gains(ours: DecisionCurve, theirs: DecisionCurve, table: OneClass) -> list[Interval]:
    """Net benefit of one method minus another, on the same samples, with simultaneous intervals."""
    values = np.array(
        [
            float(a.value.value or 0.0) - float(b.value.value or 0.0)
            for a, b in zip(ours.points, theirs.points, strict=True)
        ]
    )
    design = table.design(table.positive, ~table.positive)
    if design is None:
        return [Interval(float(v)) for v in values]
    found = gains(values, ours.left_out - theirs.left_out, design, level=table.level)
    return [one.effect for one in found]


def checked_thresholds(thresholds: Sequence[float]) -> Array:
    """The thresholds in ascending order, without duplicates.

    Raises
    ------
    UsageError
        No threshold is given, or one is not between 0 and 1.
    """
    wrong = [t for t in thresholds if not 0.0 < t < 1.0]
    if wrong or not len(thresholds):
        raise UsageError(
            f"A decision threshold of {first_few(wrong)} is not possible"
            if wrong
            else "No decision threshold is given",
            "a threshold is a probability above 0 and below 1",
            "Give e.g. .05,.1,.2,.3,.5",
        )
    return np.unique(np.asarray(thresholds, dtype=np.float64))


def _rates(sums: Array, k: int) -> tuple[Array, Array]:
    """Sensitivity and specificity at k thresholds, shape (n, k) each."""
    found, cleared, positive, negative = np.split(sums, [k, 2 * k, 2 * k + 1], axis=1)
    return ratio(found, positive), ratio(cleared, negative)


def _part(share: float, rate: Array) -> Array:
    """`share * rate`; 0 for a class without samples, whose rate is NaN."""
    return share * rate if share > 0.0 else np.zeros_like(rate)


def _moved(share: Interval, least: float, span: float) -> Interval:
    def at(value: float | None) -> float | None:
        return None if value is None else float(least + span * value)

    return Interval(at(share.value), at(share.low), at(share.high))
