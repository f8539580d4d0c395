"""Cross-fitting: each fold is predicted by a combiner that was fitted to the other folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, group_numbers
from ensemble_kit.combiners.base import Combined, Combiner
from ensemble_kit.combiners.baselines import Oracle
from ensemble_kit.combiners.inner_folds import inner_folds
from ensemble_kit.combiners.stacking.feature_combiner import FeatureCombiner, crossing_folds
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.evaluation.cross_validation.missing_members import (
    combined_by_those_present,
    complete_logits,
)
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.seeding import generator

N_SPLITS = 5


def cross_fitted_proba(combiner: Combiner, oof: Predictions) -> Array:
    """Class probabilities for every row, from a combiner fitted to the other folds.

    Parameters
    ----------
    combiner : Combiner
        Copies are fitted; the given object stays unfitted.
    oof : Predictions
        Out-of-fold predictions.

    Returns
    -------
    array of float64, shape (n_samples, n_classes)

    Raises
    ------
    DataError
        A test table, a group in two folds (unless the table is split by image), or a single fold.

    Examples
    --------
    >>> table = Predictions.from_arrays({"a": [[1.0, 0.0]] * 4}, [0, 1, 0, 1], fold=[0, 0, 1, 1])
    >>> from ensemble_kit.combiners.rules.averaging import MeanProba
    >>> cross_fitted_proba(MeanProba(), table).shape
    (4, 2)
    """
    return cross_fit(combiner, oof).proba


def cross_fit(combiner: Combiner, oof: Predictions) -> Combined:
    """Probabilities, classes and ties for every row, from fits on the other folds.

    Raises
    ------
    DataError
        A test table, a group in two folds (unless the table is split by image), or a single fold.
    """
    if not combiner.is_fitted_to_labels:
        return apply(fitted_to(combiner, oof), oof)
    fold = fold_of(oof)
    if isinstance(combiner, FeatureCombiner):
        fold = _crossing(oof, fold)
    folds = np.unique(fold)
    row_sets = [np.flatnonzero(fold != k) for k in folds]
    fitted = fit_many(combiner, oof, row_sets)
    proba = np.empty((len(oof), oof.n_classes))
    predicted = np.empty(len(oof), dtype=np.int64)
    tied = np.empty(len(oof), dtype=bool)
    for k, one in zip(folds, fitted, strict=True):
        kept = np.flatnonzero(fold == k)
        part = apply(one, oof.take(kept))
        proba[kept], predicted[kept], tied[kept] = part.proba, part.predicted, part.tied
    return Combined(proba, predicted, tied)


def _crossing(oof: Predictions, fold: Ints) -> Ints:
    """Folds that leave training rows of every feature space, if the groups allow it."""
    spaces = fold if oof.features is None else oof.features.spaces[:, 0]
    crossing = crossing_folds(oof.labels, oof.groups, spaces)
    return crossing if crossing.any() else fold


def fitted_to(combiner: Combiner, table: Predictions) -> Combiner:
    """A copy of a combiner, fitted to a table."""
    copy = combiner.fresh()
    if isinstance(copy, FeatureCombiner):
        return copy.fit(table.logits, table.labels, table.groups, table.features)
    return copy.fit(complete_logits(table), table.labels, table.groups)


def fit_many(combiner: Combiner, table: Predictions, row_sets: Sequence[Ints]) -> list[Combiner]:
    """One fitted copy per set of row positions of a table."""
    rows = complete_logits(table), table.labels, table.groups, row_sets
    if isinstance(combiner, FeatureCombiner):
        return [*combiner.fit_many(*rows, table.features)]
    return [*combiner.fit_many(*rows)]


def apply(combiner: Combiner, table: Predictions) -> Combined:
    """Predictions of a fitted combiner for a table; the oracle also gets the labels."""
    if table.quorum is not None:
        return combined_by_those_present(combiner, table)
    if isinstance(combiner, Oracle):
        return combiner.combine_with_labels(table.logits, table.labels)
    if isinstance(combiner, FeatureCombiner):
        return combiner.combine(table.logits, table.features)
    return combiner.combine(table.logits)


def fold_of(oof: Predictions) -> npt.NDArray[np.int64]:
    """The table's folds; without folds, five deterministic folds of whole groups.

    Raises
    ------
    DataError
        A test table, a group in two folds, fewer than two folds or groups.
    """
    if oof.kind != "oof":
        raise DataError(
            f"The predictions to fit on are of kind '{oof.kind}'",
            "combiners are fitted to out-of-fold predictions (kind 'oof')",
            "Pass the test table as score_on",
        )
    fold = np.asarray(oof.fold)
    if (fold < 0).all():
        fold = _made_folds(oof)
    if len(np.unique(fold)) < 2:
        raise DataError(
            f"The predictions are of {len(np.unique(fold))} fold only",
            "cross-fitting needs at least two folds",
            "Train or import the other folds",
        )
    if oof.split_by == "group":
        _refuse_straddling(oof, fold)
    return fold


def _made_folds(oof: Predictions) -> npt.NDArray[np.int64]:
    groups = group_numbers(oof.groups)
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        raise DataError(
            f"All {len(oof)} samples are of one group",
            "cross-fitting needs at least two groups",
            "Add samples of other groups",
        )
    return inner_folds(oof.labels, groups, min(N_SPLITS, n_groups), generator(0, "cross-fit"))


def _refuse_straddling(oof: Predictions, fold: npt.NDArray[np.int64]) -> None:
    pairs = np.unique(np.stack([group_numbers(oof.groups), fold], axis=1), axis=0)
    names = np.unique(oof.groups)
    straddling = names[np.flatnonzero(np.bincount(pairs[:, 0]) > 1)]
    if len(straddling):
        raise DataError(
            f"{len(straddling)} groups are in more than one fold: {first_few(straddling)}",
            "all images of a group must be in one fold",
            "Assign each patient to one fold, or set split_by='image', which adds a caveat to every "
            "result",
        )
