"""Nested cross-validation: each fold is evaluated by members and combiners that never saw its labels.

A cross-fitted combiner is fitted to logits of models that were trained on the evaluated fold
(base-model leakage). Here members, combiners and the fallback to the mean use the other folds only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.cross_validation.fallback import is_better
from ensemble_kit.evaluation.scores.per_image import Scored, paired_gains
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.metrics import Metric, metric
from ensemble_kit.predictions.method_predictions import (
    Combined,
    MethodPredictions,
    positions,
)
from ensemble_kit.predictions.nested import NestedFold
from ensemble_kit.predictions.table import Predictions


def nested_predictions(
    combiners: Mapping[str, Combiner],
    nested: Sequence[NestedFold],
    oof: Predictions,
    *,
    fallback_candidates: Collection[str],
    metric: Metric,
    decide: Callable[[MethodPredictions], MethodPredictions] = lambda combined: combined,
) -> dict[str, MethodPredictions]:
    """Predictions of each method for each row, by members and combiners that never saw its fold.

    Parameters
    ----------
    combiners : mapping of name to Combiner
        Must include `mean`. Copies are fitted.
    nested : sequence of NestedFold
        Together they evaluate every row of `oof` once.
    oof : Predictions
        The rows, in the order of the result.
    fallback_candidates : collection of names
        Methods that are replaced by the mean if they are not better inside the other folds.
    metric : Metric
        Metric of this comparison, beside log loss.
    decide : callable, optional
        Decision rule; by default the most probable class.

    Raises
    ------
    UsageError
        A combiner needs features.
    DataError
        Tables have other members, classes or rows.
    """
    refuse_features(combiners)
    _refuse_other_rows(nested, oof)
    parts: dict[str, list[tuple[Ints, Combined]]] = {name: [] for name in combiners}
    for one in nested:
        rows = positions(oof.sample_ids, one.outer.sample_ids)
        for name, prediction in _predict_outer(
            combiners, one, fallback_candidates, metric, decide
        ).items():
            parts[name].append((rows, prediction))
    return {
        name: MethodPredictions.of(Combined.scattered(some, len(oof)), oof)
        for name, some in parts.items()
    }


def _predict_outer(
    combiners: Mapping[str, Combiner],
    one: NestedFold,
    fallback_candidates: Collection[str],
    metric: Metric,
    decide: Callable[[MethodPredictions], MethodPredictions],
) -> dict[str, MethodPredictions]:
    """Each method fitted to the inner rows, the fallback decided on them, applied to the outer ones."""
    inner, labels = one.inner, np.asarray(one.inner.labels)
    predictions = {
        name: combiner.fresh().fit(inner.logits, labels, inner.groups).apply(one.outer)
        for name, combiner in combiners.items()
    }
    predictions = {
        name: one if combiners[name].needs_labels else decide(one)
        for name, one in predictions.items()
    }
    mean = decide(cross_fit(combiners["mean"], inner))
    for name in fallback_candidates:
        if not is_better(decide(cross_fit(combiners[name], inner)), mean, labels, metric):
            predictions[name] = predictions["mean"]
    return predictions


def base_model_leakage(
    crossed: Mapping[str, Scored], nested: Mapping[str, Scored], level: float
) -> dict[str, dict[str, Interval]]:
    """Cross-fitted minus nested by method and metric, with the interval of the paired difference."""
    return {
        name: {
            key: paired_gains({name: crossed[name]}, of_nested, _as_it_is(key), level=level)[
                name
            ].effect
            for key in of_nested.values.metrics
        }
        for name, of_nested in nested.items()
    }


def _as_it_is(name: str) -> Metric:
    """The metric as if higher were better, so that `paired_gains` is the plain difference."""
    return dataclasses.replace(metric(name), higher_is_better=True)


def refuse_features(combiners: Mapping[str, Combiner]) -> None:
    """Raise UsageError for combiners on features: nested predictions have none."""
    if names := [name for name, one in combiners.items() if one.needs_features]:
        raise UsageError(
            f"Nested cross-validation is not possible for {first_few(names)}",
            "models that are trained without two folds store no features",
            "Leave out --nested for these methods. Their cross-fitted metrics already come from models "
            "and fits that did not see the evaluated image",
        )


def _refuse_other_rows(nested: Sequence[NestedFold], oof: Predictions) -> None:
    evaluated = [sample for one in nested for sample in one.outer.sample_ids.tolist()]
    wrong = set(evaluated) ^ set(oof.sample_ids.tolist())
    if wrong or len(evaluated) != len(oof):
        raise DataError(
            f"Nested predictions cover {len(evaluated)} rows; there are {len(oof)} out-of-fold rows, and "
            f"{len(wrong)} rows are in one of the two only",
            "each out-of-fold row needs exactly one nested prediction",
            "Take both from one run: run.predictions(), run.nested_predictions()",
        )
    for one in nested:
        by = "groups" if oof.split_by == "group" else "sample_ids"
        if len(shared := np.intersect1d(getattr(one.inner, by), getattr(one.outer, by))):
            raise DataError(
                f"Nested fold {one.fold} fits and evaluates on {len(shared)} of the same {by}: {first_few(shared)}",
                "no row may be in both parts",
                "Take the folds from run.nested_predictions()",
            )
        for table in (one.inner, one.outer):
            if (table.member_names, table.class_names) != (oof.member_names, oof.class_names):
                raise DataError(
                    f"The nested folds have the members {first_few(table.member_names)}; the table has {first_few(oof.member_names)}",
                    "both need the same members and classes in the same order",
                    "Select them by name: table.select(oof.member_names)",
                )
