"""Cross-fitting: each fold is predicted by a combiner that was fitted to the other folds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, group_numbers
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.inner_folds import inner_folds
from ensemble_kit.errors import DataError, counted, first_few
from ensemble_kit.predictions.method_predictions import Combined, MethodPredictions
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


def cross_fit(combiner: Combiner, oof: Predictions) -> MethodPredictions:
    """Probabilities, classes and ties for every row, from fits on the other folds.

    Raises
    ------
    DataError
        A test table, a group in two folds (unless the table is split by image), or a single fold.
    """
    if not combiner.is_fitted_to_labels:
        return combiner.fit_to(oof).apply(oof)
    fold = combiner.crossing(oof, fold_of(oof))
    folds = np.unique(fold)
    fitted = combiner.fit_each(oof, [np.flatnonzero(fold != k) for k in folds])
    held_out = [np.flatnonzero(fold == k) for k in folds]
    parts = [(rows, one.apply(oof.take(rows))) for rows, one in zip(held_out, fitted, strict=True)]
    return MethodPredictions.of(Combined.scattered(parts, len(oof)), oof)


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
            f"The predictions have {len(np.unique(fold))} fold only",
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
            f"All {len(oof)} samples are in one group",
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
            f"{counted(len(straddling), 'group', 'is')} in more than one fold: {first_few(straddling)}",
            "all images of a group must be in one fold",
            "Assign each patient to one fold, or set split_by='image', which adds a caveat to every "
            "result",
        )
