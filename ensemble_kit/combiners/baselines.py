"""References of every table: the best single member (a baseline) and the oracle (an upper bound)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, check_labels, check_logits, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.metric_loss import ErrorCosts, metric_loss
from ensemble_kit.errors import UsageError
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions


class BestMember(Combiner):
    """The single member with the best `metric` on the fitted rows; log loss breaks ties.

    Parameters
    ----------
    metric : str, optional
        By default the metric of the evaluation; outside an evaluation, balanced accuracy.
    error_costs : tuple of tuples of float, shape (n_classes, n_classes), optional
        Costs, true class by predicted class, for the metric `expected_cost`.
    decide_by_cost : bool
        Evaluate members by the class of least expected cost, not by the most probable class.

    Examples
    --------
    >>> logits = np.array([[[0.0, 1.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    >>> best = BestMember().fit(logits, [0, 1])
    >>> best.member_, best.predict(logits).tolist()
    (1, [0, 1])
    """

    is_fitted_to_labels = True
    is_rule = True
    fitted_names = ("member_",)

    def __init__(
        self,
        metric: str | None = None,
        error_costs: ErrorCosts | None = None,
        decide_by_cost: bool = False,
    ) -> None:
        self.metric = metric
        self.error_costs = error_costs
        self.decide_by_cost = decide_by_cost

    def _fit(
        self,
        logits: Array,
        labels: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],  # noqa: ARG002
    ) -> None:
        loss = metric_loss(self.metric or "balanced_accuracy", labels, self.error_costs)
        log_loss = metric_loss("log_loss", labels)
        losses = []
        for m in range(logits.shape[1]):
            predictions = decided(softmax(logits[:, m]))
            losses.append((round(loss(self._evaluated(predictions)), 12), log_loss(predictions)))
        self.member_ = int(min(range(len(losses)), key=losses.__getitem__))

    def _evaluated(self, predictions: Combined) -> Combined:
        if not self.decide_by_cost or self.error_costs is None:
            return predictions
        from ensemble_kit.metrics.costs import least_cost

        return least_cost(predictions, np.array(self.error_costs, dtype=np.float64))

    def _combine(self, logits: Array) -> Combined:
        return decided(softmax(logits[:, self.member_]))

    @property
    def chosen_member(self) -> int:
        """Position of the member."""
        return self.member_

    def ranked_by(
        self, metric: str, error_costs: ErrorCosts | None, decide_by_cost: bool
    ) -> BestMember:
        """The best member by this metric, unless its own metric is set."""
        if self.metric is not None:
            return self
        return BestMember(metric, error_costs, decide_by_cost)


class Oracle(Combiner):
    """Upper bound of choosing one member per image: right if any member is right. Uses the labels.

    `predict` raises an error; `combine_with_labels` needs the labels.

    References
    ----------
    Kuncheva, L. I. (2002). A theoretical study on six classifier fusion strategies. IEEE TPAMI
    24(2), 281-286.

    Examples
    --------
    >>> logits = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> Oracle().fit(logits, [1]).combine_with_labels(logits, [1]).predicted.tolist()
    [1]
    """

    needs_labels = True

    def _combine(self, logits: Array) -> Combined:  # noqa: ARG002
        raise UsageError(
            "The oracle cannot predict without labels",
            "the oracle chooses members by the true labels",
            "Use combine_with_labels(logits, labels), or a combiner that can be used on new images",
        )

    def _apply(self, table: Predictions) -> Combined:
        return self.combine_with_labels(table.logits, table.labels)

    def combine_with_labels(self, logits: npt.ArrayLike, labels: npt.ArrayLike) -> Combined:
        """For each sample, the prediction of the member that is right with the highest probability.

        If no member is right: of the member with the highest probability of the true class.
        """
        checked = self._checked(check_logits(logits))
        n_samples, n_members, n_classes = checked.shape
        truth = check_labels(labels, n_samples, n_classes)
        proba = softmax(checked)  # (n_samples, n_members, n_classes)
        predicted = decided(proba.reshape(-1, n_classes)).predicted.reshape(n_samples, n_members)
        right = predicted == truth[:, None]
        of_truth = np.take_along_axis(proba, truth[:, None, None], axis=2)[:, :, 0]
        chosen = np.where(right, 1.0 + of_truth, of_truth).argmax(axis=1)
        rows = np.arange(n_samples)
        return Combined(
            proba[rows, chosen], predicted[rows, chosen], np.zeros(n_samples, dtype=bool)
        )
