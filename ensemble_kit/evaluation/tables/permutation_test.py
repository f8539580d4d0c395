"""The null check as rows of text and as JSON values.

Computes nothing and prints nothing.
"""

from __future__ import annotations

from typing import Any

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.permutation_test import PermutationTest
from ensemble_kit.evaluation.tables.leaderboard import text
from ensemble_kit.evaluation.uncertainty.interval import Interval

NULL_CHECK = "null-check.json"


def null_rows(found: PermutationTest) -> list[tuple[str, ...]]:
    """Header and one row per method: the figure, then mean and range where there is nothing."""

    def spread(values: Array) -> str:
        return text(Interval(float(values.mean()), float(values.min()), float(values.max())))

    rows: list[tuple[str, ...]] = [
        ("null check", "cross-fitted", "labels permuted", "p", "members of noise", "reading")
    ]
    above, untested = found.above_chance, found.untested
    for name, one in found.methods.items():
        rows.append(
            (
                name,
                text(Interval(one.value)),
                spread(one.permuted),
                f"{one.p_value:.3f}",
                spread(one.noise),
                "ABOVE CHANCE"
                if name in above
                else "not tested"
                if name in untested
                else "at chance",
            )
        )
    return rows


def null_note(found: PermutationTest) -> str:
    """What the columns are."""
    draws = "1 draw" if found.n_draws == 1 else f"{found.n_draws} draws"
    return (
        f"{found.metric.replace('_', ' ')}, without falling back to the mean; where there is "
        f"nothing to find, mean [least, greatest] of {draws}. p: share of labellings, "
        "the real one included, on which the method does as well."
    )


def null_json(found: PermutationTest) -> dict[str, Any]:
    """Everything that was found, as JSON values."""
    return {
        "metric": found.metric,
        "n_draws": found.n_draws,
        "dealt": found.dealt,
        "methods": {
            name: {
                "value": one.value,
                "p_value": one.p_value,
                "labels_permuted": one.permuted.tolist(),
                "members_of_noise": one.noise.tolist(),
                "above_chance": found.above_chance.get(name, []),
            }
            for name, one in found.methods.items()
        },
        "sentence": found.sentence,
    }
