"""The results of an experiment's runs: one row per variant and method, compared over whole patients.

They are computed from stored predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.compare_runs import AcrossRuns, compare_method_predictions
from ensemble_kit.evaluation.runs.method_predictions import stored_predictions
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics, stored_methods
from ensemble_kit.evaluation.scores.verdict import Verdict
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.report.method_curves import confusion_counts
from ensemble_kit.reproduce.experiment_file import Plan, Planned
from ensemble_kit.reproduce.steps import main_method
from ensemble_kit.run import Run

METRIC = "balanced_accuracy"
PARTS = ("cross_fitted", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One method of one variant on one part.

    Parameters
    ----------
    n, n_groups : int
    metrics : mapping of name to Interval
    against_first : Verdict or None
        The comparison with the first row of the same kind of split. None for that row.
    constant : str
        The class if it is predicted for every image, else "".
    confusion : array of int, shape (n_classes, n_classes)
        Rows are true classes.
    """

    n: int
    n_groups: int
    metrics: Mapping[str, Interval]
    against_first: Verdict | None
    constant: str
    confusion: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A method of a variant. `parts` has `cross_fitted`, and `test` if there is a test part.

    `replaced`: whether the fitted method was replaced by the mean (fallback).
    """

    variant: str
    method: str
    split_by: str
    group_kind: str
    is_main: bool
    is_member: bool
    replaced: bool
    parts: Mapping[str, Part]

    @property
    def is_constant(self) -> bool:
        """Whether the row predicts one class for all images of a part."""
        return any(part.constant for part in self.parts.values())


@dataclasses.dataclass(frozen=True)
class SplitBias:
    """A variant split by image, compared with the same variant split by patient, on common images."""

    by_image: str
    by_group: str
    method: str
    values: tuple[Interval, Interval]
    difference: Interval
    n: int
    n_groups: int


@dataclasses.dataclass(frozen=True)
class Results:
    """Rows in the order of the variants, and the image-split bias if both splits exist."""

    rows: tuple[Row, ...]
    bias: tuple[SplitBias, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def gather(plan: Plan) -> Results:
    """The results of all variants of a plan. All runs must be stacked.

    Raises
    ------
    DataError
        A run is missing or unfinished.
    """
    protocol = Protocol(metric=METRIC)
    runs = {one.name: Run(one.experiment.run_path) for one in plan.variants}
    protocol = protocol.for_data(next(iter(runs.values())).manifest())
    rows: list[Row] = []
    for split_by in dict.fromkeys(one.experiment.data.split_by for one in plan.variants):
        some = [one for one in plan.variants if one.experiment.data.split_by == split_by]
        rows += _rows(some, runs, protocol)
    order = [one.name for one in plan.variants]
    rows.sort(key=lambda row: order.index(row.variant))
    class_names = next(iter(runs.values())).manifest().class_names
    notes = [note for run in runs.values() for note in run.notes()]
    return Results(
        tuple(rows), tuple(_bias(plan, runs, protocol)), class_names, tuple(dict.fromkeys(notes))
    )


def methods_of(planned: Planned, run: Run) -> list[str]:
    """The rows of a variant: its stacked methods, then its members if there are several."""
    members = run.members()
    stacked = [main_method(planned.experiment), *planned.experiment.methods]
    named = [m for m in dict.fromkeys(stacked) if m != "all"]
    return [*named, *(members if len(members) > 1 else [])]


def _rows(some: Sequence[Planned], runs: Mapping[str, Run], protocol: Protocol) -> list[Row]:
    predictions: dict[str, dict[tuple[str, str], MethodPredictions]] = {part: {} for part in PARTS}
    for one in some:
        for method in methods_of(one, runs[one.name]):
            found = stored_predictions(runs[one.name], method)
            predictions["cross_fitted"][one.name, method] = found.oof
            if found.test is not None:
                predictions["test"][one.name, method] = found.test
    parts = {part: _parts(of, part, protocol) for part, of in predictions.items() if of}
    main = {one.name: main_method(one.experiment) for one in some}
    return [
        Row(
            variant,
            method,
            one.split_by,
            one.group_kind,
            method == main[variant],
            method in runs[variant].members(),
            _replaced(runs[variant], method),
            {part: of[variant, method] for part, of in parts.items() if (variant, method) in of},
        )
        for (variant, method), one in predictions["cross_fitted"].items()
    ]


def _replaced(run: Run, method: str) -> bool:
    """Whether a stacked method was replaced by the mean. False for a member."""
    return method in stored_methods(run) and bool(read_metrics(run, method)["fell_back_to_mean"])


def _parts(
    predictions: Mapping[tuple[str, str], MethodPredictions], part: str, protocol: Protocol
) -> dict[tuple[str, str], Part]:
    named = {row_name(*key): one for key, one in predictions.items()}
    found = compare_method_predictions(named, protocol=protocol)
    if any(found.n_left_out.values()):
        raise DataError(
            f"The variants have different images in the part '{part}'. Images in one variant only: "
            f"{dict(found.n_left_out)}",
            "all variants need the same images",
            "Use one data set and one split for all variants",
        )
    return {key: _part(found, row_name(*key), one) for key, one in predictions.items()}


def row_name(variant: str, method: str) -> str:
    return f"{variant} / {method}"


def _part(found: AcrossRuns, name: str, one: MethodPredictions) -> Part:
    values, classes = found.metrics[name], np.unique(one.predicted)
    is_constant = len(classes) == 1 and classes[0] >= 0 and len(np.unique(one.labels)) > 1
    return Part(
        values.n,
        values.n_groups,
        values.metrics,
        next((v for v in found.verdicts if v.method == name), None),
        one.class_names[int(classes[0])] if is_constant else "",
        confusion_counts(one),
    )


def _bias(plan: Plan, runs: Mapping[str, Run], protocol: Protocol) -> list[SplitBias]:
    """The comparison of each pair of variants that differ only in the split."""
    found = []
    for image in plan.variants:
        twin = next((o for o in plan.variants if _differ_in_split(image, o)), None)
        if twin is None:
            continue
        for method in methods_of(image, runs[image.name]):
            pair = {
                one.name: stored_predictions(runs[one.name], method).oof for one in (twin, image)
            }
            outcome = compare_method_predictions(pair, protocol=protocol)
            of = outcome.metrics[image.name]
            values = (of[METRIC], outcome.metrics[twin.name][METRIC])
            found.append(
                SplitBias(
                    image.name,
                    twin.name,
                    method,
                    values,
                    outcome.verdicts[0].effect,
                    of.n,
                    of.n_groups,
                )
            )
    return found


def _differ_in_split(image: Planned, group: Planned) -> bool:
    data = image.experiment.data, group.experiment.data
    if (data[0].split_by, data[1].split_by) != ("image", "group"):
        return False
    same = image.experiment.model_copy(update={"data": data[1], "run": group.experiment.run})
    return same == group.experiment and data[0].model_copy(update={"split_by": "group"}) == data[1]
