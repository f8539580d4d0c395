"""The metrics of one combined table, each with its interval over whole groups.

All methods on one table leave out the same groups, so differences between methods are paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, group_numbers
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.jackknife import Design, Jackknife
from ensemble_kit.evaluation.uncertainty.resampled_metrics import RESAMPLERS, Resampler
from ensemble_kit.evaluation.uncertainty.t_intervals import Gain, gains, interval_of
from ensemble_kit.metrics import OVER_CLASSES, Metric, metric
from ensemble_kit.metrics.calibration import (
    debiased_calibration_error,
    expected_calibration_error,
    mass_bins_without,
)
from ensemble_kit.metrics.calibration_slope import slopes_without
from ensemble_kit.metrics.sufficient_statistics import GroupSums, confidence_and_hit, sums_by_group
from ensemble_kit.predictions.method_predictions import Combined


@dataclasses.dataclass(frozen=True)
class MetricValues:
    """The metrics of one method on one table.

    Parameters
    ----------
    n, n_groups : int
    n_ties, n_abstained : int
    missing_classes : tuple of int
        Classes without a sample in the table.
    metrics : mapping of name to Interval
    fewest_groups : int
        Number of groups with images of the rarest class, counted in groups.
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


# Metrics of bins whose edges are computed again without each block.
REBINNED = {
    "ece_equal_mass": expected_calibration_error,
    "calibration_error_debiased": debiased_calibration_error,
}
# The calibration slope has an interval only if blocks x rows is at most this: it is refitted per block.
MAX_REFITTED = 20_000


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """One method's metrics, with the leave-one-group-out values that paired differences need.

    Parameters
    ----------
    values : MetricValues
    left_out : mapping of metric to array, shape (n_blocks,)
        The same blocks for all methods on one table; empty if no intervals were computed.
    designs : mapping of metric to Design
    combined : Combined
    groups : array of int, shape (n_samples,)
        Group numbers from 0.
    """

    values: MetricValues
    left_out: Mapping[str, Array]
    designs: Mapping[str, Design]
    combined: Combined
    groups: Ints


def score_methods(
    tables: Mapping[str, Combined],
    labels: Ints,
    groups: npt.ArrayLike,
    n_classes: int,
    *,
    metrics: Sequence[str | Metric],
    level: float = 0.95,
    intervals: bool = True,
) -> dict[str, Scored]:
    """Metrics of several methods over the same samples, with the same groups left out.

    Parameters
    ----------
    tables : mapping of method to Combined
    labels : array of int, shape (n_samples,)
    groups : array-like, shape (n_samples,)
        Group (patient) of each sample; whole groups are left out.
    metrics : sequence of str or Metric
        Names in `METRICS`, or your own metrics.
    level : float
        Confidence level of the intervals, e.g. 0.95.
    intervals : bool
        Whether to compute intervals.

    Returns
    -------
    dict of method to Scored
        Intervals have no ends if there is a single group.
    """
    wanted = [one if isinstance(one, Metric) else metric(one) for one in metrics]
    numbered = group_numbers(groups)
    present = _class_counts(labels, numbered)
    jackknife = Jackknife.of(labels, numbered, n_classes)
    has_intervals = intervals and len(jackknife.blocks) > 0
    designs = _designs(wanted, present, jackknife) if has_intervals else {}
    missing = tuple(int(c) for c in np.setdiff1d(np.arange(n_classes), labels))
    fewest = int((present > 0).sum(axis=0).min())
    out = {}
    for name, table in tables.items():
        measured = Measured.of(table, labels, numbered, wanted, has_intervals)
        left_out = _left_out(measured, jackknife, present) if has_intervals else {}
        found = {
            m.name: interval_of(
                measured.value(m), left_out[m.name], designs[m.name],
                bounds=m.bounds(n_classes), level=level, of_decisions=m.of_decisions,
            )
            if m.name in left_out
            else _without_interval(measured.value(m))
            for m in wanted
        }  # fmt: skip
        values = MetricValues(
            len(labels), len(present), table.n_ties, table.n_abstained, missing, found, fewest
        )
        out[name] = Scored(values, left_out, designs, table, numbered)
    return out


def paired_gains(
    ours: Mapping[str, Scored], theirs: Scored, wanted: Metric, *, level: float = 0.95
) -> dict[str, Gain]:
    """The gain of each method over another, positive if better, with simultaneous intervals.

    Parameters
    ----------
    ours : mapping of method to Scored
        Scored on the same samples as `theirs`.
    wanted : Metric
        One of the metrics that were computed.
    level : float
        Simultaneous confidence level of all intervals, e.g. 0.95.
    """
    sign, name = (1.0 if wanted.higher_is_better else -1.0), wanted.name
    values = np.array(
        [sign * _difference(one.values[name], theirs.values[name]) for one in ours.values()]
    )
    if name not in theirs.left_out or not ours:
        return {k: Gain(_without_interval(v)) for k, v in zip(ours, values, strict=True)}
    moved = [sign * (one.left_out[name] - theirs.left_out[name]) for one in ours.values()]
    found = gains(values, np.stack(moved, axis=1), theirs.designs[name], level=level)
    return dict(zip(ours, found, strict=True))


def n_differing_groups(ours: Scored, theirs: Scored, wanted: Metric) -> int:
    """Number of groups in which two methods differ: in classes or in probabilities, as the metric uses."""
    if wanted.of_decisions:
        differs = ours.combined.predicted != theirs.combined.predicted
    else:
        differs = (ours.combined.proba != theirs.combined.proba).any(axis=1)
    return len(np.unique(ours.groups[differs]))


def _difference(ours: Interval, theirs: Interval) -> float:
    if ours.value is None or theirs.value is None:
        return np.nan
    return ours.value - theirs.value


def _without_interval(value: float) -> Interval:
    return Interval(float(value) if np.isfinite(value) else None)


def _class_counts(labels: Ints, groups: Ints) -> Array:
    """Samples per group of each class that occurs, shape (n_groups, n_present)."""
    present, column = np.unique(labels, return_inverse=True)
    counts = np.zeros((int(groups.max()) + 1, len(present)))
    np.add.at(counts, (groups, column), 1.0)
    return counts


def _designs(wanted: Sequence[Metric], present: Array, jackknife: Jackknife) -> dict[str, Design]:
    """Jackknife designs: of means over classes, and of means over rows."""
    over_classes = jackknife.design(present)
    over_rows = jackknife.design(present.sum(axis=1, keepdims=True))
    return {m.name: over_classes if m.name in OVER_CLASSES else over_rows for m in wanted}


def _left_out(measured: Measured, jackknife: Jackknife, present: Array) -> dict[str, Array]:
    """Every metric without each block, shape (n_blocks,); NaN if leaving out the block loses a class."""

    def under(weights: Array) -> dict[str, Array]:
        whole = (weights @ present > 0).all(axis=1)
        # A mean over fewer classes would be a different metric.
        return {
            key: np.where(whole, values, np.nan) if key in OVER_CLASSES else values
            for key, values in measured.under(weights).items()
        }

    return jackknife.left_out(under) | measured.refitted(jackknife)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """One method on one table: its metrics under any weights of the groups."""

    table: Combined
    labels: Ints
    groups: Ints
    sums: GroupSums
    metrics: Sequence[Metric]
    values: dict[str, float]
    resamplers: dict[str, Resampler]

    @staticmethod
    def of(
        table: Combined, labels: Ints, groups: Ints, metrics: Sequence[Metric], is_weighted: bool
    ) -> Measured:
        sums = sums_by_group(labels, table.proba, table.predicted, groups)
        of_table = [m for m in metrics if m.of_table is not None]
        values = {m.name: m.of(labels, table.proba, table.predicted) for m in of_table}
        resamplers = {
            m.name: RESAMPLERS[m.name](*m.swapped(labels, table.proba), groups, table.predicted)
            for m in of_table
            if is_weighted and m.name in RESAMPLERS
        }
        return Measured(table, labels, groups, sums, metrics, values, resamplers)

    def value(self, wanted: Metric) -> float:
        """The metric of the whole table."""
        if wanted.of_sums is not None:
            return float(wanted.of_sums(self.sums.total()))
        return self.values[wanted.name]

    def under(self, weights: Array) -> dict[str, Array]:
        """Metrics under group weights (n, n_groups), shape (n,); without metrics that need a refit."""
        drawn = self.sums.weighted(weights)
        out = {m.name: m.of_sums(drawn) for m in self.metrics if m.of_sums is not None}
        return out | {name: one(weights) for name, one in self.resamplers.items()}

    def refitted(self, jackknife: Jackknife) -> dict[str, Array]:
        """Metrics whose bins or fit depend on all rows, computed again without each block."""
        names = {m.name: m for m in self.metrics}
        found: dict[str, Array] = {}
        if set(names) & set(REBINNED):
            confidence, hit = confidence_and_hit(
                self.labels, self.table.proba, self.table.predicted
            )
            bins = mass_bins_without(confidence, hit, self.groups, jackknife.blocks)
            found = {k: of_bins(bins) for k, of_bins in REBINNED.items() if k in names}
        slope = names.get("calibration_slope")
        if slope is not None and len(jackknife.blocks) * len(self.labels) <= MAX_REFITTED:
            found[slope.name] = slopes_without(
                self.labels, self.table.proba, self.groups, jackknife.blocks
            )
        return found
