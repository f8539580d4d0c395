"""The figures of one combined table: every metric with its group-bootstrap interval.

Resamples of several methods over one table are paired by construction. Knows no combiner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

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
from ensemble_kit.evaluation.proportions import with_wilson
from ensemble_kit.evaluation.resamplers import RESAMPLERS, Resampler
from ensemble_kit.metrics import METRICS, OVER_CLASSES, Metric, metric
from ensemble_kit.metrics.sums import GroupSums, sums_by_group

Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one method reached on one table.

    Parameters
    ----------
    n, n_groups : int
    n_ties, n_abstained : int
    missing_classes : tuple of int
        Classes without a sample: no figure speaks of them.
    metrics : mapping of name to Interval
    fewest_groups : int
        How many groups hold the class that the fewest groups hold, of those that are there.
    """

    n: int
    n_groups: int
    n_ties: int
    n_abstained: int
    missing_classes: tuple[int, ...]
    metrics: Mapping[str, Interval]
    fewest_groups: int

    def __getitem__(self, name: str) -> Interval:
        return self.metrics[name]


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """One method's figures, and their resamples: `(n_resamples,)` per metric, paired across methods."""

    figures: Figures
    resamples: Mapping[str, Array]


def judge(
    tables: Mapping[str, Combined],
    labels: Ints,
    groups: npt.ArrayLike,
    n_classes: int,
    *,
    metrics: Sequence[str | Metric],
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    interval: str = "percentile",
) -> dict[str, Resampled]:
    """Figures of several methods over the same samples, from one set of group resamples.

    Parameters
    ----------
    tables : mapping of method to Combined
    labels : array of int, shape (n_samples,)
    groups : array-like, shape (n_samples,)
        Resampled whole.
    metrics : sequence of str or Metric
        Names in `METRICS`, or figures of your own.
    interval : {"percentile", "bca"}

    Returns
    -------
    dict of method to Resampled
        With a single group there is no interval.
    """
    wanted = [one if isinstance(one, Metric) else metric(one) for one in metrics]
    numbered = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    n_groups = int(numbered.max()) + 1
    is_resampled = n_groups > 1 and n_resamples > 0
    measured = {
        name: _Measured.of(table, labels, numbered, wanted, is_resampled)
        for name, table in tables.items()
    }
    parts: dict[str, dict[str, list[Array]]] = {
        name: {m.name: [] for m in wanted} for name in tables
    }
    left_out = _LeftOut({}, None)
    if is_resampled and interval == "bca":
        left_out = _LeftOut.of(measured, strata_of(labels, numbered, n_classes))
    per_group = _class_counts(labels, numbered, n_groups)
    fewest_groups = int((per_group > 0).sum(axis=0).min())
    if is_resampled:
        for weights in resampling(labels, numbered, n_classes, n_resamples, seed):
            whole = (weights @ per_group > 0).all(axis=1)
            for name, one in measured.items():
                for key, values in one.resample(weights).items():
                    # A mean over fewer classes is another figure: such a resample says nothing.
                    kept = np.where(whole, values, np.nan) if key in OVER_CLASSES else values
                    parts[name][key].append(kept)
    missing = tuple(int(c) for c in np.setdiff1d(np.arange(n_classes), labels))
    out = {}
    for name, table in tables.items():
        resamples = {k: np.concatenate(v) for k, v in parts[name].items() if v}
        intervals = {
            m.name: with_wilson(
                _interval(
                    measured[name].value(m),
                    resamples.get(m.name),
                    level,
                    left_out.of_metric(name, m),
                ),
                m.name,
                measured[name].sums.counts,
                level,
            )
            for m in wanted
        }
        figures = Figures(
            len(labels),
            n_groups,
            table.n_ties,
            table.n_abstained,
            missing,
            intervals,
            fewest_groups,
        )
        out[name] = Resampled(figures, resamples)
    return out


def _class_counts(labels: Ints, groups: Ints, n_groups: int) -> Array:
    """Samples of each class that is there at all, per group; shape (n_groups, n_present)."""
    present, column = np.unique(labels, return_inverse=True)
    counts = np.zeros((n_groups, len(present)))
    np.add.at(counts, (groups, column), 1.0)
    return counts


@dataclasses.dataclass(frozen=True, eq=False)
class _Measured:
    """One method over one table: sums per group, and what the other metrics need."""

    sums: GroupSums
    metrics: list[Metric]
    values: dict[str, float]
    resamplers: dict[str, Resampler]

    @staticmethod
    def of(
        table: Combined, labels: Ints, groups: Ints, metrics: list[Metric], is_resampled: bool
    ) -> _Measured:
        sums = sums_by_group(labels, table.proba, table.predicted, groups)
        values, resamplers = {}, {}
        for wanted in metrics:
            if wanted.of_table is not None:
                values[wanted.name] = wanted.of_table(labels, table.proba, table.predicted)
            if wanted.of_table is not None and is_resampled:
                resamplers[wanted.name] = RESAMPLERS[wanted.name](
                    labels, table.proba, groups, table.predicted
                )
        return _Measured(sums, metrics, values, resamplers)

    def value(self, wanted: Metric) -> float:
        if wanted.of_sums is not None:
            return float(wanted.of_sums(self.sums.total()))
        return self.values[wanted.name]

    def resample(self, weights: Array) -> dict[str, Array]:
        drawn = self.sums.weighted(weights)
        out = {}
        for wanted in self.metrics:
            if wanted.of_sums is not None:
                out[wanted.name] = wanted.of_sums(drawn)
            else:
                out[wanted.name] = self.resamplers[wanted.name](weights)
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class _LeftOut:
    """Every method's figures with each group left out in turn, for BCa intervals."""

    figures: Mapping[str, Mapping[str, Array]]
    strata: Ints | None

    @staticmethod
    def of(measured: Mapping[str, _Measured], strata: Ints) -> _LeftOut:
        chunks, of_block = left_out_weights(strata)
        parts: dict[str, list[dict[str, Array]]] = {name: [] for name in measured}
        for weights in chunks:
            for name, one in measured.items():
                parts[name].append(one.resample(weights))
        figures = {
            name: {key: np.concatenate([p[key] for p in some]) for key in some[0]}
            for name, some in parts.items()
            if some
        }
        return _LeftOut(figures, of_block)

    def of_metric(self, name: str, wanted: Metric) -> tuple[Array, Ints] | None:
        if self.strata is None or name not in self.figures:
            return None
        return self.figures[name][wanted.name], self.strata


def _interval(
    value: float,
    resamples: Array | None,
    level: float,
    left_out: tuple[Array, Ints] | None = None,
) -> Interval:
    if not np.isfinite(value):
        return Interval(None)
    if resamples is None:
        return Interval(value)
    if left_out is None:
        ends = percentile_interval(resamples, level)
    else:
        ends = bca_interval(value, resamples, left_out[0], level, strata=left_out[1])
    return Interval(value, *ends) if ends else Interval(value)


def known_metrics() -> list[str]:
    """Names of all metrics."""
    return list(METRICS)
