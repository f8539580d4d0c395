"""A decision threshold for a run's method: chosen out-of-fold, evaluated cross-fitted and on the test part.

Test labels are used for evaluation only.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.errors import DataError, IntegrityError, UsageError, did_you_mean
from ensemble_kit.evaluation.decisions.threshold_rules import (
    DecisionMetrics,
    Decisions,
    Rule,
    Threshold,
    can_choose,
    choose,
    cross_fitted,
    decide,
    decision_metrics,
    one_class_notes,
)
from ensemble_kit.evaluation.decisions.thresholds import RejectOption, ThresholdTarget
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION
from ensemble_kit.evaluation.runs.method_predictions import StoredPredictions, stored_predictions
from ensemble_kit.evaluation.scores.per_group import has_larger_groups, is_mixed, per_group
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True)
class DecisionOptions:
    """Settings of an operating point.

    Parameters
    ----------
    threshold_target : ThresholdTarget or None
        Target of the threshold, e.g. a sensitivity; None: no threshold.
    class_name : str or None
        The positive class. By default the positive class of the data, else the last of two classes.
    reject_option : RejectOption or None
        Share of images to refer, or largest error; None: no referral.
    n_resamples : int
        0: no intervals.
    level : float
        Confidence level of the intervals over whole patients, e.g. 0.95.
    seed : int
    """

    threshold_target: ThresholdTarget | None = None
    class_name: str | None = None
    reject_option: RejectOption | None = None
    n_resamples: int = 2000
    level: float = 0.95
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class UnitDecision:
    """The thresholds for one unit (image or patient), and the metrics of the decisions.

    Parameters
    ----------
    point : Threshold
        Thresholds chosen on all out-of-fold rows; use these.
    by_fold : mapping of fold to Threshold
        Thresholds chosen on the other folds, which the cross-fitted metrics use.
    parts : mapping of part to DecisionMetrics
        `in_sample`, `cross_fitted` and `test`, as far as they are defined.
    """

    point: Threshold
    by_fold: Mapping[int, Threshold]
    parts: Mapping[str, DecisionMetrics]


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
    replaced : DecisionOptions or None
        Settings of the operating point that was stored before; None if there was none.
    """

    method: str
    options: DecisionOptions
    class_name: str | None
    group_kind: str
    units: Mapping[str, UnitDecision]
    notes: tuple[str, ...]
    replaced: DecisionOptions | None = None

    @property
    def dropped(self) -> tuple[str, ...]:
        """The parts of the operating point stored before that this one does not have, in words."""
        before, sentences = self.replaced, []
        if before is None:
            return ()
        if before.threshold_target is not None and before.class_name != self.class_name:
            sentences.append(f"the threshold for '{before.class_name}' ({before.threshold_target})")
        if before.reject_option is not None and self.options.reject_option is None:
            sentences.append(f"the rule for referral ({before.reject_option})")
        return tuple(sentences)

    @property
    def typed_with_dropped(self) -> tuple[str, ...]:
        """The options that choose this operating point with the dropped part; empty without one."""
        before, now = self.replaced, self.options
        if before is None:
            return ()
        target = now.threshold_target or before.threshold_target
        reject_option = now.reject_option or before.reject_option
        if (target, reject_option) == (now.threshold_target, now.reject_option):
            return ()
        name = self.class_name or before.class_name
        return (
            *(("--at", target.typed, "--class", str(name)) if target is not None else ()),
            *(reject_option.typed if reject_option is not None else ()),
        )


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
        Neither a target nor a reject option, an unknown class or method, or no class among more than two.
    DataError
        All or no out-of-fold images are of the class, or no threshold reaches the target.
    """
    with run.writing_results() if write else contextlib.nullcontext():
        stored = stored_predictions(run, method)
        found = _point_of(stored, options, run.manifest().called_class)
        if write:
            bound = {"made_of": stored.made_of()}
            path = run.ensemble_dir(method) / DECISION
            found = dataclasses.replace(found, replaced=_stored_options(path))
            write_checked(path, {**decision_json(found), **bound})
    return found


def _stored_options(path: Path) -> DecisionOptions | None:
    """Settings of the stored operating point; None if there is none, or if it is damaged."""
    if not path.is_file():
        return None
    try:
        stored = read_checked(path, advice="It is written again")
    except IntegrityError:
        return None
    aim, referral = stored.get("aim"), stored.get("referral")
    return DecisionOptions(
        None if aim is None else ThresholdTarget(**aim),
        stored.get("class"),
        None if referral is None else RejectOption(**referral),
    )


def _point_of(stored: StoredPredictions, options: DecisionOptions, positive: str) -> OperatingPoint:
    oof, test = dataclasses.replace(stored.oof, fold=stored.fold), stored.test
    rule = _rule(options, oof.class_names, positive)
    kind, notes = oof.group_kind, list(stored.notes)
    units = {"image": _unit_decision(rule, oof, test, options, "image", notes)}
    if has_larger_groups(oof) and oof.split_by == "group":
        if is_mixed(oof.labels, oof.groups):
            notes.append(
                f"Some {kind}s have images of several classes, so there is no threshold per {kind}."
            )
        else:
            tested = None if test is None or is_mixed(test.labels, test.groups) else per_group(test)
            units[kind] = _unit_decision(rule, per_group(oof), tested, options, kind, notes)
    name = None if rule.target is None else oof.class_names[rule.target]
    notes = [*_useless(name, units), *notes]
    return OperatingPoint(stored.method, options, name, kind, units, tuple(dict.fromkeys(notes)))


def _useless(class_name: str | None, units: Mapping[str, UnitDecision]) -> tuple[str, ...]:
    """Caveats on thresholds that call all samples of a part the class, or none."""
    if class_name is None:
        return ()
    counts = {
        unit: {PARTS[p]: one.parts[p].counts for p in ("in_sample", "test") if p in one.parts}
        for unit, one in units.items()
    }
    return one_class_notes(class_name, counts)


def _rule(options: DecisionOptions, class_names: tuple[str, ...], positive: str) -> Rule:
    if options.threshold_target is None and options.reject_option is None:
        raise UsageError(
            "No --at, --refer or --max-error was given",
            "at least one is needed",
            "Use e.g. --at sensitivity=0.95, --refer 10% or --max-error 0.02",
        )
    if options.threshold_target is None:
        if options.class_name is not None:
            raise UsageError(
                f"The class '{options.class_name}' was given without --at",
                "a class is used only with a threshold",
                "Add --at, e.g. --at youden",
            )
        return Rule(reject_option=options.reject_option)
    name = options.class_name if options.class_name is not None else positive or None
    if name is None and len(class_names) > 2:
        raise UsageError(
            f"No positive class among {', '.join(class_names)}",
            "with more than two classes, it must be named",
            f"Add e.g. --class {class_names[-1]}",
        )
    name = class_names[-1] if name is None else name
    if name not in class_names:
        raise UsageError(
            f"Unknown class '{name}'", f"the classes are {', '.join(class_names)}",
            did_you_mean(name, class_names),
        )  # fmt: skip
    return Rule(class_names.index(name), options.threshold_target, options.reject_option)


def _unit_decision(
    rule: Rule,
    oof: MethodPredictions,
    test: MethodPredictions | None,
    options: DecisionOptions,
    unit: str,
    notes: list[str],
) -> UnitDecision:
    """Thresholds from the out-of-fold rows, one row per unit, and the metrics of the decisions."""
    if not can_choose(rule, oof.labels):
        raise DataError(
            f"All or none of {len(oof)} out-of-fold {unit}s are of the class",
            f"a threshold needs {unit}s of the class and of other classes",
            "Choose another class, or add data",
        )
    point = choose(rule, oof, oof.labels)
    _refuse_no_point(rule, point, unit)

    def metrics(made: Decisions, of: MethodPredictions) -> DecisionMetrics:
        return decision_metrics(
            made, of.labels, of.groups, of.class_names, has_target=rule.target is not None,
            level=options.level, intervals=options.n_resamples > 0,
        )  # fmt: skip

    found = {"in_sample": metrics(decide(rule, point, oof, oof.labels), oof)}
    crossed = cross_fitted(rule, oof, oof.labels, oof.fold)
    if crossed is None:
        notes.append(
            f"No cross-fitted metrics per {unit}: without one of the folds, the class or all other "
            "classes are missing."
        )
    else:
        found["cross_fitted"] = metrics(crossed[0], oof)
    if test is not None:
        found["test"] = metrics(decide(rule, point, test, test.labels), test)
    return UnitDecision(point, {} if crossed is None else crossed[1], found)


def _refuse_no_point(rule: Rule, point: Threshold, unit: str) -> None:
    if point.threshold is not None and not np.isfinite(point.threshold):
        raise DataError(
            f"No threshold gives {rule.threshold_target} with any out-of-fold {unit} predicted as positive",
            "a usable threshold predicts the class at least once",
            "Choose a lower target, or a higher cost of false negatives",
        )
    if not np.isfinite(point.refer_below):
        limit = None if rule.reject_option is None else rule.reject_option.max_error
        raise DataError(
            f"With an error of at most {limit}, every out-of-fold {unit} would be referred",
            f"at least one {unit} must be decided",
            "Use a larger --max-error, or set the referred share with --refer",
        )


def decision_json(found: OperatingPoint) -> dict[str, Any]:
    """Content of `decision.json`; an infinite threshold is null."""

    def point_json(point: Threshold) -> dict[str, float | None]:
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
        "aim": None
        if options.threshold_target is None
        else dataclasses.asdict(options.threshold_target),
        "referral": None
        if options.reject_option is None
        else dataclasses.asdict(options.reject_option),
        "certainty": "log odds from the threshold"
        if options.threshold_target
        else "highest probability",
        "level": options.level,
        "units": {
            unit: {
                **point_json(one.point),
                "by_fold": {str(k): point_json(point) for k, point in one.by_fold.items()},
                **{
                    part: {
                        "n": metrics.n,
                        "n_groups": metrics.n_groups,
                        **metrics.counts,
                        "shares": {n: dataclasses.asdict(i) for n, i in metrics.shares.items()},
                    }
                    for part, metrics in one.parts.items()
                },
            }
            for unit, one in found.units.items()
        },
        "notes": list(found.notes),
    }
