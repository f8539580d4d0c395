"""The result of `evaluate` for one combiner: metrics, verdicts, tests and caveats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.evaluation.clinical.block import Clinical
from ensemble_kit.evaluation.scores.baseline_tests import BaselineTest
from ensemble_kit.evaluation.scores.per_class import ClassMetrics
from ensemble_kit.evaluation.scores.per_group import GroupMetrics
from ensemble_kit.evaluation.scores.per_image import MetricValues
from ensemble_kit.evaluation.scores.verdict import Verdict
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.selection_bias import CorrectedChoice
from ensemble_kit.metrics.costs import CostMatrix
from ensemble_kit.predictions.method_predictions import MethodPredictions


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of one combiner.

    Parameters
    ----------
    name : str
    combiner : Combiner
        Fitted to the whole out-of-fold table; use this one on new images.
    in_sample, cross_fitted, test : MetricValues
        Metrics on the rows it was fitted to; on rows of other folds; on the test table, else None.
    nested : MetricValues or None
        Metrics on folds that neither members nor combiner were trained on; else None.
    base_model_leakage : mapping of metric to Interval
        Cross-fitted minus nested, paired; empty without nested predictions.
    oof_combined, test_combined : MethodPredictions
        The cross-fitted and the test predictions.
    verdicts : tuple of Verdict
        Verdicts against the best member and the mean, on the cross-fitted, nested and test part.
    notes : tuple of str
        Caveats, to be shown beside every metric.
    fell_back : bool
        Whether the method was replaced by the mean.
    per_group : mapping of part to GroupMetrics
        Metrics per patient; empty if every image is its own group.
    per_class : mapping of part to tuple of ClassMetrics
        Each class against the rest, cross-fitted and on the test part; empty for the oracle.
    costs : CostMatrix or None
        Costs of errors.
    decided_by_cost : bool
        Whether predicted classes are the classes of least expected cost.
    tests : tuple of BaselineTest
        Tests against the best member and the mean, Holm-adjusted over the methods of the table;
        empty if images share a group.
    corrected : CorrectedChoice or None
        The metric corrected for the choice; only of the best cross-fitted method.
    positive : str or None
        The positive class; None if it is not known.
    ranked_class : str or None
        Of two classes, the one whose average precision is computed.
    clinical : Clinical or None
        The clinical block; only of the method that the verdict is about.
    metric : str
        The metric that methods are ranked and compared by.
    """

    name: str
    combiner: Combiner
    in_sample: MetricValues
    cross_fitted: MetricValues
    test: MetricValues | None
    oof_combined: MethodPredictions
    test_combined: MethodPredictions | None
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    fell_back: bool = False
    per_group: Mapping[str, GroupMetrics] = dataclasses.field(default_factory=dict)
    per_class: Mapping[str, tuple[ClassMetrics, ...]] = dataclasses.field(default_factory=dict)
    tests: tuple[BaselineTest, ...] = ()
    nested: MetricValues | None = None
    base_model_leakage: Mapping[str, Interval] = dataclasses.field(default_factory=dict)
    costs: CostMatrix | None = None
    decided_by_cost: bool = False
    corrected: CorrectedChoice | None = None
    positive: str | None = None
    ranked_class: str | None = None
    clinical: Clinical | None = None
    metric: str = "balanced_accuracy"

    @property
    def shown_name(self) -> str:
        """The name, marked if the method was replaced by the mean."""
        return replaced_name(self.name) if self.fell_back else self.name

    @property
    def parts(self) -> dict[str, MetricValues]:
        """The metrics by part: in-sample, cross-fitted, nested, test."""
        found = {
            "in_sample": self.in_sample,
            "cross_fitted": self.cross_fitted,
            "nested": self.nested,
            "test": self.test,
        }
        return {part: values for part, values in found.items() if values is not None}

    def optimism(self, name: str) -> float | None:
        """Optimism: in-sample minus cross-fitted; None if undefined."""
        return _difference(self.in_sample, self.cross_fitted, name)

    def optimism_sentence(self, metric: str) -> str:
        """In-sample minus cross-fitted of one metric, as a sentence."""
        value = self.optimism(metric)
        change = "undefined" if value is None else f"in-sample - cross-fitted {value:+.3f}"
        return f"Optimism of {self.shown_name}, {metric.replace('_', ' ')}: {change}."

    def lost_on_test(self, name: str) -> float | None:
        """Cross-fitted minus test; None if undefined."""
        return None if self.test is None else _difference(self.cross_fitted, self.test, name)


def _difference(first: MetricValues, then: MetricValues, name: str) -> float | None:
    if name not in first.metrics or name not in then.metrics:  # coverage, if no method abstained
        return None
    a, b = first[name].value, then[name].value
    return None if a is None or b is None else a - b


def replaced_name(name: str) -> str:
    """The printed name of a method that was replaced by the mean."""
    return f"{name} (replaced by the mean)"
