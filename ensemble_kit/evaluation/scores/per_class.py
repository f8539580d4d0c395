"""Metrics of each class against the rest, with intervals over whole groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array, Ints, group_numbers
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.jackknife import Jackknife
from ensemble_kit.evaluation.uncertainty.resampled_metrics import (
    Resampler,
    auroc_resampler,
    average_precision_resampler,
)
from ensemble_kit.evaluation.uncertainty.t_intervals import interval_of
from ensemble_kit.metrics import classification
from ensemble_kit.metrics.confusion import Confusion, GroupConfusions
from ensemble_kit.metrics.ranking import auroc, average_precision
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions

OF_CONFUSION: dict[str, Callable[[Confusion], Array]] = {
    "sensitivity": classification.sensitivity_per_class,
    "specificity": classification.specificity_per_class,
    "precision": classification.precision_per_class,
    "f1": classification.f1_per_class,
}
OF_SCORES = {
    "auroc": (auroc, auroc_resampler),
    "average_precision": (average_precision, average_precision_resampler),
}
CLASS_METRICS = (*OF_CONFUSION, *OF_SCORES)


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one method on one class against the rest.

    Parameters
    ----------
    n, n_groups : int
        Images of the class, and groups with such images.
    metrics : mapping of name to Interval
        The names are `CLASS_METRICS`. Values are None if undefined, e.g. if the class is absent.
    """

    n: int
    n_groups: int
    metrics: Mapping[str, Interval]

    def __getitem__(self, name: str) -> Interval:
        return self.metrics[name]


def metrics_per_class(
    tables: Mapping[str, Combined], table: Predictions, protocol: Protocol | None = None
) -> dict[str, tuple[ClassMetrics, ...]]:
    """Metrics of every class by several methods over the same samples.

    Parameters
    ----------
    tables : mapping of method to Combined
        Rows as in `table`.
    table : Predictions
        Labels, groups and classes.
    protocol : Protocol, optional
        Settings of the intervals.

    Returns
    -------
    dict of method to tuple of ClassMetrics
        In the order of the classes.

    Examples
    --------
    >>> labels = np.array([0, 0, 1, 1])
    >>> table = Predictions.from_arrays({"a": np.eye(2)[[0, 1, 1, 1]]}, labels)
    >>> one = Combined(np.eye(2)[[0, 1, 1, 1]], np.array([0, 1, 1, 1]), np.zeros(4, dtype=bool))
    >>> second = metrics_per_class({"a": one}, table, Protocol(n_resamples=0))["a"][1]
    >>> second.n, second["sensitivity"].value, second["specificity"].value
    (2, 1.0, 0.5)
    """
    protocol = protocol or Protocol()
    labels = np.asarray(table.labels)
    numbered = group_numbers(table.groups)
    jackknife = Jackknife.of(labels, numbered, table.n_classes) if protocol.intervals else None
    return {
        name: _class_metrics(
            _Scored.of(one, labels, numbered), labels, numbered, jackknife, protocol.level
        )
        for name, one in tables.items()
    }


def _class_metrics(
    scored: _Scored, labels: Ints, groups: Ints, jackknife: Jackknife | None, level: float
) -> tuple[ClassMetrics, ...]:
    """One method's metrics of every class."""
    n_classes = len(scored.values["sensitivity"])
    has_intervals = jackknife is not None and len(jackknife.blocks) > 0
    left_out = scored.left_out(jackknife) if jackknife is not None and has_intervals else {}

    def interval(key: str, c: int) -> Interval:
        value = float(scored.values[key][c])
        if jackknife is None or key not in left_out or not np.isfinite(value):
            return Interval(value if np.isfinite(value) else None)
        design = jackknife.design(_counted(scored.counts, key, c))
        return interval_of(
            value, left_out[key][:, c], design, level=level, of_decisions=key in OF_CONFUSION
        )

    return tuple(
        ClassMetrics(
            int((labels == c).sum()),
            len(np.unique(groups[labels == c])),
            {key: interval(key, c) for key in CLASS_METRICS},
        )
        for c in range(n_classes)
    )


def _counted(counts: GroupConfusions, key: str, c: int) -> Array:
    """Rows of each group that enter the metric of a class, shape (n_groups, n_parts)."""
    of_class, others, predicted = counts.of_class(c)
    parts = {"sensitivity": [of_class], "specificity": [others], "precision": [predicted]}
    return np.stack(parts.get(key, [of_class, others]), axis=1)


def per_class_json(
    metrics: Sequence[ClassMetrics] | None, class_names: Sequence[str]
) -> dict[str, Any]:
    """The block `per_class` of a part in `metrics.json`; empty without metrics per class."""
    if not metrics:
        return {}
    return {
        "per_class": {
            name: {
                "n": one.n,
                "n_groups": one.n_groups,
                **{key: dataclasses.asdict(interval) for key, interval in one.metrics.items()},
            }
            for name, one in zip(class_names, metrics, strict=True)
        }
    }


@dataclasses.dataclass(frozen=True, eq=False)
class _Scored:
    """One method's metrics per class, and their values under group weights."""

    values: dict[str, Array]  # (n_classes,) each
    counts: GroupConfusions
    resamplers: dict[str, list[Resampler]]

    @staticmethod
    def of(one: Combined, labels: Ints, groups: Ints) -> _Scored:
        n_classes = one.proba.shape[1]
        counts = GroupConfusions.of(labels, one.predicted, groups, n_classes)
        whole = counts.weighted(np.ones(counts.n_groups))
        values = {key: metric(whole) for key, metric in OF_CONFUSION.items()}
        resamplers = {}
        for key, (metric, resampler) in OF_SCORES.items():
            values[key] = np.array([metric(labels == c, one.proba[:, c]) for c in range(n_classes)])
            # A one-column table: label 0 is this class, label 1 is every other class.
            resamplers[key] = [
                resampler((labels != c).astype(np.int64), one.proba[:, [c]], groups)
                for c in range(n_classes)
            ]
        return _Scored(values, counts, resamplers)

    def left_out(self, jackknife: Jackknife) -> dict[str, Array]:
        """Each metric without each block, shape (n_blocks, n_classes)."""

        def under(weights: Array) -> dict[str, Array]:
            counts = self.counts.weighted(weights)
            found = {key: metric(counts) for key, metric in OF_CONFUSION.items()}
            for key, some in self.resamplers.items():
                # With many groups the values are first-order approximations and may leave [0, 1].
                found[key] = np.clip(np.stack([one(weights) for one in some], axis=1), 0.0, 1.0)
            return found

        return jackknife.left_out(under)
