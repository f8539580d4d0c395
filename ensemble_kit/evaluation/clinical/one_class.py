"""One class against the rest: truth, probability and decision of each sample, and sums by group."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Bools, Ints, group_numbers
from ensemble_kit.evaluation.uncertainty.jackknife import Design, Jackknife
from ensemble_kit.predictions.method_predictions import Combined


@dataclasses.dataclass(frozen=True, eq=False)
class OneClass:
    """The positive class against the rest, as predicted by one method for one table.

    Parameters
    ----------
    positive : array of bool, shape (n_samples,)
        Whether a sample is of the class.
    proba : array, shape (n_samples,)
        Probability of the class.
    called : array, shape (n_samples,)
        1 if the method predicts the class, else 0. An abstention counts as an error.
    labels : array of int, shape (n_samples,)
    groups : array of int, shape (n_samples,)
        Group numbers from 0.
    jackknife : Jackknife or None
        None if no intervals are requested, or if no group can be left out.
    level : float
        Confidence level of the intervals, e.g. 0.95.
    """

    positive: Bools
    proba: Array
    called: Array
    labels: Ints
    groups: Ints
    jackknife: Jackknife | None
    level: float

    @staticmethod
    def of(
        combined: Combined,
        labels: npt.ArrayLike,
        groups: npt.ArrayLike,
        class_index: int,
        *,
        level: float = 0.95,
        intervals: bool = True,
    ) -> OneClass:
        """The class with this index against all others."""
        truth = np.asarray(labels, dtype=np.int64)
        numbered = group_numbers(groups)
        n_classes = combined.proba.shape[1]
        positive = truth == class_index
        called = (combined.predicted == class_index).astype(np.float64)
        # An abstention counts as an error, divided equally among the wrong classes.
        abstained = (combined.predicted < 0) & ~positive
        called[abstained] = 1.0 / max(n_classes - 1, 1)
        jackknife = Jackknife.of(truth, numbered, n_classes) if intervals and len(truth) else None
        if jackknife is not None and not len(jackknife.blocks):
            jackknife = None
        proba = combined.proba[:, class_index]
        return OneClass(positive, proba, called, truth, numbered, jackknife, level)

    @property
    def n(self) -> int:
        return len(self.labels)

    @cached_property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    @property
    def n_positive(self) -> int:
        return int(self.positive.sum())

    @property
    def n_positive_groups(self) -> int:
        return len(np.unique(self.groups[self.positive]))

    @property
    def prevalence(self) -> float:
        """Share of samples of the class."""
        return self.n_positive / self.n if self.n else float("nan")

    def by_group(self, values: Array) -> Array:
        """Sums of columns (n_samples, n_columns) by group, shape (n_groups, n_columns)."""
        n_groups = self.n_groups
        columns = [np.bincount(self.groups, weights=c, minlength=n_groups) for c in values.T]
        return np.stack(columns, axis=1) if columns else np.zeros((n_groups, 0))

    def sums(self, values: Array) -> tuple[Array, Array]:
        """Sums of columns: of all samples (n_columns,), and without each block (n_blocks, n_columns)."""
        by_group = self.by_group(values)
        if self.jackknife is None:
            return by_group.sum(axis=0), np.zeros((0, by_group.shape[1]))
        left_out = self.jackknife.left_out(lambda weights: {"sums": weights @ by_group})["sums"]
        return by_group.sum(axis=0), left_out

    def design(self, *weights: Array) -> Design | None:
        """Design of a metric that uses samples with these weights; one array per part of the metric."""
        if self.jackknife is None:
            return None
        stacked = np.stack([np.asarray(w, dtype=np.float64) for w in weights], axis=1)
        counted = self.by_group(stacked)
        used = (stacked.max(axis=1, keepdims=True) > 0).astype(np.float64)
        rows = self.by_group(used)[:, 0]
        return self.jackknife.design(counted, rows)


def ratio(above: Array, below: Array) -> Array:
    """`above / below`; NaN where `below` is 0."""
    out = np.full(np.broadcast_shapes(np.shape(above), np.shape(below)), np.nan)
    np.divide(above, below, out=out, where=np.broadcast_to(below, out.shape) > 0)
    return out
