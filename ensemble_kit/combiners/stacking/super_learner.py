"""A stack of two layers: the members and the predictions of several combiners are combined.

The upper layer is fitted to predictions of the lower layer that are cross-fitted over inner folds.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.calibrated import inner_cross_fit
from ensemble_kit.combiners.log_proba import LOWEST, clipped_log_proba
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.combiners.stacking.linear import RidgeStacker
from ensemble_kit.combiners.weights.greedy_selection import GreedySelection
from ensemble_kit.combiners.weights.simplex import ClasswiseWeights, SimplexWeights
from ensemble_kit.predictions.method_predictions import Combined


class TwoLayerStack(Combiner):
    """Members, mean, ridge, class-wise weights and greedy selection, combined by simplex weights.

    Parameters
    ----------
    keep_members : bool
        Whether the members are inputs of the upper layer, beside the lower combiners.

    References
    ----------
    van der Laan, M. J., Polley, E. C., & Hubbard, A. E. (2007). Super learner. Statistical
    Applications in Genetics and Molecular Biology 6(1).

    Examples
    --------
    >>> labels = np.arange(40) % 2
    >>> logits = np.eye(2)[labels][:, None] * np.ones((40, 3, 1))
    >>> TwoLayerStack().fit(logits, labels).score(logits, labels)
    1.0
    """

    is_fitted_to_labels = True

    def __init__(self, keep_members: bool = True) -> None:
        self.keep_members = keep_members

    @staticmethod
    def _lower() -> list[Combiner]:
        return [MeanProba(), RidgeStacker(), ClasswiseWeights(), GreedySelection()]

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        lower = self._lower()
        outside = [inner_cross_fit(one, logits, labels, groups) for one in lower]
        self.lower_ = [one.fit(logits, labels, groups) for one in lower]
        self.upper_ = SimplexWeights().fit(self._joined(logits, outside), labels, groups)

    def _joined(self, logits: Array, predictions: list[Array]) -> Array:
        extra = np.log(np.maximum(np.stack(predictions, axis=1), np.exp(LOWEST)))
        return (
            np.concatenate([clipped_log_proba(logits), extra], axis=1)
            if self.keep_members
            else extra
        )

    def _combine(self, logits: Array) -> Combined:
        predictions = [one.predict_proba(logits) for one in self.lower_]
        return self.upper_.combine(self._joined(logits, predictions))

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Both layers' values."""
        plain, arrays = super().state()
        for i, one in enumerate([*self.lower_, self.upper_]):
            part_plain, part_arrays = one.state()
            plain[f"layer.{i}"] = part_plain
            arrays |= {f"layer.{i}.{k}": v for k, v in part_arrays.items()}
        return plain, arrays

    def restore(self, plain: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """Restore the values of `state`."""
        super().restore(plain, arrays)
        lower, upper = self._lower(), SimplexWeights()
        parts: list[Combiner] = [*lower, upper]
        for i, one in enumerate(parts):
            head = f"layer.{i}."
            own = {k.removeprefix(head): v for k, v in arrays.items() if k.startswith(head)}
            one.restore(plain[f"layer.{i}"], own)
        self.lower_, self.upper_ = lower, upper
        return self
