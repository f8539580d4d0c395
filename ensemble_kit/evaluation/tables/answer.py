"""The result of `stack` in a few sentences: the best method, and whether it is better than the baselines.

The terminal and the report both print these sentences, from the values in `metrics.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.evaluation.tables.leaderboard import text
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.winner import winner

Stored = Mapping[str, Any]
VERDICTS = {
    "better": "It is better than {}: gain {}.",
    "worse": "It is worse than {}: gain {}.",
    "not shown": "It is not shown to be better than {}: gain {}.",
}


def chosen_of(methods: Mapping[str, Stored]) -> str | None:
    """The best method by cross-validation; None if there are only baselines."""
    if not methods:
        return None
    metric = next(iter(methods.values()))["metric"]
    values = {name: one["cross_fitted"][metric]["value"] for name, one in methods.items()}
    return winner(values, metric)


def answer(methods: Mapping[str, Stored]) -> list[str]:
    """The result as sentences.

    Parameters
    ----------
    methods : mapping of method to dict
        Each as in `metrics.json`, evaluated on the same tables by the same metric.
    """
    chosen = chosen_of(methods)
    if chosen is None:
        return ["Only baselines were evaluated: there is no method to compare with them."]
    best = methods[chosen]
    part = "test" if best["test"] else "cross_fitted"
    said = [_first(chosen, best, methods, part)]
    for against, noun in (
        ("best-member", _best_member(methods)),
        ("mean", "the mean of all members"),
    ):
        found = [v for v in best["verdicts"] if (v["part"], v["against"]) == (part, against)]
        said += [_compared(found[0], noun, methods.get(against), part)] if found else []
    said += [
        f"Nested cross-validation: {v['sentence']}"
        for v in best["verdicts"]
        if (v["part"], v["against"]) == ("nested", "best-member")
    ]
    few = next(
        (v["too_few"] for v in best["verdicts"] if v["part"] == part and v.get("too_few")), ""
    )
    return said + ([f"{few[0].upper()}{few[1:]}."] if few else [])


def _first(chosen: str, best: Stored, methods: Mapping[str, Stored], part: str) -> str:
    metric, values = best["metric"], best[part]
    n_methods = sum(name not in REFERENCE_METHODS for name in methods)
    among = f" of {n_methods} methods" if n_methods > 1 else ""
    name = f"{chosen} (replaced by the mean)" if best["fell_back_to_mean"] else chosen
    head = f"Best{among} by cross-validation: {name}." if among else f"Method: {name}."
    noun = metric.replace("_", " ")
    value = text(Interval(**values[metric]))
    if part == "test":
        return f"{head} Its {noun} on the test part: {value} ({_size(best, values)})."
    corrected = best.get("corrected_for_choice")
    after = f", corrected for the choice {text(Interval(corrected['value']))}" if corrected else ""
    return f"{head} Its {noun}, cross-fitted: {value}{after} ({_size(best, values)})."


def _size(best: Stored, values: Stored) -> str:
    unit = best["group_kind"]
    return f"{values['n']} images" + (
        "" if unit == "image" else f" of {values['n_groups']} {unit}s"
    )


def _best_member(methods: Mapping[str, Stored]) -> str:
    name = methods.get("best-member", {}).get("best_member")
    return f"the best single member, {name}" if name else "the best single member"


def _compared(found: Stored, noun: str, other: Stored | None, part: str) -> str:
    gain = found["gain"]
    if gain["value"] is None:
        return f"It cannot be compared with {noun}: {found['metric']} is undefined."
    value = f"{gain['value']:+.3f}"
    if gain["low"] is not None:
        value += f" [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    if other is not None:
        noun = f"{noun} ({text(Interval(other[part][found['metric']]['value']))})"
    said = VERDICTS[found["word"]].format(noun, value)
    excludes_zero = gain["low"] is not None and not gain["low"] <= 0 <= gain["high"]
    if found.get("too_few") and excludes_zero:
        said += " The interval excludes 0, but too few patients differ for a verdict."
    return said
