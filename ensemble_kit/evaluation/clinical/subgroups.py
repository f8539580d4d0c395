"""Metrics by subgroup: one column of the manifest, such as site, scanner, stain or magnification."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.errors import UsageError, did_you_mean, first_few
from ensemble_kit.evaluation.clinical.one_class import OneClass
from ensemble_kit.evaluation.clinical.predictive_values import predictive_values
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.manifest.names import in_natural_order
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.metrics import OVER_CLASSES
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions

MAX_SUBGROUPS = 30
NOT_GIVEN = "(not given)"


@dataclasses.dataclass(frozen=True)
class Subgroup:
    """Metrics of one method on the rows with one value of a column.

    Parameters
    ----------
    name : str
        The value.
    n, n_groups : int
    metric : Interval
        The protocol's metric. Undefined if it averages over classes and a class is missing.
    sensitivity, specificity : Interval or None
        For the positive class; None if it is not known.
    missing_classes : tuple of str
        Classes of the whole part that the subgroup does not have.
    remark : str
        Why a value or an interval is missing; else empty.
    """

    name: str
    n: int
    n_groups: int
    metric: Interval
    sensitivity: Interval | None
    specificity: Interval | None
    missing_classes: tuple[str, ...]
    remark: str


def column_of(manifest: Manifest, column: str, sample_ids: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """The values of a column for these samples, as text.

    Raises
    ------
    UsageError
        The column is unknown, or has too many different values.
    """
    if column not in manifest.table:
        known = [name for name in manifest.table if manifest.table[name].nunique() <= MAX_SUBGROUPS]
        raise UsageError(
            f"The manifest has no column '{column}'",
            "subgroups are the values of one of its columns",
            did_you_mean(column, known),
        )
    values = manifest.table[column].map(_as_text)
    if (n := values.nunique()) > MAX_SUBGROUPS:
        raise UsageError(
            f"Column '{column}' has {n} different values",
            f"at most {MAX_SUBGROUPS} subgroups are possible",
            "Name a column of categories, such as a site or a scanner",
        )
    by_id = pd.Series(values.to_numpy(), index=manifest.sample_ids)
    return by_id.loc[np.asarray(sample_ids)].to_numpy(dtype=np.str_)


def subgroups(
    values: npt.NDArray[np.str_],
    combined: Combined,
    table: Predictions,
    protocol: Protocol,
) -> tuple[Subgroup, ...]:
    """One method's metrics for each value of a column, with intervals over groups.

    Parameters
    ----------
    values : array of str, shape (n_samples,)
    combined : Combined
        Rows as in `table`.
    table : Predictions
    protocol : Protocol
        The metric, and settings of the intervals.
    """
    given = in_natural_order(set(values.tolist()) - {NOT_GIVEN})
    names = [*given, *({NOT_GIVEN} & set(values.tolist()))]
    return tuple(_subgroup(name, values == name, combined, table, protocol) for name in names)


def _subgroup(
    name: str,
    rows: npt.NDArray[np.bool_],
    combined: Combined,
    table: Predictions,
    protocol: Protocol,
) -> Subgroup:
    labels, groups = np.asarray(table.labels)[rows], table.groups[rows]
    some, wanted = combined.take(rows), protocol.verdict_metric(table.class_names)
    scored = score_methods(
        {"it": some}, labels, groups, table.n_classes, metrics=[wanted], level=protocol.level,
        intervals=protocol.intervals,
    )["it"].values  # fmt: skip
    absent = np.setdiff1d(np.unique(table.labels), labels)
    missing = tuple(table.class_names[c] for c in absent)
    is_other = wanted.name in OVER_CLASSES and bool(missing)
    found = Interval(None) if is_other else scored[wanted.name]
    positive = protocol.positive_of(table.class_names)
    sensitivity = specificity = None
    if positive is not None:
        one = OneClass.of(
            some, labels, groups, positive, level=protocol.level, intervals=protocol.intervals
        )
        values = predictive_values(one)
        sensitivity, specificity = values.sensitivity, values.specificity
    shown = [found, sensitivity, specificity]
    return Subgroup(
        name, len(labels), scored.n_groups, found, sensitivity, specificity, missing,
        _remark(missing, shown, table.group_kind) if protocol.intervals else "",
    )  # fmt: skip


def _remark(missing: Sequence[str], found: Sequence[Interval | None], unit: str) -> str:
    sentences = [f"no image of {first_few(map(repr, missing))}"] if missing else []
    if any(one is not None and one.value is not None and one.low is None for one in found):
        sentences.append(f"too few {unit}s for an interval")
    return "; ".join(sentences)


def _as_text(value: object) -> str:
    """A value as text: whole numbers without a decimal point, `NOT_GIVEN` for empty cells."""
    if value is None or value != value:
        return NOT_GIVEN
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or NOT_GIVEN
