"""What errors cost: a matrix with class names on both axes, and decisions of least expected cost.

Names join the matrix to a table, never positions. Knows no combiner.
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
# The column of true classes. No class is called so: names are read without outer white space.
TRUE = " "


@dataclasses.dataclass(frozen=True)
class CostMatrix:
    """Costs of taking one class for another.

    Parameters
    ----------
    class_names : tuple of str
    rows : tuple of tuples of float
        `rows[i][j]` is the cost of answering class j where i is true; at least 0.
    """

    class_names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    def of(self, class_names: Sequence[str]) -> Array:
        """The matrix in the order of `class_names`, shape (n_classes, n_classes).

        Raises
        ------
        DataError
            Other classes.
        """
        lacking = [name for name in class_names if name not in self.class_names]
        strange = [name for name in self.class_names if name not in class_names]
        if lacking or strange:
            raise DataError(
                "Costs are given for the run's classes, each by its name",
                _difference(lacking, strange),
                f"Name exactly these on both axes: {', '.join(class_names)}",
            )
        order = [self.class_names.index(name) for name in class_names]
        return np.array(self.rows, dtype=np.float64)[np.ix_(order, order)]

    def as_mapping(self) -> dict[str, dict[str, float]]:
        """Costs by true class, then by answer."""
        return {
            true: dict(zip(self.class_names, row, strict=True))
            for true, row in zip(self.class_names, self.rows, strict=True)
        }


def _difference(lacking: Sequence[str], strange: Sequence[str]) -> str:
    said = []
    if lacking:
        said.append(f"missing: {first_few(map(repr, lacking))}")
    if strange:
        said.append(f"unknown: {first_few(map(repr, strange))}")
    return "; ".join(said)


def read_costs(path: str | os.PathLike[str]) -> CostMatrix:
    """Costs from a CSV or TOML file.

    CSV: a header `true,<class>,<class>,...` of answers, then one row for each true class. TOML: one
    table for each true class, with the cost of each answer; a right answer left out costs 0.

    Raises
    ------
    DataError
        The axes name different classes or one twice, or a cost is missing, negative or no number.
    """
    source = Path(path)
    if source.suffix.lower() == ".toml":
        table = _of_toml(source)
    else:
        table = _of_csv(source)
    names = list(table)
    for true, row in table.items():
        lacking = [name for name in names if name not in row]
        strange = [name for name in row if name not in names]
        if lacking or strange:
            raise DataError(
                "Costs have the same class names on both axes",
                f"'{source}', where {true!r} is true: {_difference(lacking, strange)}",
                "Give each true class a cost for each answer",
            )
    rows = tuple(
        tuple(_cost(table[true][answer], source, true, answer) for answer in names)
        for true in names
    )
    if len(names) < 2 or not any(map(any, rows)):
        raise DataError(
            "Costs tell errors apart",
            f"'{source}' has {len(names)} classes and {sum(map(any, rows))} rows with a cost",
            "Give at least one error a cost above 0",
        )
    return CostMatrix(tuple(names), rows)


def _of_toml(source: Path) -> dict[str, Mapping[str, Any]]:
    table = read_toml(source)
    if wrong := [true for true, row in table.items() if not isinstance(row, dict)]:
        raise DataError(
            "Costs in TOML are one table for each true class",
            f"'{source}': {wrong[0]!r} is none",
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


def _cost(value: Any, source: Path, true: str, answer: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise DataError(
            "A cost is a number of at least 0",
            f"'{source}' has {value!r} for answering {answer!r} where {true!r} is true",
            "Mend that cell",
        )
    return number


def least_cost(combined: Some, costs: Array) -> Some:
    """The same probabilities, decided for the class of least expected cost.

    Of classes exactly level the last one, counted as a tie, as everywhere; abstentions stay.

    Parameters
    ----------
    combined : Combined
    costs : array, shape (n_classes, n_classes)
        True class by answer.

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
    expected = combined.proba @ costs  # (n_samples, n_answers)
    level = np.isclose(expected, expected.min(axis=1, keepdims=True), rtol=1e-12, atol=1e-15)
    last = expected.shape[1] - 1 - level[:, ::-1].argmax(axis=1)
    undecided = combined.predicted < 0
    return dataclasses.replace(
        combined,
        predicted=np.where(undecided, combined.predicted, last).astype(np.int64),
        tied=np.where(undecided, combined.tied, level.sum(axis=1) > 1),
    )
