"""Prediction sets of a run's method: calibrated out-of-fold, coverage measured on the test part."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Bools, Ints
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.evaluation.decisions.conformal import (
    ConformalSets,
    calibrate,
    cross_conformal,
    cross_fitted_sets,
    units_needed,
)
from ensemble_kit.evaluation.decisions.set_coverage import (
    PredictionSets,
    SetMetrics,
    SetOptions,
    set_metrics,
    sets_frame,
    sets_json,
)
from ensemble_kit.evaluation.runs.ensemble_folder import SETS, SETS_JSON
from ensemble_kit.evaluation.runs.method_predictions import (
    StoredPredictions,
    folds_differ,
    predictions_by_fold,
    stored_predictions,
)
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.files import digest_file, write_csv
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.run import Run


def conformal_sets(
    run: Run, method: str, options: SetOptions | None = None, *, write: bool = True
) -> PredictionSets:
    """Conformal prediction sets, calibrated out-of-fold, with measured coverage.

    Parameters
    ----------
    run : Run
    method : str
        A stacked method, or a member.
    options : SetOptions, optional
    write : bool
        Write `sets.csv` and `sets.json` beside the method's predictions.

    Returns
    -------
    PredictionSets

    Raises
    ------
    UsageError
        Unknown method or score.
    DataError
        Too few patients for this alpha: every set would contain all classes.
    """
    options = options or SetOptions()
    with run.writing_results() if write else contextlib.nullcontext():
        stored = stored_predictions(run, method)
        found = _sets(run, stored, options)
        if write:
            _write(run, found, stored)
    return found


def _sets(run: Run, stored: StoredPredictions, options: SetOptions) -> PredictionSets:
    oof, test = stored.oof, stored.test
    groups = _groups(oof)
    _refuse_too_few(oof, groups, options)
    proba, labels = oof.proba, oof.labels
    parts: dict[str, tuple[MethodPredictions, Bools]] = {}
    thresholds = None
    if _can_leave_a_fold_out(oof, groups, stored.fold, options):
        crossed = cross_fitted_sets(
            proba, labels, stored.fold, alpha=options.alpha, score=options.score, groups=groups,
            per_class=options.per_class,
        )  # fmt: skip
        parts["cross_fitted"] = (oof, crossed)
    if options.cross:
        parts["test"] = _cross(run, stored, options)
    else:
        fitted = calibrate(
            proba, labels, alpha=options.alpha, score=options.score, groups=groups,
            per_class=options.per_class,
        )  # fmt: skip
        thresholds = _named(fitted, oof.class_names)
        if test is not None:
            parts["test"] = (test, fitted.predict(test.proba))
    metrics = {part: set_metrics(one, sets, options) for part, (one, sets) in parts.items()}
    return PredictionSets(
        method=stored.method,
        options=options,
        unit=oof.group_kind if groups is not None else "image",
        thresholds=thresholds,
        n_calibrated=len(labels),
        n_units=len(labels) if groups is None else oof.n_groups,
        metrics=metrics,
        frame=sets_frame(parts),
        notes=_notes(run, stored, metrics, groups, options),
    )


def _write(run: Run, found: PredictionSets, stored: StoredPredictions) -> None:
    """Write the sets, then their metrics with the digests that bind both."""
    folder = run.ensemble_dir(found.method)
    write_csv(folder / SETS, found.frame)
    write_checked(
        folder / SETS_JSON,
        {
            **sets_json(found),
            "made_of": stored.made_of(),
            "files": {SETS: digest_file(folder / SETS)},
        },
    )


def _groups(table: MethodPredictions) -> npt.NDArray[np.str_] | None:
    """Patients, which get equal weight; None if images are the exchangeable units."""
    by_image = table.split_by == "image" or table.group_kind == "image"
    return None if by_image else table.groups


def _units_per_class(
    table: MethodPredictions, groups: npt.NDArray[np.str_] | None
) -> dict[str, int]:
    units = table.ids if groups is None else groups
    return {
        name: len(np.unique(units[table.labels == c])) for c, name in enumerate(table.class_names)
    }


def _refuse_too_few(
    table: MethodPredictions, groups: npt.NDArray[np.str_] | None, options: SetOptions
) -> None:
    needed = units_needed(options.alpha)
    unit = "image" if groups is None else table.group_kind
    have = len(table) if groups is None else table.n_groups
    if have < needed:
        raise DataError(
            f"{have} out-of-fold {unit}s are too few for an alpha of {options.alpha:g}",
            f"calibration needs at least {needed} {unit}s",
            f"Use --alpha {1 / (have + 1) + 0.0005:.3f} or more, or add {unit}s",
        )
    few = {name: n for name, n in _units_per_class(table, groups).items() if n < needed}
    if options.per_class and few:
        least = min(few.values())
        raise DataError(
            f"Too few {unit}s for an alpha of {options.alpha:g} per class: "
            f"{first_few(f'{n} of {name!r}' for name, n in few.items())}",
            f"calibration per class needs at least {needed} {unit}s of each class",
            f"Leave out --per-class, or use --alpha {1 / (least + 1) + 0.0005:.3f} or more",
        )


def _can_leave_a_fold_out(
    table: MethodPredictions, groups: npt.NDArray[np.str_] | None, fold: Ints, options: SetOptions
) -> bool:
    """Whether calibration has enough patients when each fold is left out."""
    needed = units_needed(options.alpha)
    units = table.ids if groups is None else groups
    for k in np.unique(fold):
        others = table.take(fold != k)
        if len(np.unique(units[fold != k])) < needed:
            return False
        left = None if groups is None else others.groups
        if options.per_class and min(_units_per_class(others, left).values()) < needed:
            return False
    return True


def _cross(
    run: Run, stored: StoredPredictions, options: SetOptions
) -> tuple[MethodPredictions, Bools]:
    if stored.test is None:
        raise DataError(
            "The run has no test part",
            "cross-conformal sets are computed for test images",
            "Leave out --cross, or make a run with --test-size",
        )
    oof, new = predictions_by_fold(run, stored.method)
    sets = cross_conformal(
        oof.proba, oof.labels, stored.fold, new, alpha=options.alpha,
        score=options.score, groups=_groups(oof), per_class=options.per_class,
    )  # fmt: skip
    return stored.test, sets


def _named(fitted: ConformalSets, class_names: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(class_names, map(float, fitted.thresholds), strict=True))


def _notes(
    run: Run,
    stored: StoredPredictions,
    metrics: Mapping[str, Mapping[str, SetMetrics]],
    groups: npt.NDArray[np.str_] | None,
    options: SetOptions,
) -> tuple[str, ...]:
    unit = "image" if groups is None else stored.oof.group_kind
    notes = [*_under_covered(metrics, unit, options), *stored.notes]
    if "cross_fitted" not in metrics:
        notes.append(
            f"No cross-fitted coverage: without one fold there are too few {unit}s for this alpha."
        )
    if stored.test_table is None:
        notes.append("No test part: coverage is measured cross-fitted only.")
    elif not options.cross and folds_differ(run, stored.test_table):
        notes.append(
            "The thresholds were calibrated on predictions of single folds' models; test images are "
            "predicted by the average of all folds. If these differ, so can the coverage. --cross "
            "compares each fold's images with predictions of that fold's models."
        )
    return tuple(notes)


def _under_covered(
    metrics: Mapping[str, Mapping[str, SetMetrics]], unit: str, options: SetOptions
) -> list[str]:
    """Caveat on classes with more than twice the accepted share of sets without the true class."""
    if options.per_class:
        return []
    least = 1.0 - 2.0 * options.alpha
    low = [
        f"{one.covered} of class '{name}' ({PARTS[part]}, {one.n_groups} {unit}{'s' * (one.n_groups != 1)})"
        for part, of_class in metrics.items()
        for name, one in of_class.items()
        if name != "all" and one.covered.value is not None and one.covered.value < least
    ]
    if not low:
        return []
    needed = units_needed(options.alpha)
    return [
        f"The coverage of {100 * (1 - options.alpha):.4g} % holds over all images together, not for "
        f"each class. Measured coverage: {first_few(low)}. --per-class guarantees it for each class; "
        f"it needs at least {needed} {unit}s of each class."
    ]
