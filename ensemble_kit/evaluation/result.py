"""One combiner, judged: its figures, verdicts, tests and notes as one value.

Holds what `evaluate` found; computes nothing but differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ensemble_kit.combiners.base import Combined, Combiner
from ensemble_kit.evaluation.clinical.block import Clinical
from ensemble_kit.evaluation.scores.baseline_tests import BaselineTest
from ensemble_kit.evaluation.scores.per_class import ClassFigures
from ensemble_kit.evaluation.scores.per_group import GroupFigures
from ensemble_kit.evaluation.scores.per_image import MetricValues
from ensemble_kit.evaluation.scores.verdict import Verdict
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.selection_bias import CorrectedChoice
from ensemble_kit.metrics.costs import CostMatrix


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """One combiner, judged.

    Parameters
    ----------
    name : str
    combiner : Combiner
        Fitted to the whole out-of-fold table: the one to deploy.
    in_sample, cross_fitted, test : MetricValues
        On the rows it was fitted to; on rows of other groups; on the test table (None without).
    nested : MetricValues or None
        On rows whose fold neither members nor combiner saw; None without nested predictions.
    coupling : mapping of metric to Interval
        Cross-fitted minus nested, on the same resamples; empty without nested predictions.
    oof_combined, test_combined : Combined
        The cross-fitted and the test answers.
    verdicts : tuple of Verdict
        Against the best member and the mean, on the cross-fitted and the test part.
    notes : tuple of str
        What belongs beside every figure.
    fell_back : bool
        Whether the plain mean is used in its place.
    per_group : mapping of part to GroupFigures
        Per patient; empty where every image is its own group.
    per_class : mapping of part to tuple of ClassFigures
        Each class against the rest, cross-fitted and on the test; empty for the oracle.
    costs : CostMatrix or None
        What errors were said to cost.
    decided_by_cost : bool
        Whether classes are those of least expected cost, not the likeliest.
    tests : tuple of BaselineTest
        Against the best member and the mean, p values adjusted over the methods of the table; none
        where images share a group.
    corrected : CorrectedChoice or None
        Of the method that is best cross-fitted: its metric, corrected for having been chosen.
    positive : str or None
        The class that must not be missed; None where it is not known.
    ranked_class : str or None
        Of two classes, the one whose average precision is computed.
    clinical : Clinical or None
        Of the method that the verdict is about.
    metric : str
        Methods are ranked and compared by it.
    """

    name: str
    combiner: Combiner
    in_sample: MetricValues
    cross_fitted: MetricValues
    test: MetricValues | None
    oof_combined: Combined
    test_combined: Combined | None
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    fell_back: bool = False
    per_group: Mapping[str, GroupFigures] = dataclasses.field(default_factory=dict)
    per_class: Mapping[str, tuple[ClassFigures, ...]] = dataclasses.field(default_factory=dict)
    tests: tuple[BaselineTest, ...] = ()
    nested: MetricValues | None = None
    coupling: Mapping[str, Interval] = dataclasses.field(default_factory=dict)
    costs: CostMatrix | None = None
    decided_by_cost: bool = False
    corrected: CorrectedChoice | None = None
    positive: str | None = None
    ranked_class: str | None = None
    clinical: Clinical | None = None
    metric: str = "balanced_accuracy"

    @property
    def shown_name(self) -> str:
        """The name, and whether the mean stands behind it."""
        return replaced_name(self.name) if self.fell_back else self.name

    @property
    def parts(self) -> dict[str, MetricValues]:
        """The figures by part, in the order in which they are read."""
        found = {
            "in_sample": self.in_sample,
            "cross_fitted": self.cross_fitted,
            "nested": self.nested,
            "test": self.test,
        }
        return {part: figures for part, figures in found.items() if figures is not None}

    def optimism(self, name: str) -> float | None:
        """In-sample minus cross-fitted: what a figure on the fitted rows would have pretended."""
        return _difference(self.in_sample, self.cross_fitted, name)

    def lost_on_test(self, name: str) -> float | None:
        """Cross-fitted minus test: what the folds promised beyond what new groups kept."""
        return None if self.test is None else _difference(self.cross_fitted, self.test, name)


def _difference(first: MetricValues, then: MetricValues, name: str) -> float | None:
    if name not in first.metrics or name not in then.metrics:  # coverage, where nobody abstained
        return None
    a, b = first[name].value, then[name].value
    return None if a is None or b is None else a - b


def replaced_name(name: str) -> str:
    """What a method is called that the mean stands behind."""
    return f"{name} (fell back to mean)"
