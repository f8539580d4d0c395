"""Replace a fitted combiner by the mean if it is not better than the mean, cross-fitted.

The choice for one fold uses the cross-fitted predictions of the other folds only, so the metrics
after the replacement are cross-fitted too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.evaluation.cross_validation.cross_fit import fold_of
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.metrics import Metric, metric
from ensemble_kit.predictions.method_predictions import Combined, MethodPredictions, Some
from ensemble_kit.predictions.table import Predictions


def fallback_candidates(combiners: Mapping[str, Combiner], protocol: Protocol) -> list[str]:
    """The methods that may be replaced by the mean."""
    if not protocol.fallback:
        return []
    return [
        name
        for name, one in combiners.items()
        if name not in REFERENCE_METHODS and one.can_fall_back
    ]


def fall_back(
    combiners: Mapping[str, Combiner],
    crossed: Mapping[str, MethodPredictions],
    oof: Predictions,
    protocol: Protocol,
) -> tuple[set[str], dict[str, MethodPredictions]]:
    """Names that are replaced by the mean over all folds, and all predictions after replacement.

    Parameters
    ----------
    crossed : mapping of name to MethodPredictions
        Cross-fitted predictions of `combiners`, including the mean.
    """
    replaced, predictions = set(), dict(crossed)
    labels, mean = np.asarray(oof.labels), crossed["mean"]
    wanted = protocol.verdict_metric(oof.class_names)
    for name in fallback_candidates(combiners, protocol):
        if not is_better(crossed[name], mean, labels, wanted):
            replaced.add(name)
        predictions[name] = with_fallback(crossed[name], mean, labels, fold_of(oof), wanted)
    return replaced, predictions


def is_better(ours: Combined, mean: Combined, labels: Ints, wanted: Metric) -> bool:
    """Whether `ours` has the lower log loss or the better metric; one of the two suffices."""
    if _value(metric("log_loss"), ours, labels) < _value(metric("log_loss"), mean, labels):
        return True
    sign = 1.0 if wanted.higher_is_better else -1.0
    return sign * _value(wanted, ours, labels) > sign * _value(wanted, mean, labels)


def _value(wanted: Metric, predictions: Combined, labels: Ints) -> float:
    return wanted.of(labels, predictions.proba, predictions.predicted)


def with_fallback(ours: Some, mean: Combined, labels: Ints, fold: Ints, wanted: Metric) -> Some:
    """Cross-fitted predictions of "use this combiner if it is better than the mean on the other folds".

    Parameters
    ----------
    ours, mean : Combined
        Cross-fitted predictions of the same rows.
    labels, fold : array of int, shape (n_samples,)
    """
    use_mean = np.zeros(len(labels), dtype=bool)
    for k in np.unique(fold):
        others = fold != k
        if not is_better(ours.take(others), mean.take(others), labels[others], wanted):
            use_mean |= fold == k
    return dataclasses.replace(
        ours,
        proba=np.where(use_mean[:, None], mean.proba, ours.proba),
        predicted=np.where(use_mean, mean.predicted, ours.predicted),
        tied=np.where(use_mean, mean.tied, ours.tied),
    )
