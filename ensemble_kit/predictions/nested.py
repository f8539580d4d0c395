"""One outer fold of nested cross-validation: rows to fit on, and held-out rows to evaluate."""

from __future__ import annotations

import dataclasses

from ensemble_kit.predictions.table import Predictions


@dataclasses.dataclass(frozen=True, eq=False)
class NestedFold:
    """Predictions for the evaluation of one fold, by models that never saw its labels.

    Parameters
    ----------
    fold : int
    inner : Predictions
        The rows of the other folds, kind "oof". Rows of fold j are predicted by the model that was
        trained without `fold` and j.
    outer : Predictions
        The rows of `fold`, kind "test": the mean logits of the models that were trained without
        `fold` and one other fold.
    """

    fold: int
    inner: Predictions
    outer: Predictions
