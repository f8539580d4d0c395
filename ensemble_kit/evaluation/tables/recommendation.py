"""What `stack` recommends: the best single member, the best ensemble, or nothing yet.

Decided from the values and verdicts in `metrics.json`. `result_sentences.py` puts the whole result into sentences.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ensemble_kit.evaluation.cross_validation.baselines import MEAN
from ensemble_kit.evaluation.tables.chance import above_chance, chance_of
from ensemble_kit.evaluation.winner import winner
from ensemble_kit.metrics import metric as metric_named

Stored = Mapping[str, Any]
BEST_MEMBER = "best-member"
NO_METHOD = "No method is stored."


def chosen_of(methods: Mapping[str, Stored]) -> str | None:
    """The best method by cross-validation; the mean if there are only baselines."""
    if not methods:
        return None
    metric = next(iter(methods.values()))["metric"]
    values = {name: one["cross_fitted"][metric]["value"] for name, one in methods.items()}
    return winner(values, metric)


def part_of(method: Stored) -> str:
    """The reported part: the test part if there is one."""
    return "test" if method["test"] else "cross_fitted"


def recommendation(methods: Mapping[str, Stored]) -> str:
    """What to use: the best single member, unless the best ensemble or the mean is better."""
    chosen = chosen_of(methods)
    if chosen is None:
        return NO_METHOD
    best, noun = methods[chosen], best_member_words(methods)
    name = called(chosen, best)
    if len(best["member_names"]) == 1:
        member = best["member_names"][0]
        return f"Use the only member, {member}: with one member there is nothing to combine."
    if none := none_to_use(methods, best):
        return _use_none(methods, best, none)
    used, found = method_to_use(methods), deciding_verdict(best)
    if found is None:
        return f"No recommendation: no comparison of {name} with {noun} is stored. Run stack again."
    if used is None:
        return f"No recommendation: {name} cannot be compared with {noun}."
    is_worse = found["word"] == "worse"
    if used == chosen:
        used = "the mean" if best["fell_back_to_mean"] else name
        return f"Use {used}: it is better than {noun}."
    if used == MEAN:
        verb = "is worse" if is_worse else "is not shown to be better"
        return (
            f"Use the mean of all members: it is better than {noun}. "
            f"The best method by cross-validation, {name}, {verb}."
        )
    if is_worse:
        return f"Use {noun}: the best ensemble, {name}, is worse."
    if _other_is_better(methods, best):
        return (
            f"Use {noun}: the best ensemble by cross-validation, {name}, is not shown to be better."
        )
    return f"Use {noun}: no ensemble is shown to be better."


def _use_none(methods: Mapping[str, Stored], best: Stored, at_chance: Collection[str]) -> str:
    noun, name = best_member_words(methods), called(best["method"], best)
    chance = chance_of(best["metric"], best[part_of(best)]) or chance_of(
        best["metric"], best["cross_fitted"]
    )
    comma = "," if "," in noun else ""
    if best["method"] in at_chance:
        return (
            f"Use none of these methods yet: neither {noun}{comma} nor the best ensemble, {name}, is "
            f"shown to be better than chance, {chance}."
        )
    is_other = _other_is_better(methods, best)
    return (
        f"Use none of these methods yet: {noun}{comma} is not shown to be better than chance, "
        f"{chance}, and {name if is_other else 'no ensemble'} is "
        f"{'not ' * is_other}shown to be better than it."
    )


def _other_is_better(methods: Mapping[str, Stored], best: Stored) -> bool:
    """Whether any method is better than the best member, on the reported part."""
    found = (verdict_against(one, part_of(best), BEST_MEMBER) for one in methods.values())
    return any(one is not None and one["word"] == "better" for one in found)


def method_to_use(methods: Mapping[str, Stored]) -> str | None:
    """The chosen method if it is better than the best member, else the mean if it is, else `best-member`.

    None if the chosen method cannot be compared with the best member.
    """
    chosen = chosen_of(methods)
    found = None if chosen is None else deciding_verdict(methods[chosen])
    if found is None or found["gain"]["value"] is None:
        return None
    if found["word"] == "better":
        return chosen
    mean = deciding_verdict(methods[MEAN]) if MEAN in methods else None
    return MEAN if mean is not None and mean["word"] == "better" else BEST_MEMBER


def none_to_use(methods: Mapping[str, Stored], best: Stored) -> set[str]:
    """The methods at chance, if the one to recommend is among them; else empty.

    A method is at chance if it is not shown to be above chance on any part, and this is known.
    """
    used = method_to_use(methods)
    names = {best["method"], BEST_MEMBER, used or BEST_MEMBER}
    some = {one["method"]: one for name in names for one in (methods.get(name, best),)}
    at_chance = {name for name, one in some.items() if is_at_chance(one)}
    is_used = BEST_MEMBER in at_chance and used in (None, BEST_MEMBER)
    return at_chance if is_used or at_chance == {*some} else set()


def is_at_chance(one: Stored) -> bool:
    """Whether the method is not shown to be above chance on any part, and this is known."""
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
    nested = None if part == "test" else verdict_against(best, "nested", BEST_MEMBER)
    return nested or verdict_against(best, part, BEST_MEMBER)


def called(name: str, one: Stored) -> str:
    """A method in a sentence, with a note if it was replaced by the mean."""
    return f"{name} (replaced by the mean)" if one["fell_back_to_mean"] else name


def best_member_words(methods: Mapping[str, Stored]) -> str:
    """The best single member in a sentence, with its name if it is known."""
    name = methods.get("best-member", {}).get("best_member")
    return f"the best single member, {name}" if name else "the best single member"
