"""The metrics of ordinal classes as rows of text."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.tables.leaderboard import methods_in_order
from ensemble_kit.metrics import ORDINAL_METRICS


def ordinal_table(
    evaluations: Mapping[str, Evaluation], protocol: Protocol, *, ordinal: bool
) -> list[tuple[str, ...]]:
    """Header and one row per method, of the test part if there is one; empty without an order."""
    if not ordinal:
        return []
    last = "test" if any(one.test is not None for one in evaluations.values()) else "cross_fitted"
    known = next(iter(evaluations.values())).cross_fitted.metrics
    shown = [name for name in ORDINAL_METRICS if name in known]
    if not shown:
        return []
    head = (f"ordinal: {last.replace('_', '-')}", *(name.replace("_", " ") for name in shown))
    rows = [
        (
            f"{evaluations[key].name}{'*' * evaluations[key].fell_back}",
            *(str(evaluations[key].parts[last][name]) for name in shown),
        )
        for key in methods_in_order(evaluations, protocol)
    ]
    return [head, *rows]


def ordinal_note(class_names: tuple[str, ...]) -> str:
    """Legend of the table.

    Examples
    --------
    >>> print(ordinal_note(("0", "1+", "2+")))
    Class order: 0 < 1+ < 2+. Adjacent errors: off by one class. Far errors: off by two or more.
    """
    return (
        f"Class order: {' < '.join(class_names)}. "
        "Adjacent errors: off by one class. Far errors: off by two or more."
    )
