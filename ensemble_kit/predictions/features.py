"""Pooled features of the rows of a table, with the model that they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, frozen
from ensemble_kit.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class PooledFeatures:
    """Pooled features of each sample: the input of each member's classifier.

    The model of each fold has its own feature space: column 7 of fold 0 is not comparable with column
    7 of fold 1. An out-of-fold row has features in the space of the model that did not see it; a test
    row has features in all spaces.

    Parameters
    ----------
    values : tuple of arrays of float32, one per member, shape (n_samples, n_spaces, n_features)
        `n_features` differs between members.
    spaces : array of int64, shape (n_samples, n_spaces)
        The fold whose models gave `values[m][i, s]`.

    Examples
    --------
    >>> features = PooledFeatures((np.zeros((3, 1, 5)),), np.array([[0], [0], [1]]))
    >>> len(features), features.take([2]).spaces.tolist()
    (3, [[1]])
    """

    values: tuple[Array, ...]
    spaces: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        spaces = frozen(np.asarray(self.spaces, dtype=np.int64))
        values = tuple(frozen(np.asarray(one), np.float32) for one in self.values)
        object.__setattr__(self, "spaces", spaces)
        object.__setattr__(self, "values", values)
        shapes = [one.shape for one in values]
        if spaces.ndim != 2 or any(len(s) != 3 or s[:2] != spaces.shape for s in shapes):
            raise DataError(
                f"Features have the shapes {shapes}, over spaces of shape {spaces.shape}",
                "each member needs (n_samples, n_spaces, n_features), with the same spaces for all members",
                "Take them from a run: run.predictions(features=True)",
            )
        if bad := sum(not np.isfinite(one).all() for one in values):
            raise DataError(
                f"Pooled features of {bad} of {len(values)} members are not finite",
                "features must be finite numbers",
                "Leave out that member, or train it at a lower learning rate",
            )

    def __len__(self) -> int:
        return len(self.spaces)

    @property
    def n_members(self) -> int:
        return len(self.values)

    def take(self, rows: npt.ArrayLike) -> PooledFeatures:
        """The rows of a boolean mask or of positions."""
        rows = np.asarray(rows)
        return PooledFeatures(tuple(one[rows] for one in self.values), self.spaces[rows])

    def select(self, members: Sequence[int]) -> PooledFeatures:
        """The members at these positions, in this order."""
        return PooledFeatures(tuple(self.values[m] for m in members), self.spaces)

    def join(self, other: PooledFeatures) -> PooledFeatures | None:
        """The members of both over the same rows; None if their spaces differ."""
        if not np.array_equal(self.spaces, other.spaces):
            return None
        return PooledFeatures(self.values + other.values, self.spaces)
