"""How figures are made: the same for every method of a table, and fixed before any is looked at.

Settings only; judges nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ensemble_kit.combiners.base import Combined
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.evaluation.scores.per_group import FITTED, POOLING
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.metrics import DEFAULT_METRICS, ORDINAL_METRICS, Metric, cost_metric, metric
from ensemble_kit.metrics.costs import EXPECTED_COST, CostMatrix, least_cost
from ensemble_kit.predictions.table import Predictions


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How figures are made: the same for every method of a table.

    Parameters
    ----------
    metric : str
        The one that verdicts are given on and methods are chosen by.
    metrics : tuple of str
        All that are computed; empty for the default list, with ordinal ones for ordered classes.
    n_resamples : int
        Resamples of whole groups that correct the best method's metric for the choice among
        methods; 0 for none, and for no intervals.
    level : float
        Confidence level of the intervals, e.g. 0.95.
    seed : int
    fallback : bool
        Replace a fitted combiner by the mean where it does not beat it cross-fitted, and say so.
    costs : CostMatrix, optional
        What errors cost: adds the metric `expected_cost`.
    pool : {"mean", "vote", "max", "fitted"}
        How a patient's images become one answer; `fitted` learns it from the patients of other
        folds.
    decide_by_cost : bool
        Decide for the class of least expected cost, not for the likeliest.
    positive : str, optional
        The class that must not be missed, e.g. `malignant`. Of two classes, average precision is
        of this one; without it, of the last.
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
        if self.pool not in (*POOLING, FITTED):
            raise UsageError(
                "Images are pooled by a known rule",
                f"got '{self.pool}'",
                did_you_mean(self.pool, (*POOLING, FITTED)),
            )
        if self.decide_by_cost and self.costs is None:
            raise UsageError(
                "Decisions by cost need costs", "got none", "Give them: --costs costs.csv"
            )

    @property
    def intervals(self) -> bool:
        """Whether intervals are computed."""
        return self.n_resamples > 0

    def figure(self, class_names: Sequence[str]) -> Metric:
        """The metric of the verdicts, over these classes."""
        return self.resolved(self.metric, class_names)

    def figures(self, table: Predictions, *, abstained: bool = False) -> list[Metric]:
        """The metrics for this table, each once."""
        names = self.names(table, abstained=abstained)
        return [self.resolved(name, table.class_names) for name in names]

    def takes_an_order(self, table: Predictions) -> bool:
        """Whether figures of grades are asked for where the order of the classes is not known."""
        asked = {*self.metrics, self.metric} & {*ORDINAL_METRICS}
        return bool(asked) and not table.ordinal

    def resolved(self, name: str, class_names: Sequence[str]) -> Metric:
        """A metric by its name, over these classes."""
        if name == EXPECTED_COST and self.costs is not None:
            return cost_metric(self.costs.of(class_names))
        found = metric(name)
        if len(class_names) == 2 and self.positive_of(class_names) == 0:
            return found.of_first_class()
        return found

    def for_data(self, manifest: Manifest) -> Protocol:
        """The same, with the positive class of the data where none is named."""
        if self.positive is not None or not manifest.called_class:
            return self
        return dataclasses.replace(self, positive=manifest.called_class)

    def positive_of(self, class_names: Sequence[str]) -> int | None:
        """The index of the positive class, None where it is not known.

        Raises
        ------
        UsageError
            It is none of these classes.
        """
        if self.positive is None:
            return None
        if self.positive not in class_names:
            raise UsageError(
                f"The positive class '{self.positive}' is none of the classes",
                f"got {', '.join(class_names)}",
                did_you_mean(self.positive, class_names),
            )
        return list(class_names).index(self.positive)

    def ranked_class(self, class_names: Sequence[str]) -> str | None:
        """The class whose average precision is computed; of more than two classes, all of them."""
        if len(class_names) != 2:
            return None
        return class_names[-1] if self.positive is None else self.positive

    def error_costs(self, class_names: Sequence[str]) -> tuple[tuple[float, ...], ...] | None:
        """What errors cost in the order of these classes, as plain values; None without costs."""
        if self.costs is None:
            return None
        return tuple(tuple(row) for row in self.costs.of(class_names).tolist())

    def decided(self, combined: Combined, class_names: Sequence[str]) -> Combined:
        """The answers as this protocol decides: by cost, where that is asked for."""
        if self.costs is None or not self.decide_by_cost:
            return combined
        return least_cost(combined, self.costs.of(class_names))

    def names(self, table: Predictions, *, abstained: bool = False) -> list[str]:
        """The metrics for this table by name, each once."""
        if metric(self.metric).aims_at is not None:
            raise UsageError(
                "Verdicts are given on a figure of which more, or less, is better",
                f"got '{self.metric}', which should be near {metric(self.metric).aims_at:g}",
                "Use e.g. log_loss or ece",
            )
        if self.metric == EXPECTED_COST and self.costs is None:
            raise UsageError(
                "An expected cost needs costs", "got none", "Give them: --costs costs.csv"
            )
        wanted = [*(self.metrics or DEFAULT_METRICS), self.metric]
        if self.costs is not None:
            wanted.append(EXPECTED_COST)
        if not self.metrics and table.ordinal:
            wanted += ORDINAL_METRICS
        return list(dict.fromkeys([*wanted, *(["coverage"] if abstained else [])]))
