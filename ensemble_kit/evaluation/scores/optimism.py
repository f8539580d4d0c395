"""Differences between a method's metrics in-sample, cross-fitted and on the test part.

Only in-sample minus cross-fitted is optimism. Test images come from other patients, and are
predicted by the average of the models of all folds.
"""

from __future__ import annotations

from typing import Any

from ensemble_kit.evaluation.result import Evaluation


def optimism_json(evaluation: Evaluation) -> dict[str, Any]:
    """The block `differences` of `metrics.json`, by metric; null if undefined."""
    names = evaluation.cross_fitted.metrics
    lost = {name: evaluation.lost_on_test(name) for name in names}
    return {
        "in_sample_minus_cross_fitted": {name: evaluation.optimism(name) for name in names},
        "cross_fitted_minus_test": None if evaluation.test is None else lost,
    }


def optimism_note(evaluation: Evaluation, metric: str) -> str:
    """In-sample minus cross-fitted of one metric, as a sentence."""
    value = evaluation.optimism(metric)
    noun = metric.replace("_", " ")
    told = "undefined" if value is None else f"in-sample - cross-fitted {value:+.3f}"
    return f"Optimism of {evaluation.shown_name}, {noun}: {told}."
