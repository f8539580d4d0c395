"""The figures of ordered classes as rows of text: by how many grades methods err.

Computes nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.tables.leaderboard import methods_in_order, text
from ensemble_kit.metrics import ORDINAL_METRICS


def grades_table(
    judged: Mapping[str, Evaluation], protocol: Protocol, *, ordinal: bool
) -> list[tuple[str, ...]]:
    """Header and one row per method, of the test part where there is one; empty without grades."""
    if not ordinal:
        return []
    last = "test" if any(one.test is not None for one in judged.values()) else "cross_fitted"
    known = next(iter(judged.values())).cross_fitted.metrics
    shown = [name for name in ORDINAL_METRICS if name in known]
    if not shown:
        return []
    head = (f"grades: {last.replace('_', '-')}", *(name.replace("_", " ") for name in shown))
    rows = [
        (
            f"{judged[key].name}{'*' * judged[key].fell_back}",
            *(text(judged[key].parts[last][name]) for name in shown),
        )
        for key in methods_in_order(judged, protocol)
    ]
    return [head, *rows]


def grades_note(class_names: tuple[str, ...]) -> str:
    """What the columns are.

    Examples
    --------
    >>> print(grades_note(("0", "1+", "2+")))
    Grades: 0 < 1+ < 2+. Adjacent errors: off by one grade; far errors: by two or more.
    """
    return (
        f"Grades: {' < '.join(class_names)}. "
        "Adjacent errors: off by one grade; far errors: by two or more."
    )
