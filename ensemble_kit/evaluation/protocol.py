"""Settings of an evaluation, the same for every method of a table and fixed in advance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.metrics import DEFAULT_METRICS, ORDINAL_METRICS, Metric, cost_metric, metric
from ensemble_kit.metrics.costs import EXPECTED_COST, CostMatrix, least_cost
from ensemble_kit.predictions.method_predictions import MethodPredictions, Some
from ensemble_kit.predictions.table import Predictions

# How the images of a patient become one prediction.
POOLING = ("mean", "vote", "max")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings of an evaluation, the same for every method of a table.

    Parameters
    ----------
    metric : str
        The metric that methods are ranked and compared by.
    metrics : tuple of str
        All metrics to compute. Empty: the default list, and ordinal metrics if classes are ordered.
    n_resamples : int
        Resamples of whole groups for the correction of the best method's metric for the choice
        among methods. 0: no correction and no intervals.
    level : float
        Confidence level of the intervals, e.g. 0.95.
    seed : int
    fallback : bool
        Replace a fitted combiner by the mean if it is not better cross-fitted, with a caveat.
    costs : CostMatrix, optional
        Costs of errors; adds the metric `expected_cost`.
    pool : {"mean", "vote", "max"}
        How the images of a patient are pooled into one prediction.
    decide_by_cost : bool
        Predict the class of least expected cost, not the most probable class.
    positive : str, optional
        The positive class, e.g. `malignant`. With two classes, average precision is computed for
        this class; by default for the last one.
    """

    metric: str = "balanced_accuracy"
    metrics: tuple[str, ...] = ()
    n_resamples: int = 2000
    level: float = 0.95
    seed: int = 0
    fallback: bool = True
    costs: CostMatrix | None = None
    decide_by_cost: bool = False
    pool: str = "mean"
    positive: str | None = None

    def __post_init__(self) -> None:
        if self.pool not in POOLING:
            raise UsageError(
                f"Unknown pooling rule '{self.pool}'",
                f"the rules are {', '.join(POOLING)}",
                did_you_mean(self.pool, POOLING),
            )
        if self.decide_by_cost and self.costs is None:
            raise UsageError(
                "Decisions by cost need a cost table",
                "no costs were given",
                "Add --costs costs.csv",
            )

    @property
    def intervals(self) -> bool:
        """Whether intervals are computed."""
        return self.n_resamples > 0

    def verdict_metric(self, class_names: Sequence[str]) -> Metric:
        """The metric of the verdicts, over these classes."""
        return self.resolved(self.metric, class_names)

    def all_metrics(
        self, table: Predictions | MethodPredictions, *, abstained: bool = False
    ) -> list[Metric]:
        """The metrics for this table, each once."""
        names = self.names(table, abstained=abstained)
        return [self.resolved(name, table.class_names) for name in names]

    def takes_an_order(self, table: Predictions | MethodPredictions) -> bool:
        """Whether ordinal metrics are requested although the classes have no known order."""
        requested = {*self.metrics, self.metric} & {*ORDINAL_METRICS}
        return bool(requested) and not table.ordinal

    def resolved(self, name: str, class_names: Sequence[str]) -> Metric:
        """A metric by its name, over these classes."""
        if name == EXPECTED_COST and self.costs is not None:
            return cost_metric(self.costs.of(class_names))
        found = metric(name)
        if len(class_names) == 2 and self.positive_of(class_names) == 0:
            return found.of_first_class()
        return found

    def for_data(self, manifest: Manifest) -> Protocol:
        """The same protocol; without a positive class, the positive class of the data is used."""
        if self.positive is not None or not manifest.called_class:
            return self
        return dataclasses.replace(self, positive=manifest.called_class)

    def positive_of(self, class_names: Sequence[str]) -> int | None:
        """The index of the positive class; None if it is not known.

        Raises
        ------
        UsageError
            The positive class is not one of `class_names`.
        """
        if self.positive is None:
            return None
        if self.positive not in class_names:
            raise UsageError(
                f"Unknown positive class '{self.positive}'",
                f"the classes are {', '.join(class_names)}",
                did_you_mean(self.positive, class_names),
            )
        return list(class_names).index(self.positive)

    def ranked_class(self, class_names: Sequence[str]) -> str | None:
        """Of two classes, the one whose average precision is computed; else None (mean over all)."""
        if len(class_names) != 2:
            return None
        return class_names[-1] if self.positive is None else self.positive

    def error_costs(self, class_names: Sequence[str]) -> tuple[tuple[float, ...], ...] | None:
        """Costs of errors in the order of these classes, as plain values; None without costs."""
        if self.costs is None:
            return None
        return tuple(tuple(row) for row in self.costs.of(class_names).tolist())

    def decided(self, combined: Some, class_names: Sequence[str]) -> Some:
        """Predictions with the decisions of this protocol: by cost, if `decide_by_cost`."""
        if self.costs is None or not self.decide_by_cost:
            return combined
        return least_cost(combined, self.costs.of(class_names))

    def names(
        self, table: Predictions | MethodPredictions, *, abstained: bool = False
    ) -> list[str]:
        """The metrics for this table by name, each once."""
        if metric(self.metric).aims_at is not None:
            raise UsageError(
                f"Methods cannot be ranked by '{self.metric}': its ideal value is "
                f"{metric(self.metric).aims_at:g}, and both higher and lower values are worse",
                "a metric is needed where higher, or lower, is always better",
                "Use e.g. log_loss or ece",
            )
        if self.metric == EXPECTED_COST and self.costs is None:
            raise UsageError(
                "The metric expected_cost needs a cost table",
                "no costs were given",
                "Add --costs costs.csv",
            )
        wanted = [*(self.metrics or DEFAULT_METRICS), self.metric]
        if self.costs is not None:
            wanted.append(EXPECTED_COST)
        if not self.metrics and table.ordinal:
            wanted += ORDINAL_METRICS
        return list(dict.fromkeys([*wanted, *(["coverage"] if abstained else [])]))
