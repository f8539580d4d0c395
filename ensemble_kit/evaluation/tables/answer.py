"""The result of `stack` in a few sentences: what to use, the best method, and how it compares with the baselines.

The terminal and the report both print these sentences, from the values in `metrics.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.evaluation.scores.verdict import difference
from ensemble_kit.evaluation.tables.chance import above_chance, chance_of
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.winner import winner
from ensemble_kit.metrics import metric as metric_named

Stored = Mapping[str, Any]
VERDICTS = {
    "better": "It is better than {}: difference {}.",
    "worse": "It is worse than {}: difference {}.",
    "not shown": "It is not shown to be better than {}: difference {}.",
}
CLAIMS = {
    "better": "{} is better than {}.",
    "worse": "{} is worse than {}.",
    "not shown": "{} is not shown to be better than {}.",
}
NO_METHOD = "Only baselines were evaluated: there is no method to compare with them."


def chosen_of(methods: Mapping[str, Stored]) -> str | None:
    """The best method by cross-validation; None if there are only baselines."""
    if not methods:
        return None
    metric = next(iter(methods.values()))["metric"]
    values = {name: one["cross_fitted"][metric]["value"] for name, one in methods.items()}
    return winner(values, metric)


def part_of(method: Stored) -> str:
    """The part that the answer is about: the test part if there is one."""
    return "test" if method["test"] else "cross_fitted"


def claim(methods: Mapping[str, Stored]) -> str:
    """The verdict against the best single member in one short sentence without numbers.

    Parameters
    ----------
    methods : mapping of method to dict
        As for `answer`.
    """
    chosen = chosen_of(methods)
    if chosen is None:
        return _no_ensemble(methods)
    best = methods[chosen]
    found = _verdict(best, part_of(best), "best-member")
    noun = _best_member(methods)
    name = f"The ensemble ({chosen}{', replaced by the mean' * best['fell_back_to_mean']})"
    if len(best["member_names"]) == 1:
        return f"{name} has one member, so there is nothing to combine."
    if found is None or found["gain"]["value"] is None:
        return f"{name} cannot be compared with {noun}."
    return CLAIMS[found["word"]].format(name, noun)


def answer(methods: Mapping[str, Stored]) -> list[str]:
    """The result as sentences: the recommendation first.

    Parameters
    ----------
    methods : mapping of method to dict
        Each as in `metrics.json`, evaluated on the same tables by the same metric.
    """
    chosen = chosen_of(methods)
    if chosen is None:
        alone = _alone(methods)
        return [
            _no_ensemble(methods),
            *([_value_of(alone), *_warnings(methods, alone)] if alone else []),
        ]
    best = methods[chosen]
    if len(best["member_names"]) == 1:
        member = methods.get("best-member", best)
        return [recommendation(methods), _value_of(member), *_warnings(methods, member)]
    said = [recommendation(methods), _first(chosen, best, methods)]
    constant = _constant_warnings(methods, best)
    said += [*constant, *_comparisons(methods, best)]
    said += [] if constant or _none_to_use(methods, best) else _chance_warnings(methods, best)
    return said + (_cross_fitted(best, methods) if part_of(best) == "test" else [])


def recommendation(methods: Mapping[str, Stored]) -> str:
    """What to use: the best single member, unless the best ensemble is better."""
    chosen = chosen_of(methods)
    if chosen is None:
        return _no_ensemble(methods)
    best, noun = methods[chosen], _best_member(methods)
    name = _called(chosen, best)
    if len(best["member_names"]) == 1:
        member = best["member_names"][0]
        return f"Use the only member, {member}: with one member there is nothing to combine."
    part = part_of(best)
    chance = chance_of(best["metric"], best[part]) or chance_of(
        best["metric"], best["cross_fitted"]
    )
    words = (_verdict(one, part, "best-member") for one in methods.values())
    other_is_better = any(other is not None and other["word"] == "better" for other in words)
    if none := _none_to_use(methods, best):
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
    found = _deciding(best)
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
    found = _deciding(methods[chosen])
    if found is None or found["gain"]["value"] is None or found["word"] == "better":
        return None
    name = methods.get("best-member", {}).get("best_member")
    return None if name is None else str(name)


def constant_class(block: Stored) -> str | None:
    """The class that is predicted for all images of a part; None if several classes are predicted.

    Parameters
    ----------
    block : mapping
        A part of `metrics.json`.

    Examples
    --------
    >>> one = {"n": 3, "sensitivity": {"value": 1.0}, "specificity": {"value": 0.0}}
    >>> other = {"n": 2, "sensitivity": {"value": 0.0}, "specificity": {"value": 1.0}}
    >>> constant_class({"per_class": {"malignant": one, "benign": other}})
    'malignant'
    """
    for name, one in block.get("per_class", {}).items():
        all_called = one["sensitivity"]["value"] in (1.0, None)
        if all_called and one["specificity"]["value"] == 0.0:
            return str(name)
    return None


def _warnings(methods: Mapping[str, Stored], best: Stored) -> list[str]:
    return _constant_warnings(methods, best) or _chance_warnings(methods, best)


def _constant_warnings(methods: Mapping[str, Stored], best: Stored) -> list[str]:
    """Warnings that the best method, or the best member, predicts one class for all images."""
    part = part_of(best)
    constant: dict[str, list[str]] = {}
    for one in (best, methods.get("best-member")):
        found = None if one is None else constant_class(one[part])
        if one is not None and found is not None:
            constant.setdefault(found, []).append(_noun(one))
    where = "of the test part" if part == "test" else "(cross-fitted)"
    return [
        f"Warning: {' and '.join(dict.fromkeys(names))} {'predict' if len({*names}) > 1 else 'predicts'} "
        f"'{class_name}' for all {best[part]['n']} images {where}. The values of a constant prediction say "
        "nothing about the images."
        for class_name, names in constant.items()
    ]


def _noun(one: Stored) -> str:
    """A method as the subject of a warning; with one member, all methods are that member."""
    if len(one["member_names"]) == 1:
        return str(one["member_names"][0])
    return "the best member" if one["method"] == "best-member" else str(one["method"])


def _comparisons(methods: Mapping[str, Stored], best: Stored) -> list[str]:
    """The verdicts against the best member and the mean, and why none can be reached."""
    part, said = part_of(best), []
    for against, noun in (("best-member", "the best member"), ("mean", "the mean")):
        found = _verdict(best, part, against)
        said += [_compared(found, noun, methods.get(against), part, best)] if found else []
    said += [
        f"Nested cross-validation: {v['sentence']}"
        for v in best["verdicts"]
        if (v["part"], v["against"]) == ("nested", "best-member")
    ]
    few = next(
        (v["too_few"] for v in best["verdicts"] if v["part"] == part and v.get("too_few")), ""
    )
    return said + ([f"{few[0].upper()}{few[1:]}."] if few else [])


def _chance_warnings(methods: Mapping[str, Stored], best: Stored) -> list[str]:
    """A warning if the best method, or the best member, is not shown to be above chance."""
    some = [one for one in (best, methods.get("best-member")) if one is not None]
    names = list(dict.fromkeys(_noun(one) for one in some if _is_above(one) is False))
    if not names:
        return []
    chance = chance_of(best["metric"], best[part_of(best)])
    verb = "are" if len(names) > 1 else "is"
    return [f"Warning: {' and '.join(names)} {verb} not shown to be better than chance, {chance}."]


def _none_to_use(methods: Mapping[str, Stored], best: Stored) -> set[str]:
    """The methods at chance, if the one to recommend is among them; else empty.

    A method is at chance if it is not shown to be above chance on any part, and this is known.
    """
    found = _deciding(best)
    is_better = found is not None and found["word"] == "better"
    some = {one["method"]: one for one in (best, methods.get("best-member", best))}
    at_chance = {name for name, one in some.items() if _is_at_chance(one)}
    is_used = "best-member" in at_chance and not is_better
    return at_chance if is_used or at_chance == {*some} else set()


def _is_at_chance(one: Stored) -> bool:
    found = [_is_above(one, part) for part in ("cross_fitted", "test") if one[part]]
    return True not in found and False in found


def _is_above(best: Stored, part: str = "") -> bool | None:
    """Whether the method is above chance, by default on the part of the answer; None: not known."""
    name, part = best["metric"], part or part_of(best)
    values, moved = best[part], 0.0
    corrected = best.get("corrected_for_choice")
    if part == "cross_fitted" and corrected and corrected["value"] is not None:
        shift = corrected["value"] - values[name]["value"]
        moved = min(shift, 0.0) if metric_named(name).higher_is_better else max(shift, 0.0)
    return above_chance(name, values, moved=moved)


def chance_sentence(methods: Mapping[str, Stored]) -> str:
    """The chance level on the part that the answer is about; empty if it is not defined."""
    name = chosen_of(methods) or ("mean" if "mean" in methods else "")
    if not name:
        return ""
    best = methods[name]
    chance = chance_of(best["metric"], best[part_of(best)])
    return "" if chance is None else f"Chance level: {chance}."


def _verdict(best: Stored, part: str, against: str) -> Stored | None:
    found = [v for v in best["verdicts"] if (v["part"], v["against"]) == (part, against)]
    return found[0] if found else None


def _deciding(best: Stored) -> Stored | None:
    """The verdict against the best member: on the test part, else nested, else cross-fitted."""
    part = part_of(best)
    nested = None if part == "test" else _verdict(best, "nested", "best-member")
    return nested or _verdict(best, part, "best-member")


def _alone(methods: Mapping[str, Stored]) -> Stored | None:
    """The mean of a run's only member, which is that member; None if there are several."""
    mean = methods.get("mean")
    return mean if mean and len(mean["member_names"]) == 1 else None


def _no_ensemble(methods: Mapping[str, Stored]) -> str:
    """What there is in the place of an ensemble."""
    alone = _alone(methods)
    return f"One member, no ensemble: {alone['member_names'][0]}." if alone else NO_METHOD


def _called(name: str, one: Stored) -> str:
    return f"{name} (replaced by the mean)" if one["fell_back_to_mean"] else name


def _first(chosen: str, best: Stored, methods: Mapping[str, Stored]) -> str:
    n_methods = sum(name not in REFERENCE_METHODS for name in methods)
    name = _called(chosen, best)
    head = f"Method: {name}."
    if n_methods > 1:
        head = f"Best of {n_methods} methods by cross-validation (mean and best member are baselines): {name}."
    return f"{head} {_value_of(best)}"


def _value_of(best: Stored) -> str:
    """The value of one method on the part that the answer is about."""
    part, metric = part_of(best), best["metric"]
    values, noun = best[part], metric.replace("_", " ")
    value = Interval(**values[metric])
    if part == "test":
        return f"Its {noun} on the test part: {value} ({_size(best, values)})."
    corrected = f"{_corrected(best)}; report this value" if _corrected(best) else ""
    return f"Its {noun}, cross-fitted: {value}{corrected} ({_size(best, values)})."


def _cross_fitted(best: Stored, methods: Mapping[str, Stored]) -> list[str]:
    """The value that the choice was made by, beside the best member, and what is left of it."""
    if not best.get("corrected_for_choice"):
        return []
    noun, metric = best["metric"].replace("_", " "), best["metric"]
    other = methods.get("best-member")
    beside = f" (best member {Interval(**other['cross_fitted'][metric])})" if other else ""
    value = Interval(**best["cross_fitted"][metric])
    return [f"Its {noun}, cross-fitted: {value}{beside}{_corrected(best)}. Report the test value."]


def _corrected(best: Stored) -> str:
    corrected = best.get("corrected_for_choice")
    return (
        f"; corrected for choosing the best method: {Interval(corrected['value'])}"
        if corrected
        else ""
    )


def _size(best: Stored, values: Stored) -> str:
    unit = best["group_kind"]
    return f"{values['n']} images" + (
        "" if unit == "image" else f" of {values['n_groups']} {unit}s"
    )


def _best_member(methods: Mapping[str, Stored]) -> str:
    name = methods.get("best-member", {}).get("best_member")
    return f"the best single member, {name}" if name else "the best single member"


def _compared(found: Stored, noun: str, other: Stored | None, part: str, best: Stored) -> str:
    gain, name = Interval(**found["gain"]), found["metric"]
    if gain.value is None:
        return f"It cannot be compared with {noun}: {name} is undefined."
    value = difference(gain, higher_is_better=metric_named(name).higher_is_better)
    if other is not None:
        noun = f"{noun} ({Interval(other[part][name]['value'])})"
    value += "" if gain.low is not None or gain.high is not None else " (no interval)"
    said = VERDICTS[found["word"]].format(noun, value)
    excludes_zero = (
        gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)
    )
    if found.get("too_few") and excludes_zero:
        unit = best["group_kind"]
        said += f" The interval excludes 0, but too few {unit}s differ for a verdict."
    return said
