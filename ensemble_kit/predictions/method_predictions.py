"""The predictions of one method: probabilities and classes, with labels, groups and ids of the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Bools, Ints
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.predictions.table import Predictions

ABSTAINED = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Combined:
    """Probabilities and classes of some rows.

    Parameters
    ----------
    proba : array of float64, shape (n_samples, n_classes)
        Rows sum to 1.
    predicted : array of int64, shape (n_samples,)
        Class index, or -1 if the method abstained.
    tied : array of bool, shape (n_samples,)
        Whether several classes were equal and the tie rule decided.
    """

    proba: Array
    predicted: Ints
    tied: Bools

    @property
    def n_ties(self) -> int:
        return int(self.tied.sum())

    @property
    def n_abstained(self) -> int:
        return int((self.predicted == ABSTAINED).sum())

    def take(self, rows: npt.ArrayLike) -> Self:
        """The rows of a boolean mask or of positions."""
        rows = np.asarray(rows)
        return dataclasses.replace(
            self, proba=self.proba[rows], predicted=self.predicted[rows], tied=self.tied[rows]
        )

    @classmethod
    def scattered(cls, parts: Sequence[tuple[npt.ArrayLike, Combined]], n_samples: int) -> Combined:
        """Predictions of parts of the rows, put together.

        Parameters
        ----------
        parts : sequence of (rows, Combined)
            Positions of the rows of each part; together they are all rows.
        n_samples : int
        """
        n_classes = parts[0][1].proba.shape[1]
        out = Combined(
            np.empty((n_samples, n_classes)),
            np.empty(n_samples, dtype=np.int64),
            np.empty(n_samples, dtype=bool),
        )
        for rows, one in parts:
            at = np.asarray(rows)
            out.proba[at], out.predicted[at], out.tied[at] = one.proba, one.predicted, one.tied
        return out


# Combined, or a subclass.
Some = TypeVar("Some", bound=Combined)


def decided(proba: Array) -> Combined:
    """The class of highest probability per row; of tied classes the last one, counted as a tie.

    Class lists run from harmless to harmful, so a tie is decided for the later class.

    Examples
    --------
    >>> out = decided(np.array([[0.5, 0.5], [0.9, 0.1]]))
    >>> out.predicted.tolist(), out.n_ties
    ([1, 0], 1)
    """
    top = proba.max(axis=1)
    level = proba == top[:, None]
    last = proba.shape[1] - 1 - level[:, ::-1].argmax(axis=1)
    return Combined(proba, last.astype(np.int64), level.sum(axis=1) > 1)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MethodPredictions(Combined):
    """The predictions of one method for labelled rows.

    Parameters
    ----------
    proba, predicted, tied : arrays
        As in `Combined`.
    labels : array of int64, shape (n_samples,)
        Indices into `class_names`.
    groups, ids : array of str, shape (n_samples,)
        The group (patient) and the id of each row.
    fold : array of int64, shape (n_samples,)
        The fold whose models did not see the row; all -1 without folds.
    class_names : tuple of str
    part : {"oof", "test"}
    group_kind, split_by : str
        As in `Predictions`.
    ordinal : bool
        Whether the classes are ordered.
    """

    labels: Ints
    groups: npt.NDArray[np.str_]
    ids: npt.NDArray[np.str_]
    fold: Ints
    class_names: tuple[str, ...]
    part: str = "oof"
    group_kind: str = "group"
    split_by: str = "group"
    ordinal: bool = False

    @classmethod
    def of(cls, combined: Combined, table: Predictions) -> MethodPredictions:
        """Predictions for the rows of a table."""
        return cls(
            proba=combined.proba, predicted=combined.predicted, tied=combined.tied,
            labels=np.asarray(table.labels), groups=table.groups, ids=table.sample_ids,
            fold=np.asarray(table.fold), class_names=table.class_names, part=table.kind,
            group_kind=table.group_kind, split_by=table.split_by, ordinal=table.ordinal,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    def take(self, rows: npt.ArrayLike) -> Self:
        """The rows of a boolean mask or of positions."""
        rows = np.asarray(rows)
        return dataclasses.replace(
            super().take(rows), labels=self.labels[rows], groups=self.groups[rows],
            ids=self.ids[rows], fold=self.fold[rows],
        )  # fmt: skip

    def aligned(self, ids: Sequence[str], class_names: tuple[str, ...]) -> Self:
        """The rows with these ids, in this order, with the classes in this order.

        Raises
        ------
        DataError
            The class names differ, or an id is missing.
        """
        if set(self.class_names) != set(class_names):
            raise DataError(
                f"The predictions have the classes {first_few(self.class_names)}",
                f"the classes must be {first_few(class_names)}",
                "Use predictions of the same classes",
            )
        by_name = np.array([self.class_names.index(name) for name in class_names])
        new = np.append(np.argsort(by_name), ABSTAINED)
        rows = self.take(positions(self.ids, ids))
        return dataclasses.replace(
            rows, proba=rows.proba[:, by_name], predicted=new[rows.predicted],
            labels=new[rows.labels], class_names=class_names,
        )  # fmt: skip


def positions(
    have: Sequence[str] | npt.NDArray[np.str_], want: Sequence[str] | npt.NDArray[np.str_]
) -> Ints:
    """Position of each wanted id in `have`, shape (n_wanted,).

    Raises
    ------
    DataError
        A wanted id is missing.

    Examples
    --------
    >>> positions(["a", "b", "c"], ["c", "a"]).tolist()
    [2, 0]
    """
    place: Mapping[str, int] = {name: i for i, name in enumerate(np.asarray(have).tolist())}
    wanted = np.asarray(want).tolist()
    if missing := [name for name in wanted if name not in place]:
        raise DataError(
            f"{len(missing)} ids are missing: {first_few(missing)}",
            "rows are joined by id, and every id is needed",
            "Use predictions of the same images",
        )
    return np.array([place[name] for name in wanted], dtype=np.int64)
