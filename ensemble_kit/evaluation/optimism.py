"""The optimism between a method's three figures: in-sample, cross-fitted, test.

Subtracts what others measured, and puts it in words.
"""

from __future__ import annotations

from typing import Any

from ensemble_kit.evaluation.evaluation import Evaluation


def optimism_json(evaluation: Evaluation) -> dict[str, Any]:
    """The block `optimism` of `metrics.json`: differences by metric, null where undefined."""
    names = evaluation.cross_fitted.metrics
    lost = {name: evaluation.lost_on_test(name) for name in names}
    return {
        "in_sample_minus_cross_fitted": {name: evaluation.optimism(name) for name in names},
        "cross_fitted_minus_test": None if evaluation.test is None else lost,
    }


def optimism_note(evaluation: Evaluation, metric: str) -> str:
    """By how much the in-sample and the cross-fitted figure were too high, or too low.

    Parameters
    ----------
    evaluation : Evaluation
    metric : str
        What is said, of all that were judged.
    """
    parts = {
        "in-sample - cross-fitted": evaluation.optimism(metric),
        "cross-fitted - test": evaluation.lost_on_test(metric),
    }
    told = [f"{name} {value:+.3f}" for name, value in parts.items() if value is not None]
    noun = metric.replace("_", " ")
    return f"Optimism of {evaluation.shown_name}, {noun}: {', '.join(told) or 'undefined'}."
