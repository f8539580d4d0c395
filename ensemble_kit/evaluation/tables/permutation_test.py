"""The permutation test as rows of text and as JSON values."""

from __future__ import annotations

from typing import Any

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.permutation_test import PermutationTest
from ensemble_kit.evaluation.uncertainty.interval import Interval

PERMUTATION_TEST = "permutation-test.json"


def permutation_rows(found: PermutationTest) -> list[tuple[str, ...]]:
    """Header and one row per method: its metric, then mean and range under permuted labels and noise."""

    def spread(values: Array) -> str:
        return str(Interval(float(values.mean()), float(values.min()), float(values.max())))

    rows: list[tuple[str, ...]] = [
        ("permutation test", "cross-fitted", "labels permuted", "p", "noise members", "result")
    ]
    above, untested = found.above_chance, found.untested
    for name, one in found.methods.items():
        rows.append(
            (
                name,
                str(Interval(one.value)),
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


def permutation_note(found: PermutationTest) -> str:
    """Legend of the columns."""
    draws = "1 draw" if found.n_draws == 1 else f"{found.n_draws} draws"
    return (
        f"Metric: {found.metric.replace('_', ' ')}; no method is replaced by the mean here. Permuted "
        f"labels and noise members: mean [minimum, maximum] of {draws}. p: share of labellings, the "
        "real one included, on which the method scores at least as well as on the real one. One method "
        "ABOVE CHANCE is an alarm: the result is tested at 5 % over all methods together (Bonferroni)."
    )


def permutation_json(found: PermutationTest) -> dict[str, Any]:
    """The result as JSON values."""
    return {
        "metric": found.metric,
        "n_draws": found.n_draws,
        "permuted": found.permutation,
        "methods": {
            name: {
                "value": one.value,
                "p_value": one.p_value,
                "permuted_labels": one.permuted.tolist(),
                "noise_members": one.noise.tolist(),
                "above_chance": found.above_chance.get(name, []),
            }
            for name, one in found.methods.items()
        },
        "sentence": found.sentence,
    }
