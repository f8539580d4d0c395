"""Read the file of one imported member: a table with ids and class names, or an array.

Columns and rows of tables are found by name.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.evaluation.imports.numbers import array_of, numbers_of
from ensemble_kit.evaluation.imports.values import Values, looks_like_proba
from ensemble_kit.formulas import unguarded
from ensemble_kit.manifest.columns import (
    FOLDS,
    GROUPS,
    IDS,
    LABELS,
    SPLITS,
    known_columns,
)
from ensemble_kit.tables import as_list, read_table

PREFIXES = ("", "p_", "prob_", "proba_")
PREDICTIONS = ("predicted", "prediction", "pred", "predicted_class", "predicted_label")
ROW_NUMBERS = "Unnamed: 0"


@dataclasses.dataclass(frozen=True, eq=False)
class MemberFile:
    """The content of a member's file.

    Parameters
    ----------
    name : str
        The member.
    path : path
    numbers : array of float64, shape (n_rows, n_columns)
    class_names : tuple of str or None
        The class of each column; None for an array.
    ids : list of str or None
        The image of each row; None for an array.
    labels : list of str or None
        The true class of each row; None if the file does not have it.
    decimals : int
        The largest number of decimals in the file; 0 if it is not known.
    messages : tuple of str
        How the file was read.
    """

    name: str
    path: str
    numbers: Array
    class_names: tuple[str, ...] | None = None
    ids: list[str] | None = None
    labels: list[str] | None = None
    decimals: int = 0
    messages: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Name of the file in messages."""
        return f"'{self.path}' of member '{self.name}'"

    def values(self, class_names: Sequence[str], ids: Sequence[str]) -> Values:
        """The numbers with one column per class, in that order; `ids` are the rows of an array."""
        if self.class_names is None or self.ids is None:
            self._refuse_other_shape(class_names, len(ids))
            return Values(self.where, self.numbers, ids)
        columns = [self._column(name) for name in class_names]
        return Values(self.where, self.numbers[:, columns], self.ids, self.decimals)

    def _refuse_other_shape(self, class_names: Sequence[str], n_rows: int) -> None:
        n, n_columns = self.numbers.shape
        if n != n_rows:
            raise DataError(
                f"{self.where} has {n} rows, the labels have {n_rows}",
                "the rows of an array are in the order of the labels",
                "Use a CSV with a column of image ids, which is joined by id",
            )
        if n_columns != len(class_names):
            raise DataError(
                f"{self.where} has {n_columns} columns for the {len(class_names)} classes "
                f"{first_few(class_names, 12)}",
                "an array has one column for each class",
                "Name all classes in the order of the columns: --classes A,B,...",
            )

    def _column(self, name: str) -> int:
        have = self.class_names or ()
        if name in have:
            return have.index(name)
        raise DataError(
            f"{self.where} has no column for class '{name}': its classes are {first_few(have, 12)}",
            "each member has one column for each class",
            did_you_mean(name, have),
        )


def read_member_file(
    name: str, path: str | os.PathLike[str], class_names: Sequence[str], *, may_add: bool
) -> MemberFile:
    """Read a member's file.

    Parameters
    ----------
    name : str
    path : path
        CSV with a column of image ids and one for each class (`benign` or `p_benign`), or `.npy`.
    class_names : sequence of str
        The known classes.
    may_add : bool
        Accept other columns as classes if rows sum to 1 (or 100) only with them.

    Raises
    ------
    DataError
        The file is missing, is neither a table nor an array, has no column of ids, a cell that is
        not a number, or an unknown column.
    """
    where = f"'{path}' of member '{name}'"
    if not Path(path).is_file():
        raise DataError(
            f"Member '{name}' has no file '{path}'",
            "a member is given as NAME=FILE",
            "Check the path",
        )
    if Path(path).suffix.lower() == ".npy":
        return MemberFile(name, str(path), array_of(where, path))
    read = read_table(path)
    table = read.frame
    prefix = _prefix(table, class_names)
    of_class = {c: f"{prefix}{c}" for c in class_names if f"{prefix}{c}" in table}
    rest = [str(c) for c in table.columns if c not in of_class.values()]
    named = _id_column(table[rest], where)
    others = [
        *known_columns(rest, (*LABELS, *GROUPS, *FOLDS, *SPLITS, *PREDICTIONS, *IDS)),
        ROW_NUMBERS,
    ]
    # If the class columns have a prefix, e.g. in the table of `predict`, other columns are no classes.
    unused = [
        c for c in rest if c != named and (c in others or (prefix and not c.startswith(prefix)))
    ]
    extra = [c for c in rest if c not in (named, *unused)]
    numbers, decimals = numbers_of(read, [*of_class.values(), *extra], named)
    read_values = Values(where, numbers, (), decimals)
    if extra and not (may_add and _are_classes(read_values, n_known=len(of_class))):
        raise _unknown_columns(extra, class_names, where)
    truth = _truth(table[unused], class_names)
    notes = [f"{where}: columns {prefix}CLASS are its predictions."] if prefix else []
    if unused:
        notes.append(f"{where}: columns {first_few(unused, 8)} are not used as predictions.")
    return MemberFile(
        name,
        str(path),
        numbers,
        (*of_class, *(c.removeprefix(prefix) for c in extra)),
        [unguarded(i) for i in table[named]],
        None if truth is None else [unguarded(c) for c in table[truth]],
        decimals,
        tuple(notes),
    )


def _truth(unused: pd.DataFrame, class_names: Sequence[str]) -> str | None:
    """The column with the true classes; None if there is none."""
    found = known_columns(unused.columns, LABELS)
    return next((c for c in found if set(unused[c].map(unguarded)) <= set(class_names)), None)


def _prefix(table: pd.DataFrame, class_names: Sequence[str]) -> str:
    """The prefix of the class columns: empty, or e.g. `p_` as in the files of `stack`."""
    complete = [p for p in PREFIXES if all(f"{p}{c}" in table for c in class_names)]
    return complete[0] if complete else ""


def _id_column(table: pd.DataFrame, where: str) -> str:
    found = known_columns(table.columns, IDS)
    if not found and ROW_NUMBERS in table:
        return ROW_NUMBERS  # a first column without a name: row names of R or pandas
    if found:
        return next((c for c in found if table[c].is_unique), found[0])
    raise DataError(
        f"{where} has no column of image ids: its columns that are not classes are "
        f"{first_few(table.columns, 12) or 'none'}",
        f"known names are {first_few(IDS, 8)}",
        "Rename that column to sample_id",
    )


def _are_classes(values: Values, n_known: int) -> bool:
    """Whether rows are probabilities with all columns, but not with the first `n_known` only."""
    values = dataclasses.replace(values, numbers=values.numbers[~np.isnan(values.numbers).any(1)])
    fewer = dataclasses.replace(values, numbers=values.numbers[:, :n_known])
    return looks_like_proba(values) and not looks_like_proba(fewer)


def _unknown_columns(extra: Sequence[str], class_names: Sequence[str], where: str) -> DataError:
    return DataError(
        f"{where} has the columns {first_few(map(repr, extra))}, which are not classes",
        f"the classes are {as_list(list(class_names))}",
        "Remove those columns. If they are classes without an image, name all classes: --classes",
    )
