"""Decisions by a threshold and a referral threshold, chosen on some rows and applied to others.

Cross-fitted decisions on a fold use thresholds that were chosen on the other folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Bools, Ints
from ensemble_kit.evaluation.decisions.thresholds import (
    RejectOption,
    ThresholdTarget,
    certainty_at,
    choose_cut,
    choose_threshold,
)
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.shares import shares
from ensemble_kit.predictions.method_predictions import Combined

WRONG = ("wrong", "false_positive", "false_negative")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Settings of the decisions: a threshold for one class, a reject option, or both.

    Parameters
    ----------
    target : int or None
        The class that is called if its probability reaches the threshold; None: the decision is the
        predicted class.
    threshold_target : ThresholdTarget or None
        How the threshold is chosen; None if and only if `target` is.
    reject_option : RejectOption or None
    """

    target: int | None = None
    threshold_target: ThresholdTarget | None = None
    reject_option: RejectOption | None = None


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A threshold, and the certainty below which samples are referred (0: none is referred)."""

    threshold: float | None
    refer_below: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Decisions:
    """Decisions on some rows.

    Parameters
    ----------
    called : array of int, shape (n_samples,)
        With a target: 1 if the target class is called, else 0. Without: the decided class.
    truth : array of int, shape (n_samples,)
        The true values, in the same code.
    referred : array of bool, shape (n_samples,)
    """

    called: Ints
    truth: Ints
    referred: Bools

    @property
    def right(self) -> Bools:
        return np.asarray(self.called == self.truth)


def choose(rule: Rule, combined: Combined, labels: Ints) -> Threshold:
    """The thresholds for this rule, chosen on these rows."""
    threshold = None
    if rule.threshold_target is not None and rule.target is not None:
        threshold = choose_threshold(
            labels == rule.target, combined.proba[:, rule.target], rule.threshold_target
        )
    if rule.reject_option is None:
        return Threshold(threshold)
    made = decide(rule, Threshold(threshold), combined, labels)
    certainty = _certainty(rule, threshold, combined)
    return Threshold(
        threshold, choose_cut(made.right & ~made.referred, certainty, rule.reject_option)
    )


def decide(rule: Rule, point: Threshold, combined: Combined, labels: Ints) -> Decisions:
    """Apply thresholds. The labels are only stored beside the decisions."""
    referred = _certainty(rule, point.threshold, combined) < point.refer_below
    if rule.target is None or point.threshold is None:
        undecided = combined.predicted < 0
        return Decisions(combined.predicted, labels, referred | undecided)
    called = combined.proba[:, rule.target] >= point.threshold
    return Decisions(called.astype(np.int64), (labels == rule.target).astype(np.int64), referred)


def _certainty(rule: Rule, threshold: float | None, combined: Combined) -> Array:
    if rule.target is None or threshold is None:
        return np.where(combined.predicted < 0, -1.0, combined.proba.max(axis=1))
    return certainty_at(combined.proba[:, rule.target], threshold)


def cross_fitted(
    rule: Rule, combined: Combined, labels: Ints, fold: Ints
) -> tuple[Decisions, dict[int, Threshold]] | None:
    """Decisions on each fold with thresholds chosen on the other folds, and these thresholds.

    None if, without one of the folds, the target class or all other classes are missing.
    """
    if not can_choose(rule, labels) or len(np.unique(fold)) < 2:
        return None
    if not all(can_choose(rule, labels[fold != k]) for k in np.unique(fold)):
        return None
    points: dict[int, Threshold] = {}
    called, truth = np.zeros(len(labels), dtype=np.int64), np.zeros(len(labels), dtype=np.int64)
    referred = np.zeros(len(labels), dtype=bool)
    for k in np.unique(fold):
        own, others = fold == k, fold != k
        point = choose(rule, combined.take(others), labels[others])
        made = decide(rule, point, combined.take(own), labels[own])
        called[own], truth[own], referred[own] = made.called, made.truth, made.referred
        points[int(k)] = point
    return Decisions(called, truth, referred), points


def can_choose(rule: Rule, labels: Ints) -> bool:
    """Whether these rows have samples of the target class and of other classes."""
    return rule.target is None or 0 < int((labels == rule.target).sum()) < len(labels)


@dataclasses.dataclass(frozen=True)
class DecisionMetrics:
    """Metrics of the decisions on one part.

    Parameters
    ----------
    n, n_groups : int
    counts : mapping of name to int
        With a target `true_positive, false_positive, true_negative, false_negative, referred`;
        without, `right, wrong, referred`.
    shares : mapping of name to Interval
        With a target `sensitivity, specificity, ppv, npv`; without, `accuracy` and
        `sensitivity <class>`. They are shares of the decided images. `referred` is the share of
        referred images. If there are any: also `sensitivity of all` and `specificity of all`, or
        `accuracy of all`, where a referred image counts as not found.
    never_right : tuple of str
        Without a target: classes of which no sample is decided correctly.
    """

    n: int
    n_groups: int
    counts: Mapping[str, int]
    shares: Mapping[str, Interval]
    never_right: tuple[str, ...] = ()

    @property
    def error(self) -> float | None:
        """Share of wrong decisions; None if all images are referred."""
        wrong = [n for name, n in self.counts.items() if name in WRONG]
        n_decided = self.n - self.counts["referred"]
        return sum(wrong) / n_decided if n_decided else None


def decision_metrics(
    made: Decisions,
    labels: Ints,
    groups: npt.ArrayLike,
    class_names: tuple[str, ...],
    *,
    has_target: bool,
    level: float = 0.95,
    intervals: bool = True,
) -> DecisionMetrics:
    """Shares with intervals over whole groups, and the counts behind them."""
    counts, parts = _of_target(made) if has_target else _of_classes(made, labels, class_names)
    parts["referred"] = (made.referred, np.ones(len(labels), dtype=bool))
    counts["referred"] = made.referred
    found = shares(
        {name: (above.astype(float), below.astype(float)) for name, (above, below) in parts.items()},
        labels, groups, len(class_names), level=level, intervals=intervals,
    )  # fmt: skip
    return DecisionMetrics(
        n=len(labels),
        n_groups=len(np.unique(np.asarray(groups))),
        counts={name: int(where.sum()) for name, where in counts.items()},
        shares=found,
        never_right=()
        if has_target
        else tuple(
            name
            for c, name in enumerate(class_names)
            if (labels == c).any() and not (made.right & ~made.referred)[labels == c].any()
        ),
    )


def one_class_notes(
    class_name: str, units: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> tuple[str, ...]:
    """Caveats that a threshold calls all decided samples the class, or none; one per unit.

    Parameters
    ----------
    units : mapping of unit to mapping of part to counts
        Counts as in `DecisionMetrics`, with a target.

    Examples
    --------
    >>> counts = {"true_positive": 32, "false_positive": 37, "true_negative": 0, "false_negative": 0}
    >>> one_class_notes("malignant", {"image": {"test": counts}})[0].partition(": ")[2]
    "all decided images are called 'malignant' (test 69)."
    """
    notes = []
    for unit, parts in units.items():
        where: dict[str, list[str]] = {}
        for part, counts in parts.items():
            called = counts["true_positive"] + counts["false_positive"]
            others = counts["true_negative"] + counts["false_negative"]
            if not others and counts["false_positive"]:
                where.setdefault("all decided", []).append(f"{part} {called}")
            elif not called and counts["false_negative"]:
                where.setdefault("no decided", []).append(f"{part} {others}")
        for which, of in where.items():
            noun, verb = (f"{unit}s", "are") if which == "all decided" else (unit, "is")
            notes.append(
                f"The threshold for '{class_name}' is of no use: {which} {noun} {verb} called "
                f"'{class_name}' ({', '.join(of)})."
            )
    return tuple(notes)


def _of_target(made: Decisions) -> tuple[dict[str, Bools], dict[str, tuple[Bools, Bools]]]:
    """The rows that are counted, and numerator and denominator of each share, for one class."""
    decided = ~made.referred
    called, cleared = decided & (made.called == 1), decided & (made.called == 0)
    positive, negative = made.truth == 1, made.truth == 0
    counts = {
        "true_positive": positive & called,
        "false_positive": negative & called,
        "true_negative": negative & cleared,
        "false_negative": positive & cleared,
    }
    parts = {
        "sensitivity": (positive & called, decided & positive),
        "specificity": (negative & cleared, decided & negative),
        "ppv": (positive & called, called),
        "npv": (negative & cleared, cleared),
    }
    if made.referred.any():
        parts["sensitivity of all"] = (positive & called, positive)
        parts["specificity of all"] = (negative & cleared, negative)
    return counts, parts


def _of_classes(
    made: Decisions, labels: Ints, class_names: tuple[str, ...]
) -> tuple[dict[str, Bools], dict[str, tuple[Bools, Bools]]]:
    """The same for decisions between all classes."""
    decided = ~made.referred
    right = decided & made.right
    counts = {"right": right, "wrong": decided & ~made.right}
    parts = {"accuracy": (right, decided)}
    for c, name in enumerate(class_names):
        parts[f"sensitivity {name}"] = (right & (labels == c), decided & (labels == c))
    if made.referred.any():
        parts["accuracy of all"] = (right, np.ones(len(labels), dtype=bool))
    return counts, parts
