"""Base class of combiners that use pooled features beside logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, group_numbers, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.inner_folds import inner_folds
from ensemble_kit.combiners.log_proba import clipped_log_proba
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.seeding import generator

N_SPLITS = 5


class FeatureCombiner(Combiner):
    """Base of combiners over logits and pooled features.

    A subclass fits in `_fit_on` and predicts in `_predict_in`, one space at a time. Each fold's models
    have their own feature space, so a row can be predicted only by a fit to rows of its space:
    cross-fitting uses `crossing_folds`, not the folds of the table. An out-of-fold row is predicted
    in its own space. A test row has features in every space; its prediction is the mean over them.
    """

    needs_features = True
    is_fitted_to_labels = True
    ignores_member_order = False
    fitted_names = ("widths_",)
    widths_: list[int]

    def fit(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        features: PooledFeatures | None = None,
    ) -> Self:
        """Fit to out-of-fold rows.

        Parameters
        ----------
        logits : array-like, shape (n_samples, n_members, n_classes)
        labels : array-like of int, shape (n_samples,)
        groups : array-like of shape (n_samples,), optional
        features : PooledFeatures
            Features of the same rows and members, with one space per row.

        Raises
        ------
        UsageError
            No features are given.
        DataError
            NaN, wrong shapes, features of other rows, or several spaces per row.
        """
        checked, truth, units = self._inputs(logits, labels, groups)
        pooled = self._same_rows(checked, features)
        if pooled.spaces.shape[1] != 1:
            raise DataError(
                f"Each row has the features of {pooled.spaces.shape[1]} models, like a test row",
                "an out-of-fold row has the features of one model",
                "Fit on run.predictions('oof', features=True)",
            )
        self._note_shape(checked)
        self.widths_ = [one.shape[2] for one in pooled.values]
        self._fit_on(checked, truth, units, pooled)
        return self

    def fit_many(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        groups: npt.ArrayLike | None,
        row_sets: Sequence[Ints],
        features: PooledFeatures | None = None,
    ) -> list[Self]:
        """One fitted copy per set of row positions."""
        checked, truth, units = self._inputs(logits, labels, groups)
        pooled = self._same_rows(checked, features)
        return [
            self.fresh().fit(checked[rows], truth[rows], units[rows], pooled.take(rows))
            for rows in row_sets
        ]

    def fit_to(self, table: Predictions) -> Self:
        """A copy that is fitted to all rows of a table."""
        return self.fresh().fit(table.logits, table.labels, table.groups, table.features)

    def fit_each(self, table: Predictions, row_sets: Sequence[Ints]) -> list[Self]:
        """One fitted copy per set of row positions of a table."""
        return self.fit_many(table.logits, table.labels, table.groups, row_sets, table.features)

    def crossing(self, table: Predictions, fold: Ints) -> Ints:
        """Folds that leave training rows of every feature space, if the groups allow it."""
        spaces = fold if table.features is None else table.features.spaces[:, 0]
        crossing = crossing_folds(np.asarray(table.labels), table.groups, spaces)
        return crossing if crossing.any() else fold

    def _apply(self, table: Predictions) -> Combined:
        return self.combine(table.logits, table.features)

    def combine(self, logits: npt.ArrayLike, features: PooledFeatures | None = None) -> Combined:
        """Probabilities, classes and ties at once; see `Combiner.combine`."""
        checked = self._checked(logits)
        return self._combine_on(checked, self._same_rows(checked, features))

    def predict_proba(self, logits: npt.ArrayLike, features: PooledFeatures | None = None) -> Array:
        """Class probabilities, float64 of shape (n_samples, n_classes)."""
        return self.combine(logits, features).proba

    def predict(self, logits: npt.ArrayLike, features: PooledFeatures | None = None) -> Ints:
        """Class indices, shape (n_samples,)."""
        return self.combine(logits, features).predicted

    def score(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        features: PooledFeatures | None = None,
    ) -> float:
        """Accuracy, as in scikit-learn's classifiers."""
        return float((self.predict(logits, features) == np.asarray(labels)).mean())

    def _fit_on(self, logits: Array, labels: Ints, groups: Ints, features: PooledFeatures) -> None:
        raise NotImplementedError

    def _predict_in(self, space: int, logits: Array, features: list[Array]) -> Array | None:
        """Probabilities by the fit of one space; None if the space was not fitted."""
        raise NotImplementedError

    def _combine_on(self, logits: Array, features: PooledFeatures) -> Combined:
        self._refuse_other_widths(features)
        total = np.zeros((len(logits), len(self.classes_)))
        for column in range(features.spaces.shape[1]):
            space = features.spaces[:, column]
            for k in np.unique(space):
                rows = np.flatnonzero(space == k)
                in_space = [one[rows, column] for one in features.values]
                found = self._predict_in(int(k), logits[rows], in_space)
                if found is None:
                    found = softmax(clipped_log_proba(logits[rows]).mean(axis=1))
                total[rows] += found
        return decided(total / features.spaces.shape[1])

    def _refuse_other_widths(self, features: PooledFeatures) -> None:
        got, want = [one.shape[2] for one in features.values], self.widths_
        if got != want:
            raise DataError(
                f"Features have the widths {first_few(map(str, got))}; the combiner was fitted to "
                f"{first_few(map(str, want))}",
                "both need the same members in the same order",
                "Take the features from the same run, in the same order",
            )

    def _same_rows(self, logits: Array, features: PooledFeatures | None) -> PooledFeatures:
        if features is None:
            raise UsageError(
                f"{type(self).__name__} was given logits only",
                "it also needs the members' pooled features",
                "Store features with train-members --keep-features, and pass "
                "features=table.features of run.predictions(features=True)",
            )
        if (len(features), features.n_members) != logits.shape[:2]:
            raise DataError(
                f"Features have {len(features)} rows of {features.n_members} members; logits have "
                f"{logits.shape[0]} rows of {logits.shape[1]}",
                "both need the same rows and members",
                "Take both from one table: table.logits, table.features",
            )
        return features


def learnable_spaces(groups: Ints, spaces: Ints) -> Ints:
    """The spaces with rows of several groups; a space of one group has no held-out rows."""
    several = [k for k in np.unique(spaces) if len(np.unique(groups[spaces == k])) > 1]
    return np.array(several, dtype=np.int64)


def crossing_folds(labels: Ints, groups: npt.ArrayLike, spaces: Ints) -> Ints:
    """Folds that cross the spaces: the groups of each space are assigned to up to five folds.

    Shape (n_samples,). A space of one group has one fold, so it is never fitted when it is predicted.
    """
    fold = np.zeros(len(labels), dtype=np.int64)
    units = group_numbers(groups)
    for k in np.unique(spaces):
        rows = np.flatnonzero(spaces == k)
        numbered = group_numbers(units[rows])
        n_splits = min(N_SPLITS, int(numbered.max()) + 1)
        rng = generator(0, "cross-fit", int(k))
        fold[rows] = inner_folds(labels[rows], numbered, n_splits, rng)
    return fold
