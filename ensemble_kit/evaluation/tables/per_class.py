"""Each class against the rest as rows of text, of the ensemble that the verdict is about.

Computes nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble_kit.evaluation.compare import chosen
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.evaluation.tables.leaderboard import text
from ensemble_kit.evaluation.uncertainty.interval import Interval

# All have an interval in metrics.json; here those without one keep lines short.
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
    judged: Mapping[str, Evaluation], protocol: Protocol, class_names: Sequence[str]
) -> dict[str, list[tuple[str, ...]]]:
    """By title, header and one row per class: cross-fitted, then on the test, of one method.

    That is the ensemble that is best cross-fitted, or the mean where only baselines were judged.
    """
    one = chosen(judged, protocol) or judged["mean"]
    return {
        f"{one.shown_name}, {PARTS[part]}": [
            ("class", "images", *COLUMNS.values()),
            *(
                (name, str(figures.n), *(_cell(key, figures[key]) for key in COLUMNS))
                for name, figures in zip(class_names, of_class, strict=True)
            ),
        ]
        for part, of_class in one.per_class.items()
    }


def class_note() -> str:
    """What the columns are."""
    return (
        "Each class against the rest; auroc and average precision by its probability. "
        "All intervals, and those of the other methods: metrics.json."
    )


def _cell(key: str, interval: Interval) -> str:
    return text(interval if key in WITH_INTERVAL else Interval(interval.value))
