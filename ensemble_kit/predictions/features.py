"""Pooled features of a table's logits, with the model that each of them comes from.

Each model has its own feature space. Features of two models are never averaged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, frozen
from ensemble_kit.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class PooledFeatures:
    """What the members' classifiers see of each sample, member by member.

    Each fold's model is another network, and its features are another space: column 7 of fold 0's
    model has nothing to do with column 7 of fold 1's. So every row names its spaces: an
    out-of-fold row has one, that of the model which left it out; a test row has all of them.

    Parameters
    ----------
    values : tuple of arrays of float32, one per member, shape (n_samples, n_spaces, n_features)
        Members differ in their n_features.
    spaces : array of int64, shape (n_samples, n_spaces)
        The fold whose models gave `values[m][i, s]`.

    Examples
    --------
    >>> kept = PooledFeatures((np.zeros((3, 1, 5)),), np.array([[0], [0], [1]]))
    >>> len(kept), kept.take([2]).spaces.tolist()
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
        if any(not np.isfinite(one).all() for one in values):
            raise DataError(
                "Some pooled features are not finite",
                "features must be finite numbers",
                "Leave out that member, or train it at a lower learning rate",
            )

    def __len__(self) -> int:
        return len(self.spaces)

    @property
    def n_members(self) -> int:
        return len(self.values)

    def take(self, rows: npt.ArrayLike) -> PooledFeatures:
        """The rows named by a boolean mask or by positions."""
        rows = np.asarray(rows)
        return PooledFeatures(tuple(one[rows] for one in self.values), self.spaces[rows])

    def select(self, members: Sequence[int]) -> PooledFeatures:
        """The members at these positions, in this order."""
        return PooledFeatures(tuple(self.values[m] for m in members), self.spaces)

    def join(self, other: PooledFeatures) -> PooledFeatures | None:
        """Both sides' members over the same rows; None where their spaces differ."""
        if not np.array_equal(self.spaces, other.spaces):
            return None
        return PooledFeatures(self.values + other.values, self.spaces)
