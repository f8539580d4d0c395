"""One outer fold of nested cross-validation: rows to fit on, and held-out rows to evaluate."""

from __future__ import annotations

import dataclasses

from ensemble_kit.predictions.table import Predictions


@dataclasses.dataclass(frozen=True, eq=False)
class NestedFold:
    """What there is to judge fold `fold` by, had nobody ever seen its labels.

    Parameters
    ----------
    fold : int
    inner : Predictions
        The rows of the other folds, kind "oof": those of fold j are predicted by the model that
        left out `fold` and j.
    outer : Predictions
        The rows of `fold`, kind "test": the mean, in logit space, of the models that left out
        `fold` and one of the others; as a test row is the mean of the fold models.
    """

    fold: int
    inner: Predictions
    outer: Predictions
