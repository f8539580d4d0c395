"""How many points an image-level split flatters: the same members judged under both kinds of folds.

Does not train; takes the two out-of-fold tables.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.bootstrap import Interval, percentile_interval, resampling
from ensemble_kit.metrics.classification import accuracy, balanced_accuracy
from ensemble_kit.predictions.table import Predictions

FIGURES = {"balanced_accuracy": balanced_accuracy, "accuracy": accuracy}


@dataclasses.dataclass(frozen=True)
class Inflation:
    """One figure under both kinds of folds, on the same samples.

    Parameters
    ----------
    metric : str
    by_image, by_group : Interval
        Out-of-fold, resampled over whole groups.
    points : Interval
        `100 * (by_image - by_group)`, paired: both sides see the same resamples.
    n, n_groups : int
    group_kind : str
    """

    metric: str
    by_image: Interval
    by_group: Interval
    points: Interval
    n: int
    n_groups: int
    group_kind: str

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.by_image} in image-level folds, {self.by_group} in {self.group_kind}-level "
            f"folds: inflated by {_points(self.points)} points (n = {self.n}, {self.n_groups} {self.group_kind}s)"
        )


def inflation(
    by_image: Predictions,
    by_group: Predictions,
    *,
    metric: str = "balanced_accuracy",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Inflation:
    """The inflation of the members' mean probability, on the samples that both tables hold.

    Parameters
    ----------
    by_image, by_group : Predictions
        Out-of-fold tables of the same members, from folds split by image and by group.
    metric : {"balanced_accuracy", "accuracy"}
    n_resamples, seed, level
        Of the bootstrap over whole groups.

    Raises
    ------
    DataError
        Tables of other classes or members, swapped ones, or none in common.
    """
    _check(by_image, by_group, metric)
    ids = np.intersect1d(by_image.sample_ids, by_group.sample_ids)
    if not len(ids):
        raise DataError(
            "Both tables hold the same samples",
            "they have none in common",
            "Use runs of one data set",
        )
    rows = [_rows(table, ids) for table in (by_image, by_group)]
    labels = by_group.labels[rows[1]]
    if not np.array_equal(by_image.labels[rows[0]], labels):
        raise DataError(
            "A sample has one label", "the two tables disagree", "Use runs of one data set"
        )
    _, groups = np.unique(by_group.groups[rows[1]], return_inverse=True)
    n_classes = len(by_group.class_names)
    tables = [
        _per_group(_predicted(table, row), labels, groups, n_classes)
        for table, row in zip((by_image, by_group), rows, strict=True)
    ]
    values = [float(FIGURES[metric](table.sum(axis=0))) for table in tables]
    drawn: list[list[Array]] = [[], []]
    for weights in resampling(labels, groups, n_classes, n_resamples, seed):
        for side, table in zip(drawn, tables, strict=True):
            side.append(FIGURES[metric](np.einsum("rg,gtp->rtp", weights, table)))
    image, group = (np.concatenate(side) for side in drawn)
    return Inflation(
        metric=metric,
        by_image=_interval(values[0], image, level),
        by_group=_interval(values[1], group, level),
        points=_interval(100 * (values[0] - values[1]), 100 * (image - group), level),
        n=len(ids),
        n_groups=int(groups.max()) + 1,
        group_kind=by_group.group_kind,
    )


def _check(by_image: Predictions, by_group: Predictions, metric: str) -> None:
    if metric not in FIGURES:
        raise DataError(
            f"The figure is one of {', '.join(FIGURES)}", f"got '{metric}'", "Choose one of those"
        )
    if by_image.split_by != "image" or by_group.split_by != "group":
        raise DataError(
            "Inflation compares image-level folds with group-level folds",
            f"got tables split by {by_image.split_by} and by {by_group.split_by}",
            "Train one run with --split-by image and one with --split-by group",
        )
    for what in ("class_names", "member_names"):
        one, other = getattr(by_image, what), getattr(by_group, what)
        if one != other:
            raise DataError(
                f"Both tables have the same {what}",
                f"got {', '.join(one)} and {', '.join(other)}",
                "Train both alike",
            )


def _rows(table: Predictions, ids: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    order = np.argsort(table.sample_ids)
    return order[np.searchsorted(table.sample_ids, ids, sorter=order)]


def _predicted(table: Predictions, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    logits = table.logits[rows]
    if np.isnan(logits).any():
        raise DataError(
            "Every member has predicted every sample",
            "some rows are missing",
            "Finish both runs first",
        )
    return np.asarray(softmax(logits).mean(axis=1).argmax(axis=1), dtype=np.int64)


def _per_group(
    predicted: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    n_classes: int,
) -> Array:
    """Confusion counts of each group, shape (n_groups, n_classes, n_classes)."""
    counts = np.zeros((int(groups.max()) + 1, n_classes, n_classes))
    np.add.at(counts, (groups, labels, predicted), 1.0)
    return counts


def _interval(value: float, resampled: Array, level: float) -> Interval:
    ends = percentile_interval(resampled, level)
    return Interval(value) if ends is None else Interval(value, *ends)


def _points(interval: Interval) -> str:
    ends = "" if interval.low is None else f" [{interval.low:.1f}, {interval.high:.1f}]"
    return f"{interval.value:.1f}{ends}"
