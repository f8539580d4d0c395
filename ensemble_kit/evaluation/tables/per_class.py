"""One-vs-rest metrics of each class as rows of text, for the best method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble_kit.evaluation.compare import chosen
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.evaluation.uncertainty.interval import Interval

# Only these columns show intervals, to keep lines short; metrics.json has the intervals of all.
WITH_INTERVAL = ("sensitivity", "specificity", "precision", "auroc")
COLUMNS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "auroc": "auroc",
    "average_precision": "avg precision",
}


def class_tables(
    evaluations: Mapping[str, Evaluation], protocol: Protocol, class_names: Sequence[str]
) -> dict[str, list[tuple[str, ...]]]:
    """Tables by title, with a header and one row per class: cross-fitted, then on the test part.

    The method is the best one by cross-validation, or the mean if only baselines were evaluated.
    """
    one = chosen(evaluations, protocol)
    return {
        f"{one.shown_name}, {PARTS[part]}": [
            ("class", "images", *COLUMNS.values()),
            *(
                (name, str(metrics.n), *(_cell(key, metrics[key]) for key in COLUMNS))
                for name, metrics in zip(class_names, of_class, strict=True)
            ),
        ]
        for part, of_class in one.per_class.items()
    }


def class_note() -> str:
    """Legend of the columns."""
    return (
        "Each class against the rest. AUROC and average precision rank images by the probability of "
        "that class. metrics.json has all intervals, and the other methods."
    )


def _cell(key: str, interval: Interval) -> str:
    return str(interval if key in WITH_INTERVAL else Interval(interval.value))
