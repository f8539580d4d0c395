"""A metric by its name as a loss of predictions, for combiners that optimise a metric.

Metrics are imported inside the function, because they are a later layer than combiners.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.errors import UsageError
from ensemble_kit.predictions.method_predictions import Combined

# Cost by true class, then by predicted class; plain values, which can be stored.
ErrorCosts = tuple[tuple[float, ...], ...]

# The loss if a metric is undefined: finite, and worse than any defined value.
UNDEFINED = 1e12


def metric_loss(
    metric: str, labels: Ints, error_costs: ErrorCosts | None = None
) -> Callable[[Combined], float]:
    """A loss function of predictions for these labels: the lower, the better the metric.

    Parameters
    ----------
    metric : str
        A name of the registry of metrics.
    labels : array of int, shape (n_samples,)
    error_costs : tuple of tuples of float, shape (n_classes, n_classes), optional
        Costs for `expected_cost`.

    Raises
    ------
    UsageError
        The name is unknown, `expected_cost` has no costs, or the metric has no better direction.

    Examples
    --------
    >>> from ensemble_kit.predictions.method_predictions import decided
    >>> loss = metric_loss("auroc", np.array([0, 1]))
    >>> loss(decided(np.array([[0.8, 0.2], [0.6, 0.4]])))
    -1.0
    """
    from ensemble_kit.metrics import EXPECTED_COST, cost_metric
    from ensemble_kit.metrics import metric as named

    wanted = named(metric)
    if wanted.aims_at is not None:
        raise UsageError(
            f"'{metric}' cannot be optimised: its ideal value is {wanted.aims_at:g}",
            "a metric is needed where higher, or lower, is always better",
            "Use e.g. log_loss or ece",
        )
    if metric == EXPECTED_COST and error_costs is not None:
        wanted = cost_metric(np.array(error_costs, dtype=np.float64))
    sign = -1.0 if wanted.higher_is_better else 1.0

    def loss(combined: Combined) -> float:
        value = sign * wanted.of(labels, combined.proba, combined.predicted)
        return UNDEFINED if np.isnan(value) else value

    return loss
