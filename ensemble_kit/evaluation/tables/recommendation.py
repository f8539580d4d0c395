"""What `stack` recommends: the best single member, the best ensemble, or nothing yet.

Decided from the values and verdicts in `metrics.json`. `result_sentences.py` puts the whole result into sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensemble_kit.evaluation.tables.chance import above_chance, chance_of
from ensemble_kit.evaluation.winner import winner
from ensemble_kit.metrics import metric as metric_named

Stored = Mapping[str, Any]
NO_METHOD = "Only baselines were evaluated: there is no method to compare with them."


def chosen_of(methods: Mapping[str, Stored]) -> str | None:
    """The best method by cross-validation; None if there are only baselines."""
    if not methods:
        return None
    metric = next(iter(methods.values()))["metric"]
    values = {name: one["cross_fitted"][metric]["value"] for name, one in methods.items()}
    return winner(values, metric)


def part_of(method: Stored) -> str:
    """The reported part: the test part if there is one."""
    return "test" if method["test"] else "cross_fitted"


def recommendation(methods: Mapping[str, Stored]) -> str:
    """What to use: the best single member, unless the best ensemble is better."""
    chosen = chosen_of(methods)
    if chosen is None:
        return no_ensemble(methods)
    best, noun = methods[chosen], best_member_words(methods)
    name = called(chosen, best)
    if len(best["member_names"]) == 1:
        member = best["member_names"][0]
        return f"Use the only member, {member}: with one member there is nothing to combine."
    part = part_of(best)
    chance = chance_of(best["metric"], best[part]) or chance_of(
        best["metric"], best["cross_fitted"]
    )
    words = (verdict_against(one, part, "best-member") for one in methods.values())
    other_is_better = any(other is not None and other["word"] == "better" for other in words)
    if none := none_to_use(methods, best):
        comma = "," if "," in noun else ""
        if best["method"] in none:
            return (
                f"Use none of these methods yet: neither {noun}{comma} nor the best ensemble, {name}, is "
                f"shown to be better than chance, {chance}."
            )
        return (
            f"Use none of these methods yet: {noun}{comma} is not shown to be better than chance, "
            f"{chance}, and {name if other_is_better else 'no ensemble'} is "
            f"{'not ' * other_is_better}shown to be better than it."
        )
    found = deciding_verdict(best)
    if found is None or found["gain"]["value"] is None:
        return f"No recommendation: {name} cannot be compared with {noun}."
    if found["word"] == "better":
        used = "the mean" if best["fell_back_to_mean"] else name
        return f"Use {used}: it is better than {noun}."
    if found["word"] == "worse":
        return f"Use {noun}: the best ensemble, {name}, is worse."
    if other_is_better:
        return (
            f"Use {noun}: the best ensemble by cross-validation, {name}, is not shown to be better."
        )
    return f"Use {noun}: no ensemble is shown to be better."


def recommended_member(methods: Mapping[str, Stored]) -> str | None:
    """The single member that is recommended; None if the best ensemble is better, or is unknown."""
    chosen = chosen_of(methods)
    if chosen is None or len(methods[chosen]["member_names"]) == 1:
        return None
    found = deciding_verdict(methods[chosen])
    if found is None or found["gain"]["value"] is None or found["word"] == "better":
        return None
    name = methods.get("best-member", {}).get("best_member")
    return None if name is None else str(name)


def none_to_use(methods: Mapping[str, Stored], best: Stored) -> set[str]:
    """The methods at chance, if the one to recommend is among them; else empty.

    A method is at chance if it is not shown to be above chance on any part, and this is known.
    """
    found = deciding_verdict(best)
    is_better = found is not None and found["word"] == "better"
    some = {one["method"]: one for one in (best, methods.get("best-member", best))}
    at_chance = {name for name, one in some.items() if _is_at_chance(one)}
    is_used = "best-member" in at_chance and not is_better
    return at_chance if is_used or at_chance == {*some} else set()


def _is_at_chance(one: Stored) -> bool:
    found = [is_above(one, part) for part in ("cross_fitted", "test") if one[part]]
    return True not in found and False in found


def is_above(best: Stored, part: str = "") -> bool | None:
    """Whether the method is above chance, by default on the reported part; None: not known."""
    name, part = best["metric"], part or part_of(best)
    values, moved = best[part], 0.0
    corrected = best.get("corrected_for_choice")
    if part == "cross_fitted" and corrected and corrected["value"] is not None:
        shift = corrected["value"] - values[name]["value"]
        moved = min(shift, 0.0) if metric_named(name).higher_is_better else max(shift, 0.0)
    return above_chance(name, values, moved=moved)


def verdict_against(best: Stored, part: str, against: str) -> Stored | None:
    """The verdict against a baseline on a part; None if there is none."""
    found = [v for v in best["verdicts"] if (v["part"], v["against"]) == (part, against)]
    return found[0] if found else None


def deciding_verdict(best: Stored) -> Stored | None:
    """The verdict against the best member: on the test part, else nested, else cross-fitted."""
    part = part_of(best)
    nested = None if part == "test" else verdict_against(best, "nested", "best-member")
    return nested or verdict_against(best, part, "best-member")


def only_member(methods: Mapping[str, Stored]) -> Stored | None:
    """The mean of a run's only member, which is that member; None if there are several."""
    mean = methods.get("mean")
    return mean if mean and len(mean["member_names"]) == 1 else None


def no_ensemble(methods: Mapping[str, Stored]) -> str:
    """The sentence on a run without an ensemble."""
    alone = only_member(methods)
    return f"One member, no ensemble: {alone['member_names'][0]}." if alone else NO_METHOD


def called(name: str, one: Stored) -> str:
    """A method in a sentence, with a note if it was replaced by the mean."""
    return f"{name} (replaced by the mean)" if one["fell_back_to_mean"] else name


def best_member_words(methods: Mapping[str, Stored]) -> str:
    """The best single member in a sentence, with its name if it is known."""
    name = methods.get("best-member", {}).get("best_member")
    return f"the best single member, {name}" if name else "the best single member"
