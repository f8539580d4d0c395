"""Choice of a threshold for a class, and of a certainty below which samples are referred.

Use out-of-fold rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Bools
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.metrics.selective import coverage_at_error

TARGETS = ("sensitivity", "specificity", "youden", "cost")
SLACK = 1e-12
SMALLEST_PROBA = 1e-9


@dataclasses.dataclass(frozen=True)
class ThresholdTarget:
    """The criterion by which a threshold is chosen.

    Parameters
    ----------
    kind : {"sensitivity", "specificity", "youden", "cost"}
        `sensitivity` or `specificity`: at least `value`, with the other as high as possible.
        `youden`: the largest sum of both. `cost`: the least cost.
    value : float
        Required sensitivity or specificity, in (0, 1].
    miss_cost, alarm_cost : float
        Cost of a missed sample of the class, and of a false alarm.
    """

    kind: str
    value: float = 0.0
    miss_cost: float = 1.0
    alarm_cost: float = 1.0

    @staticmethod
    def parsed(text: str) -> ThresholdTarget:
        """The target that a user typed.

        Raises
        ------
        UsageError
            The target is unknown, or its number cannot be read.

        Examples
        --------
        >>> ThresholdTarget.parsed("sensitivity=.95").value, ThresholdTarget.parsed("cost=10:1").miss_cost
        (0.95, 10.0)
        """
        kind, _, rest = text.strip().lower().partition("=")
        if kind not in TARGETS:
            raise UsageError(
                f"Unknown target '{text}'",
                f"the targets are {', '.join(TARGETS)}",
                did_you_mean(kind, TARGETS),
            )
        try:
            if kind == "youden" and not rest:
                return ThresholdTarget(kind)
            if kind == "cost":
                miss, alarm = (float(one) for one in rest.split(":"))
                if min(miss, alarm) > 0 and np.isfinite([miss, alarm]).all():
                    return ThresholdTarget(kind, miss_cost=miss, alarm_cost=alarm)
            elif kind != "youden":
                value = share(rest)
                if 0 < value <= 1:
                    return ThresholdTarget(kind, value)
        except ValueError:
            pass
        forms = {
            "cost": "cost=10:1, the costs of a missed case and of a false alarm",
            "youden": "youden, without a number",
        }
        raise UsageError(
            f"Cannot read the target '{text}'",
            "a target has a share above 0 and up to 1, or two costs above 0",
            f"Use e.g. {forms.get(kind, kind + '=0.95')}",
        )

    def __str__(self) -> str:
        if self.kind == "youden":
            return "the largest sum of sensitivity and specificity (Youden)"
        if self.kind == "cost":
            return (
                f"the least cost, if a missed case costs {self.miss_cost:g} and a false alarm "
                f"{self.alarm_cost:g}"
            )
        return f"{self.kind} of at least {self.value:g}"

    @property
    def typed(self) -> str:
        """The target as it is typed after `--at`.

        Examples
        --------
        >>> ThresholdTarget.parsed("cost=10:1").typed, ThresholdTarget.parsed("sensitivity=95%").typed
        ('cost=10:1', 'sensitivity=0.95')
        """
        if self.kind == "cost":
            return f"cost={self.miss_cost:g}:{self.alarm_cost:g}"
        return self.kind if self.kind == "youden" else f"{self.kind}={self.value:g}"


def share(text: str) -> float:
    """A share from text, as a fraction or a percentage.

    Examples
    --------
    >>> share("10%"), share(".1")
    (0.1, 0.1)
    """
    stripped = text.strip()
    return float(stripped.rstrip("% ")) / (100.0 if stripped.endswith("%") else 1.0)


def choose_threshold(positive: Bools, scores: Array, target: ThresholdTarget) -> float:
    """The lowest score at which the class is called.

    Parameters
    ----------
    positive : array of bool, shape (n_samples,)
        Whether a sample is of the class; at least one is, and one is not.
    scores : array, shape (n_samples,)
    target : ThresholdTarget

    Returns
    -------
    float
        A score that occurs, or infinity: no sample is called. Of equally good thresholds, the lowest
        for `specificity`, `youden` and `cost` (fewest missed cases), and the highest for
        `sensitivity` (fewest false alarms).

    Examples
    --------
    >>> positive = np.array([False, False, True, True])
    >>> choose_threshold(positive, np.array([0.1, 0.6, 0.4, 0.8]), ThresholdTarget("sensitivity", 1.0))
    0.4
    """
    levels, inverse = np.unique(-scores, return_inverse=True)
    hits = np.bincount(inverse, weights=positive, minlength=len(levels))
    alarms = np.bincount(inverse, weights=~positive, minlength=len(levels))
    hits = np.concatenate([[0.0], np.cumsum(hits)])  # from "call nothing" to "call all"
    alarms = np.concatenate([[0.0], np.cumsum(alarms)])
    at = np.concatenate([[np.inf], -levels])
    sensitivity, specificity = hits / hits[-1], 1.0 - alarms / alarms[-1]
    if target.kind == "sensitivity":
        return float(at[np.flatnonzero(sensitivity >= target.value - SLACK)[0]])
    if target.kind == "specificity":
        return float(at[np.flatnonzero(specificity >= target.value - SLACK)[-1]])
    if target.kind == "youden":
        gain = sensitivity + specificity
    else:
        gain = -(target.miss_cost * (hits[-1] - hits) + target.alarm_cost * alarms)
    best = np.flatnonzero(gain >= gain.max() - SLACK * max(1.0, abs(gain.max())))
    return float(at[best[-1]])


def certainty_at(scores: Array, threshold: float) -> Array:
    """Distance of each probability from the threshold in log odds, shape (n_samples,)."""
    if not np.isfinite(threshold):
        return np.full(len(scores), np.inf)

    def log_odds(proba: npt.ArrayLike) -> Array:
        p = np.clip(np.asarray(proba, dtype=np.float64), SMALLEST_PROBA, 1 - SMALLEST_PROBA)
        return np.asarray(np.log(p) - np.log1p(-p))

    return np.abs(log_odds(scores) - log_odds(threshold))


@dataclasses.dataclass(frozen=True)
class RejectOption:
    """How many samples are referred to a pathologist; exactly one of the two limits is given.

    Parameters
    ----------
    share : float, optional
        The largest share to refer, in (0, 1).
    max_error : float, optional
        The largest share of errors among the decided samples, in [0, 1).
    """

    share: float | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        given = [one for one in (self.share, self.max_error) if one is not None]
        if len(given) != 1:
            raise UsageError(
                f"{len(given)} limits of referral were given",
                "exactly one is needed: a share to refer, or a largest error",
                "Give one, e.g. --refer 10% or --max-error 0.02",
            )
        if not 0 <= given[0] < 1 or (self.share is not None and self.share == 0):
            raise UsageError(
                f"Invalid share {given[0]:g}",
                "a share must be above 0 and below 1",
                "Use e.g. --refer 10%",
            )

    def __str__(self) -> str:
        if self.share is not None:
            return f"the least certain are referred, up to {100 * self.share:.3g} %"
        return (
            f"the least certain are referred until at most {100 * (self.max_error or 0.0):.3g} % of "
            "the rest are wrong"
        )

    @property
    def typed(self) -> tuple[str, str]:
        """The option and its value as they are typed."""
        if self.share is not None:
            return "--refer", f"{100 * self.share:g}%"
        return "--max-error", f"{self.max_error or 0.0:g}"


def choose_cut(right: Bools, certainty: Array, reject_option: RejectOption) -> float:
    """The certainty below which samples are referred; infinity if all must be referred.

    Parameters
    ----------
    right : array of bool, shape (n_samples,)
        Whether a decision is right.
    certainty : array, shape (n_samples,)
        Samples of equal certainty are referred together.

    Examples
    --------
    >>> choose_cut(np.array([False, True, True, True]), np.array([0.6, 0.7, 0.8, 0.9]), RejectOption(share=0.25))
    0.7
    """
    if reject_option.share is None:
        return coverage_at_error(right, certainty, float(reject_option.max_error or 0.0))[1]
    n_referred = int(np.floor(reject_option.share * len(certainty) + 1e-9))
    return float(np.sort(certainty)[n_referred])
