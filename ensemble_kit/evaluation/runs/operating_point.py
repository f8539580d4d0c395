"""A decision threshold for a run's method: chosen out-of-fold, evaluated cross-fitted and on the test part.

Test labels are used for evaluation only.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.evaluation.caveats import table_notes
from ensemble_kit.evaluation.decisions.threshold_rules import (
    DecisionFigures,
    Point,
    Rule,
    can_choose,
    choose,
    cross_fitted,
    decide,
    decision_figures,
)
from ensemble_kit.evaluation.decisions.thresholds import Aim, Referral
from ensemble_kit.evaluation.runs.ensemble_files import interval_json
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION, made_of
from ensemble_kit.evaluation.runs.method_predictions import Answered, MethodAnswers, answers_of
from ensemble_kit.evaluation.scores.per_group import has_larger_groups, is_mixed, pooled
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True)
class DecisionOptions:
    """Settings of an operating point.

    Parameters
    ----------
    aim : Aim or None
        Target of the threshold, e.g. a sensitivity; None: no threshold.
    class_name : str or None
        The positive class. By default the positive class of the data, else the last of two classes.
    referral : Referral or None
        Share of images to refer, or largest error; None: no referral.
    n_resamples : int
        0: no intervals.
    level : float
        Confidence level of the intervals over whole patients, e.g. 0.95.
    seed : int
    """

    aim: Aim | None = None
    class_name: str | None = None
    referral: Referral | None = None
    n_resamples: int = 2000
    level: float = 0.95
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class UnitDecision:
    """The thresholds for one unit (image or patient), and the metrics of the decisions.

    Parameters
    ----------
    point : Point
        Thresholds chosen on all out-of-fold rows; use these.
    by_fold : mapping of fold to Point
        Thresholds chosen on the other folds, which the cross-fitted metrics use.
    parts : mapping of part to DecisionFigures
        `in_sample`, `cross_fitted` and `test`, as far as they are defined.
    """

    point: Point
    by_fold: Mapping[int, Point]
    parts: Mapping[str, DecisionFigures]


@dataclasses.dataclass(frozen=True, eq=False)
class OperatingPoint:
    """An operating point of a method.

    Parameters
    ----------
    class_name : str or None
    group_kind : str
    units : mapping of unit to UnitDecision
        `image`; and the kind of group, e.g. `patient`, if every group has one label and some groups
        have several images.
    """

    method: str
    options: DecisionOptions
    class_name: str | None
    group_kind: str
    units: Mapping[str, UnitDecision]
    notes: tuple[str, ...]


def operating_point(
    run: Run, method: str, options: DecisionOptions, *, write: bool = True
) -> OperatingPoint:
    """Choose a decision threshold and a referral threshold out-of-fold, and evaluate the decisions.

    Parameters
    ----------
    run : Run
    method : str
        A stacked method, or a member.
    options : DecisionOptions
    write : bool
        Write `decision.json` beside the method's predictions.

    Returns
    -------
    OperatingPoint

    Raises
    ------
    UsageError
        Neither aim nor referral, an unknown class or method, or no class among more than two.
    DataError
        All or no out-of-fold images are of the class, or no threshold reaches the aim.
    """
    with run.writing_results() if write else contextlib.nullcontext():
        answers = answers_of(run, method)
        found = _point_of(method, answers, options, run.manifest().called_class)
        if write:
            test = answers.test.table if answers.test else None
            bound = {"made_of": made_of(answers.oof.table, test)}
            write_checked(run.ensemble_dir(method) / DECISION, {**decision_json(found), **bound})
    return found


def _point_of(
    method: str, answers: MethodAnswers, options: DecisionOptions, positive: str
) -> OperatingPoint:
    table = answers.oof.table
    rule = _rule(options, table, positive)
    notes = list(table_notes(table, answers.test.table if answers.test else None))
    units = {"image": _judged(rule, _per_image(answers), options, "image", notes)}
    if has_larger_groups(table) and table.split_by == "group":
        if is_mixed(table.labels, table.groups):
            notes.append(
                f"Some {table.group_kind}s have images of several classes, so there is no threshold per "
                f"{table.group_kind}."
            )
        else:
            parts = _per_group(answers)
            units[table.group_kind] = _judged(rule, parts, options, table.group_kind, notes)
    return OperatingPoint(
        method,
        options,
        None if rule.target is None else table.class_names[rule.target],
        table.group_kind,
        units,
        tuple(dict.fromkeys(notes)),
    )


def _rule(options: DecisionOptions, table: Predictions, positive: str) -> Rule:
    if options.aim is None and options.referral is None:
        raise UsageError(
            "Nothing to choose: no aim and no referral was given",
            "at least one is needed",
            "Use e.g. --at sensitivity=.95, --refer 10% or --max-error .02",
        )
    if options.aim is None:
        if options.class_name is not None:
            raise UsageError(
                f"The class '{options.class_name}' was given without an aim",
                "a class is used only with a threshold",
                "Add --at, e.g. --at youden",
            )
        return Rule(referral=options.referral)
    name = options.class_name if options.class_name is not None else positive or None
    if name is None and table.n_classes > 2:
        raise UsageError(
            f"No positive class among {', '.join(table.class_names)}",
            "with more than two classes, it must be named",
            f"Add e.g. --class {table.class_names[-1]}",
        )
    name = table.class_names[-1] if name is None else name
    if name not in table.class_names:
        raise UsageError(
            f"Unknown class '{name}'", f"the classes are {', '.join(table.class_names)}",
            did_you_mean(name, table.class_names),
        )  # fmt: skip
    return Rule(table.class_names.index(name), options.aim, options.referral)


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """Predictions per unit: out-of-fold with folds, and of the test part."""

    oof: Answered
    labels: Ints
    groups: Any
    fold: Ints
    test: Answered | None
    test_labels: Ints | None
    test_groups: Any


def _per_image(answers: MethodAnswers) -> _Parts:
    oof, test = answers.oof, answers.test
    return _Parts(
        oof, np.asarray(oof.table.labels), oof.table.groups, answers.fold,
        test, None if test is None else np.asarray(test.table.labels),
        None if test is None else test.table.groups,
    )  # fmt: skip


def _per_group(answers: MethodAnswers) -> _Parts:
    """One prediction per patient: the mean over its images."""
    oof, test = answers.oof, answers.test
    combined, labels, names = pooled(oof.combined, np.asarray(oof.table.labels), oof.table.groups)
    first = np.unique(oof.table.groups, return_index=True)[1]
    pooled_oof = Answered(oof.table, combined)
    if test is None or is_mixed(test.table.labels, test.table.groups):
        return _Parts(pooled_oof, labels, names, answers.fold[first], None, None, None)
    tested, truth, theirs = pooled(test.combined, np.asarray(test.table.labels), test.table.groups)
    return _Parts(
        pooled_oof, labels, names, answers.fold[first], Answered(test.table, tested), truth, theirs
    )


def _judged(
    rule: Rule, parts: _Parts, options: DecisionOptions, unit: str, notes: list[str]
) -> UnitDecision:
    table, combined = parts.oof.table, parts.oof.combined
    if not can_choose(rule, parts.labels):
        raise DataError(
            f"All or none of {len(parts.labels)} out-of-fold {unit}s are of the class",
            f"a threshold needs {unit}s of the class and of other classes",
            "Choose another class, or add data",
        )
    point = choose(rule, combined, parts.labels)
    _refuse_no_point(rule, point, unit)

    def figures(made: Any, labels: Ints, groups: Any) -> DecisionFigures:
        return decision_figures(
            made, labels, groups, table.class_names, has_target=rule.target is not None,
            level=options.level, intervals=options.n_resamples > 0,
        )  # fmt: skip

    found = {
        "in_sample": figures(
            decide(rule, point, combined, parts.labels), parts.labels, parts.groups
        )
    }
    crossed = cross_fitted(rule, combined, parts.labels, parts.fold)
    if crossed is None:
        notes.append(
            f"No cross-fitted metrics per {unit}: without one of the folds, the class or all other "
            "classes are missing."
        )
    else:
        found["cross_fitted"] = figures(crossed[0], parts.labels, parts.groups)
    if parts.test is not None and parts.test_labels is not None:
        made = decide(rule, point, parts.test.combined, parts.test_labels)
        found["test"] = figures(made, parts.test_labels, parts.test_groups)
    return UnitDecision(point, {} if crossed is None else crossed[1], found)


def _refuse_no_point(rule: Rule, point: Point, unit: str) -> None:
    if point.threshold is not None and not np.isfinite(point.threshold):
        raise DataError(
            f"No threshold gives {rule.aim} with any out-of-fold {unit} predicted as positive",
            "a usable threshold predicts the class at least once",
            "Choose a lower aim, or a higher cost of missed cases",
        )
    if not np.isfinite(point.refer_below):
        raise DataError(
            f"For an error this small, every out-of-fold {unit} would be referred",
            f"at least one {unit} must be decided",
            "Use a larger --max-error, or set the referred share with --refer",
        )


def decision_json(found: OperatingPoint) -> dict[str, Any]:
    """Content of `decision.json`; an infinite threshold is null."""

    def point_json(point: Point) -> dict[str, float | None]:
        values = {"threshold": point.threshold, "refer_below": point.refer_below}
        return {
            name: None if one is None or not np.isfinite(one) else one
            for name, one in values.items()
        }

    options = found.options
    return {
        "schema_version": 1,
        "method": found.method,
        "class": found.class_name,
        "aim": None if options.aim is None else dataclasses.asdict(options.aim),
        "referral": None if options.referral is None else dataclasses.asdict(options.referral),
        "certainty": "log odds from the threshold" if options.aim else "highest probability",
        "level": options.level,
        "units": {
            unit: {
                **point_json(one.point),
                "by_fold": {str(k): point_json(point) for k, point in one.by_fold.items()},
                **{
                    part: {
                        "n": figures.n,
                        "n_groups": figures.n_groups,
                        **figures.counts,
                        "shares": {n: interval_json(i) for n, i in figures.shares.items()},
                    }
                    for part, figures in one.parts.items()
                },
            }
            for unit, one in found.units.items()
        },
        "notes": list(found.notes),
    }
