"""Confusion matrices of resamples of groups, stored as sums per class and as sparse cells.

Memory grows with the number of samples, not with the number of groups times the squared number of
classes.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ensemble_kit.arrays import Array, Ints

# Tables of up to this many numbers (32 MB) are stored in full: products with them are faster.
MAX_FULL = 1 << 22


@dataclasses.dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion matrices with any leading axes.

    Parameters
    ----------
    found : array, shape (..., n_classes)
        The diagonal.
    true, predicted : array, shape (..., n_classes)
        Counts per true class, and per predicted class.
    cells : array or sparse array, shape (n_groups, n_classes ** 2)
        True class by predicted class. Without `weights`: in full, with the leading axes.
    weights : array, shape (..., n_groups), optional
        How often each group counts in each matrix.
    """

    found: Array
    true: Array
    predicted: Array
    cells: Any
    weights: Array | None = None

    @staticmethod
    def of(matrices: Confusion | npt.ArrayLike) -> Confusion:
        """From matrices in full, shape (..., n_classes, n_classes)."""
        if isinstance(matrices, Confusion):
            return matrices
        full = np.asarray(matrices, dtype=np.float64)
        found = np.diagonal(full, axis1=-2, axis2=-1)
        cells = full.reshape(*full.shape[:-2], -1)
        return Confusion(found, full.sum(axis=-1), full.sum(axis=-2), cells)

    @property
    def n(self) -> Array:
        """Number of samples, shape (...)."""
        return np.asarray(self.true.sum(axis=-1))

    def total(self, costs: Array) -> Array:
        """Sum of all cells times `costs`, shape (n_classes, n_classes); the result has shape (...)."""
        per_group = self.cells @ costs.ravel()
        return per_group if self.weights is None else np.asarray(self.weights @ per_group)

    @cached_property
    def full(self) -> Array:
        """The matrices in full, shape (..., n_classes, n_classes)."""
        flat = self.cells if self.weights is None else self.weights @ self.cells
        n_classes = self.found.shape[-1]
        return np.asarray(flat).reshape(*flat.shape[:-1], n_classes, n_classes)


@dataclasses.dataclass(frozen=True, eq=False)
class GroupConfusions:
    """One confusion matrix per group.

    Parameters
    ----------
    cells : array or sparse array, shape (n_groups, n_classes ** 2)
    margins : array or sparse array, shape (n_groups, 3 * n_classes)
        The diagonal, the counts per true class, the counts per predicted class.
    """

    cells: Any
    margins: Any

    @staticmethod
    def of(labels: Ints, predicted: Ints, groups: Ints, n_classes: int) -> GroupConfusions:
        """Counts of the samples.

        Parameters
        ----------
        labels : array of int, shape (n_samples,)
        predicted : array of int, shape (n_samples,)
            -1 for an abstention: an error, divided evenly among the wrong classes.
        groups : array of int, shape (n_samples,)
            Numbered `0 .. n_groups - 1`.
        """
        n_groups = int(groups.max()) + 1
        rows, columns, share = _entries(labels, predicted, n_classes)
        right = np.flatnonzero(predicted == labels)
        margin_rows = groups[np.concatenate([right, np.arange(len(labels)), rows])]
        margins = np.concatenate([labels[right], n_classes + labels, 2 * n_classes + columns])
        margin_share = np.concatenate([np.ones(len(right) + len(labels)), share])
        cells = labels[rows] * n_classes + columns
        return GroupConfusions(
            _table(share, groups[rows], cells, (n_groups, n_classes**2)),
            _table(margin_share, margin_rows, margins, (n_groups, 3 * n_classes)),
        )

    @property
    def n_groups(self) -> int:
        return int(self.cells.shape[0])

    def weighted(self, weights: Array) -> Confusion:
        """The matrices of resamples of the groups.

        Parameters
        ----------
        weights : array, shape (..., n_groups)
        """
        found, true, predicted = np.split(np.asarray(weights @ self.margins), 3, axis=-1)
        return Confusion(found, true, predicted, self.cells, weights)

    def of_class(self, c: int) -> tuple[Array, Array, Array]:
        """Samples of a class, of the other classes, and predicted as it, per group; (n_groups,) each."""
        n_classes = self.margins.shape[1] // 3
        true = self.margins[:, n_classes : 2 * n_classes]
        of_class, as_class = (_column(self.margins, part * n_classes + c) for part in (1, 2))
        return of_class, np.asarray(true.sum(axis=1)).ravel() - of_class, as_class


def _column(table: Any, column: int) -> Array:
    one = table[:, [column]]
    return np.asarray(one.toarray() if sparse.issparse(one) else one, dtype=np.float64).ravel()


def _entries(labels: Ints, predicted: Ints, n_classes: int) -> tuple[Ints, Ints, Array]:
    """Sample, predicted class, and share of the sample; an abstention has one entry per wrong class."""
    decided, abstained = np.flatnonzero(predicted >= 0), np.flatnonzero(predicted < 0)
    # The wrong classes of true class t: t + 1, t + 2, ..., modulo the number of classes.
    wrong = (labels[abstained, None] + np.arange(1, n_classes)) % n_classes
    rows = np.concatenate([decided, np.repeat(abstained, n_classes - 1)])
    share = np.concatenate(
        [np.ones(len(decided)), np.full(wrong.size, 1.0 / max(n_classes - 1, 1))]
    )
    return rows, np.concatenate([predicted[decided], wrong.ravel()]), share


def _table(values: Array, rows: Ints, columns: Ints, shape: tuple[int, int]) -> Any:
    """Summed values per row and column, in full if that is small."""
    if shape[0] * shape[1] <= MAX_FULL:
        flat = np.bincount(rows * shape[1] + columns, weights=values, minlength=shape[0] * shape[1])
        return flat.reshape(shape)
    return sparse.csr_array(sparse.coo_array((values, (rows, columns)), shape=shape))
