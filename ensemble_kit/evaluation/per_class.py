"""Figures of each class against the rest, from the same group resamples as those of all classes.

Takes answers that were made elsewhere; writes and prints nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.combiners.base import Combined
from ensemble_kit.evaluation.bootstrap import (
    Interval,
    bca_interval,
    left_out_weights,
    percentile_interval,
    resampling,
    strata_of,
)
from ensemble_kit.evaluation.proportions import class_with_wilson
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.resamplers import (
    Resampler,
    auroc_resampler,
    average_precision_resampler,
)
from ensemble_kit.metrics import classification
from ensemble_kit.metrics.confusion import Confusion, GroupConfusions
from ensemble_kit.metrics.ranking import auroc, average_precision
from ensemble_kit.predictions.table import Predictions

Ints = npt.NDArray[np.int64]
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
class ClassFigures:
    """What one method reached on one class against the rest.

    Parameters
    ----------
    n, n_groups : int
        Images of the class, and groups that have some.
    metrics : mapping of name to Interval
        The names are `CLASS_METRICS`; None where undefined, as for a class that is not there.
    """

    n: int
    n_groups: int
    metrics: Mapping[str, Interval]

    def __getitem__(self, name: str) -> Interval:
        return self.metrics[name]


def figures_per_class(
    tables: Mapping[str, Combined], table: Predictions, protocol: Protocol | None = None
) -> dict[str, tuple[ClassFigures, ...]]:
    """Figures of every class by several methods over the same samples and resamples.

    Parameters
    ----------
    tables : mapping of method to Combined
        Rows as in `table`.
    table : Predictions
        Its labels, groups and classes.
    protocol : Protocol, optional
        How intervals are made.

    Returns
    -------
    dict of method to tuple of ClassFigures
        In the order of the classes.

    Examples
    --------
    >>> labels = np.array([0, 0, 1, 1])
    >>> table = Predictions.from_arrays({"a": np.eye(2)[[0, 1, 1, 1]]}, labels)
    >>> answer = Combined(np.eye(2)[[0, 1, 1, 1]], np.array([0, 1, 1, 1]), np.zeros(4, dtype=bool))
    >>> second = figures_per_class({"a": answer}, table, Protocol(n_resamples=0))["a"][1]
    >>> second.n, second["sensitivity"].value, second["specificity"].value
    (2, 1.0, 0.5)
    """
    protocol = protocol or Protocol()
    labels = np.asarray(table.labels)
    numbered = np.unique(table.groups, return_inverse=True)[1].astype(np.int64)
    scored = {name: _Scored.of(one, labels, numbered) for name, one in tables.items()}
    resampled = _resampled(scored, labels, numbered, table.n_classes, protocol)
    return {
        name: tuple(
            ClassFigures(
                int((labels == c).sum()),
                len(np.unique(numbered[labels == c])),
                {
                    key: class_with_wilson(
                        _interval(values[c], resampled[name], key, c, protocol.level),
                        key,
                        c,
                        one.counts,
                        protocol.level,
                    )
                    for key, values in one.values.items()
                },
            )
            for c in range(table.n_classes)
        )
        for name, one in scored.items()
    }


def per_class_json(
    figures: Sequence[ClassFigures] | None, class_names: Sequence[str]
) -> dict[str, Any]:
    """The block `per_class` of a part in `metrics.json`; nothing where there are no figures."""
    if not figures:
        return {}
    return {
        "per_class": {
            name: {
                "n": one.n,
                "n_groups": one.n_groups,
                **{key: dataclasses.asdict(interval) for key, interval in one.metrics.items()},
            }
            for name, one in zip(class_names, figures, strict=True)
        }
    }


@dataclasses.dataclass(frozen=True, eq=False)
class _Scored:
    """One method's figures per class, and how group weights move them."""

    values: dict[str, Array]  # (n_classes,) each
    counts: GroupConfusions
    resamplers: dict[str, list[Resampler]]

    @staticmethod
    def of(one: Combined, labels: Ints, groups: Ints) -> _Scored:
        n_classes = one.proba.shape[1]
        counts = GroupConfusions.of(labels, one.predicted, groups, n_classes)
        whole = counts.weighted(np.ones(counts.n_groups))
        values = {key: figure(whole) for key, figure in OF_CONFUSION.items()}
        resamplers = {}
        for key, (figure, resampler) in OF_SCORES.items():
            values[key] = np.array([figure(labels == c, one.proba[:, c]) for c in range(n_classes)])
            # A table of this class alone: label 0 is the class, every other is 1.
            resamplers[key] = [
                resampler((labels != c).astype(np.int64), one.proba[:, [c]], groups)
                for c in range(n_classes)
            ]
        return _Scored(values, counts, resamplers)

    def resample(self, weights: Array) -> dict[str, Array]:
        """Each figure under these group weights, shape (n_resamples, n_classes)."""
        counts = self.counts.weighted(weights)
        out = {key: figure(counts) for key, figure in OF_CONFUSION.items()}
        for key, some in self.resamplers.items():
            # To first order, as beyond some number of groups, a figure may leave its range.
            out[key] = np.clip(np.stack([one(weights) for one in some], axis=1), 0.0, 1.0)
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class _Resampled:
    """One method's figures under group weights, (n_resamples, n_classes) each; empty for none.

    For BCa, also those with each group left out in turn, and the strata of the groups.
    """

    drawn: Mapping[str, Array]
    left_out: Mapping[str, Array]
    strata: Ints | None = None


def _resampled(
    scored: Mapping[str, _Scored], labels: Ints, groups: Ints, n_classes: int, protocol: Protocol
) -> dict[str, _Resampled]:
    if protocol.n_resamples < 1 or groups.max() < 1:
        return dict.fromkeys(scored, _Resampled({}, {}))
    drawn = _joined(
        scored, resampling(labels, groups, n_classes, protocol.n_resamples, protocol.seed)
    )
    if protocol.interval != "bca":
        return {name: _Resampled(one, {}) for name, one in drawn.items()}
    chunks, strata = left_out_weights(strata_of(labels, groups, n_classes))
    left_out = _joined(scored, chunks)
    return {name: _Resampled(one, left_out[name], strata) for name, one in drawn.items()}


def _joined(scored: Mapping[str, _Scored], chunks: Iterable[Array]) -> dict[str, dict[str, Array]]:
    parts: dict[str, list[dict[str, Array]]] = {name: [] for name in scored}
    for weights in chunks:
        for name, one in scored.items():
            parts[name].append(one.resample(weights))
    return {
        name: {key: np.concatenate([part[key] for part in some]) for key in CLASS_METRICS if some}
        for name, some in parts.items()
    }


def _interval(value: float, resampled: _Resampled, key: str, c: int, level: float) -> Interval:
    if not np.isfinite(value):
        return Interval(None)
    if key not in resampled.drawn:
        return Interval(float(value))
    drawn = resampled.drawn[key][:, c]
    if key not in resampled.left_out:
        ends = percentile_interval(drawn, level)
    else:
        left_out = resampled.left_out[key][:, c]
        ends = bca_interval(float(value), drawn, left_out, level, strata=resampled.strata)
    return Interval(float(value), *(ends or ()))
