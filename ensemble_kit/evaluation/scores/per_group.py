"""Metrics per patient: images of a group pooled into one prediction, and the patient recognition rate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.errors import DataError, UsageError, counted, did_you_mean, first_few
from ensemble_kit.evaluation.protocol import POOLING, Protocol
from ensemble_kit.evaluation.scores.per_image import MetricValues, Scored, score_methods
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.jackknife import Jackknife
from ensemble_kit.evaluation.uncertainty.t_intervals import interval_of
from ensemble_kit.metrics import Metric
from ensemble_kit.metrics.costs import EXPECTED_COST
from ensemble_kit.predictions.method_predictions import Combined, MethodPredictions, decided
from ensemble_kit.predictions.table import Predictions

EXACT_DECIMALS = 12
PER_GROUP_METRICS = ("accuracy", "balanced_accuracy", "auroc")


def pooled(
    combined: Combined, labels: Ints, groups: npt.ArrayLike, rule: str = "mean"
) -> tuple[Combined, Ints, npt.NDArray[np.str_]]:
    """One prediction per group.

    Parameters
    ----------
    combined : Combined
        Predictions per image.
    labels : array of int, shape (n_samples,)
        All images of a group must have the same label.
    groups : array-like, shape (n_samples,)
    rule : {"mean", "vote", "max"}
        `mean`: mean of the probabilities. `vote`: share of the images' votes; a tie goes to the
        class of highest mean probability. `max`: highest probability per class, normalised.

    Returns
    -------
    Combined, labels, names
        Per group, in the order of the names.

    Raises
    ------
    DataError
        The images of a group have several labels.
    """
    if rule not in POOLING:
        raise UsageError(
            f"Unknown pooling rule '{rule}'",
            f"the rules are {', '.join(POOLING)}",
            did_you_mean(rule, POOLING),
        )
    names, numbered = np.unique(np.asarray(groups), return_inverse=True)
    first = np.unique(numbered, return_index=True)[1]
    mixed = np.unique(numbered[labels != labels[first][numbered]])
    if len(mixed):
        raise DataError(
            f"{counted(len(mixed), 'group', 'has')} images of several classes: {first_few(names[mixed])}",
            "metrics per group need one label per group",
            "Evaluate per image, or group by slide",
        )
    found = decided(_pool(combined, numbered, len(names), rule))
    if rule == "vote" and found.n_ties:
        found = _likeliest_of_tied(found, _pool(combined, numbered, len(names), "mean"))
    return found, labels[first], names


def per_group(images: MethodPredictions) -> MethodPredictions:
    """One row per group: the mean of the probabilities of its images; ids are the groups' names.

    Raises
    ------
    DataError
        The images of a group have several labels.
    """
    combined, labels, names = pooled(images, images.labels, images.groups)
    first = np.unique(images.groups, return_index=True)[1]
    return dataclasses.replace(
        images, proba=combined.proba, predicted=combined.predicted, tied=combined.tied,
        labels=labels, groups=names, ids=names, fold=images.fold[first],
    )  # fmt: skip


def _likeliest_of_tied(votes: Combined, mean: Array) -> Combined:
    """Tied votes go to the class of highest mean probability, and still count as ties."""
    level = votes.proba == votes.proba.max(axis=1, keepdims=True)
    likeliest = decided(np.where(level, mean, -1.0)).predicted
    return Combined(votes.proba, np.where(votes.tied, likeliest, votes.predicted), votes.tied)


def _pool(combined: Combined, numbered: Ints, n_groups: int, rule: str) -> Array:
    n_classes = combined.proba.shape[1]
    support = np.zeros((n_groups, n_classes))
    if rule == "max":
        np.maximum.at(support, numbered, combined.proba)
    elif rule == "vote":
        has_class = combined.predicted >= 0
        np.add.at(support, (numbered[has_class], combined.predicted[has_class]), 1.0)
    else:
        np.add.at(support, numbered, combined.proba)
    total = support.sum(axis=1, keepdims=True)
    pooled = np.where(total > 0, support / np.where(total > 0, total, 1.0), 1.0 / n_classes)
    # Sums of vote shares differ in the last bits with the order of the images; rounding keeps ties.
    return np.asarray(np.round(pooled, EXACT_DECIMALS))


@dataclasses.dataclass(frozen=True)
class GroupMetrics:
    """Metrics of one method per patient.

    Parameters
    ----------
    n_groups : int
    recognition_rate : Interval
        Mean over patients of the accuracy on their images.
    values : MetricValues or None
        One pooled prediction per patient; None if a patient's images have several labels.
    rule : str
        How images were pooled.

    References
    ----------
    Spanhol, F. A., Oliveira, L. S., Petitjean, C., & Heutte, L. (2016). A dataset for breast cancer
    histopathological image classification. IEEE TBME 63(7), 1455-1462 (the recognition rate).
    """

    n_groups: int
    recognition_rate: Interval
    values: MetricValues | None
    rule: str = "mean"


def has_larger_groups(table: Predictions | MethodPredictions) -> bool:
    """Whether groups are known, and at least one has several images."""
    return table.group_kind != "image" and table.n_groups < len(table)


def metrics_per_group(
    parts: Mapping[str, Mapping[str, Combined]],
    tables: Mapping[str, Predictions],
    protocol: Protocol,
) -> dict[str, dict[str, GroupMetrics]]:
    """Metrics per patient by part and method; empty if every image is its own group.

    Parameters
    ----------
    parts : mapping of part to mapping of method to Combined
        Predictions per image.
    tables : mapping of part to Predictions
        Labels and groups of these images.
    """
    metrics = [*PER_GROUP_METRICS, *((EXPECTED_COST,) if protocol.costs is not None else ())]
    return {
        part: score_groups(
            methods,
            np.asarray(tables[part].labels),
            tables[part].groups,
            tables[part].n_classes,
            rule=protocol.pool,
            decide=functools.partial(protocol.decided, class_names=tables[part].class_names),
            metrics=[protocol.resolved(name, tables[part].class_names) for name in metrics],
            level=protocol.level,
            intervals=protocol.intervals,
        )
        for part, methods in parts.items()
        if has_larger_groups(tables[part])
    }


def score_groups(
    tables: Mapping[str, Combined],
    labels: Ints,
    groups: npt.ArrayLike,
    n_classes: int,
    *,
    rule: str = "mean",
    decide: Callable[[Combined], Combined] = lambda one: one,
    metrics: Sequence[str | Metric] = PER_GROUP_METRICS,
    level: float = 0.95,
    intervals: bool = True,
) -> dict[str, GroupMetrics]:
    """Metrics per patient of several methods, with intervals over patients.

    Parameters
    ----------
    tables : mapping of method to Combined
        Predictions per image.
    labels : array of int, shape (n_samples,)
    groups : array-like, shape (n_samples,)
    rule : {"mean", "vote", "max"}
    decide : callable, optional
        Changes the predicted classes of pooled predictions, e.g. to those of least expected cost.
        Not applied to the oracle, which uses the labels.
    metrics : sequence of str or Metric
        Metrics of the pooled predictions.
    level : float
        Confidence level of the intervals, e.g. 0.95.
    intervals : bool
        Whether to compute intervals.

    Examples
    --------
    >>> one = decided(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]))
    >>> found = score_groups({"mean": one}, np.array([0, 0, 1]), ["a", "a", "b"], 2)["mean"]
    >>> found.values["accuracy"].value, found.recognition_rate.value
    (1.0, 0.75)
    """
    names, numbered = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(numbered)
    scored: dict[str, Scored] = {}
    if not is_mixed(labels, groups):
        first = np.unique(numbered, return_index=True)[1]
        per_group = {name: pooled(one, labels, groups, rule)[0] for name, one in tables.items()}
        scored = score_methods(
            {n: one if n == "oracle" else decide(one) for n, one in per_group.items()},
            labels[first], names, n_classes, metrics=metrics, level=level, intervals=intervals,
        )  # fmt: skip
    jackknife = Jackknife.of(labels, numbered, n_classes) if intervals else None
    return {
        name: GroupMetrics(
            len(names),
            _rate_interval(
                np.bincount(numbered, weights=one.predicted == labels) / sizes,
                sizes, jackknife, level,
            ),
            scored[name].values if name in scored else None,
            rule,
        )
        for name, one in tables.items()
    }  # fmt: skip


def _rate_interval(
    rate: Array, sizes: Array, jackknife: Jackknife | None, level: float
) -> Interval:
    """Mean of the groups' rates, with its interval."""
    value = float(rate.mean())
    if jackknife is None or not len(jackknife.blocks):
        return Interval(value)
    design = jackknife.design(np.ones((len(rate), 1)), rows=sizes)
    left_out = jackknife.left_out(lambda w: {"rate": w @ rate / w.sum(axis=1)})["rate"]
    return interval_of(value, left_out, design, level=level, of_decisions=True)


def is_mixed(labels: Ints, groups: npt.ArrayLike) -> bool:
    """Whether the images of some group have several labels."""
    _, first, numbered = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    return bool((labels != labels[first][numbered]).any())
