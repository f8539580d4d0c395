"""Costs of misclassification: a matrix with class names on both axes, and decisions of least expected cost.

Costs are joined to a table by class name, never by position.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.files import read_toml
from ensemble_kit.predictions.method_predictions import Some
from ensemble_kit.tables import read_table

EXPECTED_COST = "expected_cost"
# The column of true classes. No class has this name, because names have no outer white space.
TRUE = " "


@dataclasses.dataclass(frozen=True)
class CostMatrix:
    """Costs of predicting one class for another.

    Parameters
    ----------
    class_names : tuple of str
    rows : tuple of tuples of float
        `rows[i][j]` is the cost of predicting class j for true class i; at least 0.
    """

    class_names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    def of(self, class_names: Sequence[str]) -> Array:
        """The matrix in the order of `class_names`, shape (n_classes, n_classes).

        Raises
        ------
        DataError
            The costs have other classes.
        """
        lacking = [name for name in class_names if name not in self.class_names]
        unknown = [name for name in self.class_names if name not in class_names]
        if lacking or unknown:
            raise DataError(
                f"The cost table does not match the classes of the run: {_difference(lacking, unknown)}",
                "it needs exactly these classes on both axes",
                f"Name exactly these classes: {', '.join(class_names)}",
            )
        order = [self.class_names.index(name) for name in class_names]
        return np.array(self.rows, dtype=np.float64)[np.ix_(order, order)]

    def as_mapping(self) -> dict[str, dict[str, float]]:
        """Costs by true class, then by predicted class."""
        return {
            true: dict(zip(self.class_names, row, strict=True))
            for true, row in zip(self.class_names, self.rows, strict=True)
        }


def _difference(lacking: Sequence[str], unknown: Sequence[str]) -> str:
    parts = []
    if lacking:
        parts.append(f"missing: {first_few(map(repr, lacking))}")
    if unknown:
        parts.append(f"unknown: {first_few(map(repr, unknown))}")
    return "; ".join(parts)


def read_costs(path: str | os.PathLike[str]) -> CostMatrix:
    """Costs from a CSV or TOML file.

    CSV: a header `true,<class>,<class>,...` of predicted classes, then one row per true class. TOML:
    one table per true class, with the cost of each predicted class. The diagonal of a TOML table may
    be left out; it is 0.

    Raises
    ------
    DataError
        The axes have different or repeated classes, or a cost is missing, negative or not a number.
    """
    source = Path(path)
    if source.suffix.lower() == ".toml":
        table = _of_toml(source)
    else:
        table = _of_csv(source)
    names = list(table)
    for true, row in table.items():
        lacking = [name for name in names if name not in row]
        unknown = [name for name in row if name not in names]
        if lacking or unknown:
            raise DataError(
                f"'{source}', row {true!r}: {_difference(lacking, unknown)}",
                "both axes need the same class names",
                "Give each true class a cost for each predicted class",
            )
    rows = tuple(
        tuple(_cost(table[true][prediction], source, true, prediction) for prediction in names)
        for true in names
    )
    if len(names) < 2 or not any(map(any, rows)):
        raise DataError(
            f"'{source}' has {len(names)} classes and {sum(map(any, rows))} rows with a cost above 0",
            "at least two classes and one cost above 0 are needed",
            "Give at least one error a cost",
        )
    return CostMatrix(tuple(names), rows)


def _of_toml(source: Path) -> dict[str, Mapping[str, Any]]:
    table = read_toml(source)
    if wrong := [true for true, row in table.items() if not isinstance(row, dict)]:
        raise DataError(
            f"'{source}': {wrong[0]!r} is not a table",
            "costs in TOML are one table for each true class",
            "Write e.g. [malignant] and below it benign = 10",
        )
    return {true: {true: 0.0, **row} for true, row in table.items()}


def _of_csv(source: Path) -> dict[str, Mapping[str, Any]]:
    frame = read_table(source, first=TRUE).frame
    true = frame.pop(TRUE).tolist()
    if twice := [name for name in true if true.count(name) > 1]:
        raise DataError(
            f"'{source}' has two rows for class {twice[0]!r}",
            "each class has one row and one column of costs",
            "Remove one of them",
        )
    return {name: dict(row) for name, row in zip(true, frame.to_dict("records"), strict=True)}


def _cost(value: Any, source: Path, true: str, prediction: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise DataError(
            f"'{source}' has {value!r} as the cost of predicting {prediction!r} for {true!r}",
            "a cost is a number of at least 0",
            "Correct that cell",
        )
    return number


def least_cost(combined: Some, costs: Array) -> Some:
    """The same probabilities, with the class of least expected cost as the predicted class.

    Of classes with equal cost, the last is predicted and counted as a tie. Abstentions do not change.

    Parameters
    ----------
    combined : Combined
    costs : array, shape (n_classes, n_classes)
        True class by predicted class.

    References
    ----------
    Elkan, C. (2001). The foundations of cost-sensitive learning. IJCAI, 973-978.

    Examples
    --------
    >>> from ensemble_kit.predictions.method_predictions import decided
    >>> costs = np.array([[0.0, 1.0], [10.0, 0.0]])
    >>> least_cost(decided(np.array([[0.85, 0.15], [0.95, 0.05]])), costs).predicted.tolist()
    [1, 0]
    """
    expected = combined.proba @ costs  # (n_samples, n_predicted)
    level = np.isclose(expected, expected.min(axis=1, keepdims=True), rtol=1e-12, atol=1e-15)
    last = expected.shape[1] - 1 - level[:, ::-1].argmax(axis=1)
    undecided = combined.predicted < 0
    return dataclasses.replace(
        combined,
        predicted=np.where(undecided, combined.predicted, last).astype(np.int64),
        tied=np.where(undecided, combined.tied, level.sum(axis=1) > 1),
    )
