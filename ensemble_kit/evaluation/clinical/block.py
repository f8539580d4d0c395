"""The clinical block: net benefit, calibration, predictive values and subgroups of one method.

The measures are those that STRATOS (Van Calster et al. 2025, The Lancet Digital Health) and TRIPOD+AI
(Collins et al. 2024, BMJ 385, e078378) require.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemble_kit.evaluation.clinical.calibration_curve import Calibration, calibration_of
from ensemble_kit.evaluation.clinical.net_benefit import (
    THRESHOLDS,
    DecisionCurve,
    benefit_gains,
    checked_thresholds,
    decision_curve,
)
from ensemble_kit.evaluation.clinical.one_class import OneClass
from ensemble_kit.evaluation.clinical.predictive_values import (
    PredictiveValues,
    check_prevalence,
    predictive_values,
)
from ensemble_kit.evaluation.clinical.subgroups import Subgroup, column_of, subgroups
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions


@dataclasses.dataclass(frozen=True)
class ClinicalOptions:
    """Settings of the clinical block.

    Parameters
    ----------
    thresholds : tuple of float
        Thresholds of the decision curve, between 0 and 1.
    prevalences : tuple of float
        Additional prevalences at which PPV and NPV are computed.
    by : tuple of str
        Columns of the manifest whose values are subgroups.

    Raises
    ------
    UsageError
        A threshold or a prevalence is not between 0 and 1.
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    prevalences: tuple[float, ...] = ()
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(checked_thresholds(self.thresholds).tolist()))
        for one in self.prevalences:
            check_prevalence(one)


@dataclasses.dataclass(frozen=True, eq=False)
class ClinicalPart:
    """The positive class against the rest, on one part.

    Parameters
    ----------
    n, n_groups, n_positive, n_positive_groups : int
        Number of images and patients, in total and of the positive class.
    curve, best_member : DecisionCurve
        Decision curves of the method and of the best single member.
    gains : tuple of Interval
        Net benefit of the method minus net benefit of the best member, by threshold.
    calibration : Calibration
    values : PredictiveValues
    """

    n: int
    n_groups: int
    n_positive: int
    n_positive_groups: int
    curve: DecisionCurve
    best_member: DecisionCurve
    gains: tuple[Interval, ...]
    calibration: Calibration
    values: PredictiveValues


@dataclasses.dataclass(frozen=True, eq=False)
class Clinical:
    """The clinical block of one method.

    Parameters
    ----------
    method : str
    positive : str or None
        The positive class; None if it is not known. `parts` is then empty, and `why_not` contains
        the advice.
    parts : mapping of part to ClinicalPart
        Parts are `cross_fitted` and `test`.
    by : mapping of column to mapping of part to tuple of Subgroup
    level : float
    metric : str
        Metric of the subgroups.
    """

    method: str
    positive: str | None
    why_not: str
    parts: Mapping[str, ClinicalPart]
    by: Mapping[str, Mapping[str, tuple[Subgroup, ...]]]
    level: float
    metric: str


# Rows, predictions of the method, predictions of the best member.
Part = tuple[Predictions, Combined, Combined]


def clinical_of(
    method: str,
    parts: Mapping[str, Part],
    manifest: Manifest,
    protocol: Protocol,
    options: ClinicalOptions | None = None,
) -> Clinical:
    """The clinical block of a method, beside the best single member.

    Parameters
    ----------
    method : str
    parts : mapping of part to (Predictions, Combined, Combined)
        The rows, the predictions of the method, and the predictions of the best member.
    manifest : Manifest
        Contains the columns of the subgroups.
    protocol : Protocol
        Positive class, metric of the subgroups, and settings of the intervals.
    options : ClinicalOptions, optional

    Raises
    ------
    UsageError
        The positive class is unknown, or a column cannot define subgroups.
    """
    options = options or ClinicalOptions()
    positive = protocol.positive_of(manifest.class_names)
    found = {}
    if positive is not None:
        found = {part: _part(one, positive, protocol, options) for part, one in parts.items()}
    by = {
        column: {
            part: subgroups(column_of(manifest, column, t.sample_ids), ours, t, protocol)
            for part, (t, ours, _) in parts.items()
        }
        for column in options.by
    }
    why_not = "" if positive is not None else _why_not(manifest)
    return Clinical(method, protocol.positive, why_not, found, by, protocol.level, protocol.metric)


def _part(part: Part, positive: int, protocol: Protocol, options: ClinicalOptions) -> ClinicalPart:
    table, ours, best = part
    mine, theirs = (
        OneClass.of(
            one, np.asarray(table.labels), table.groups, positive,
            level=protocol.level, intervals=protocol.intervals,
        )
        for one in (ours, best)
    )  # fmt: skip
    curve, baseline = (decision_curve(one, options.thresholds) for one in (mine, theirs))
    return ClinicalPart(
        mine.n,
        mine.n_groups,
        mine.n_positive,
        mine.n_positive_groups,
        curve,
        baseline,
        tuple(benefit_gains(curve, baseline, mine)),
        calibration_of(mine),
        predictive_values(mine, options.prevalences),
    )


def _why_not(manifest: Manifest) -> str:
    names = ", ".join(repr(name) for name in manifest.class_names[:4])
    more = ", ..." if manifest.n_classes > 4 else ""
    return (
        f"No clinical block: it is not known which class of {names}{more} is the positive one. "
        "Name it with --positive CLASS; for new runs, also as positive under [data] in the settings file."
    )


def clinical_json(found: Clinical) -> dict[str, Any]:
    """The block `clinical` of `metrics.json`."""
    return {
        "method": found.method,
        "metric": found.metric,
        "positive": found.positive,
        "why_not": found.why_not or None,
        "level": found.level,
        **{part: _part_json(one) for part, one in found.parts.items()},
        "subgroups": {
            column: {
                part: [dataclasses.asdict(one) for one in some] for part, some in of_part.items()
            }
            for column, of_part in found.by.items()
        },
    }


def _part_json(part: ClinicalPart) -> dict[str, Any]:
    return {
        "n": part.n,
        "n_groups": part.n_groups,
        "n_positive": part.n_positive,
        "n_positive_groups": part.n_positive_groups,
        "net_benefit": [
            {
                "threshold": ours.threshold,
                "method": dataclasses.asdict(ours.value),
                "best_member": dataclasses.asdict(best.value),
                "treat_all": ours.treat_all,
                "treat_none": 0.0,
                "gain": dataclasses.asdict(gain),
            }
            for ours, best, gain in zip(
                part.curve.points, part.best_member.points, part.gains, strict=True
            )
        ],
        "calibration": dataclasses.asdict(part.calibration),
        "sensitivity": dataclasses.asdict(part.values.sensitivity),
        "specificity": dataclasses.asdict(part.values.specificity),
        "predictive_values": [dataclasses.asdict(one) for one in part.values.at],
    }
