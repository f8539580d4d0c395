"""The result of `stack` in a few sentences: what to use, the best method, and how it compares with the baselines.

The terminal and the report both print these sentences, from the values in `metrics.json`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.evaluation.cross_validation.baselines import MEAN, REFERENCE_METHODS
from ensemble_kit.evaluation.scores.verdict import PARTS, difference
from ensemble_kit.evaluation.tables.chance import chance_of
from ensemble_kit.evaluation.tables.recommendation import (
    BEST_MEMBER,
    Stored,
    best_member_words,
    called,
    chosen_of,
    deciding_verdict,
    is_above,
    method_to_use,
    none_to_use,
    part_of,
    recommendation,
    verdict_against,
)
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.metrics import metric as metric_named

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


def verdict_sentence(methods: Mapping[str, Stored]) -> str:
    """The verdict against the best single member in one short sentence without numbers.

    Parameters
    ----------
    methods : mapping of method to dict
        As for `result_sentences`.
    """
    chosen = chosen_of(methods)
    if chosen is None:
        return recommendation(methods)
    best = methods[chosen]
    if len(best["member_names"]) == 1:
        return f"One member, {best['member_names'][0]}: there is nothing to combine."
    found = verdict_against(best, part_of(best), "best-member")
    noun = best_member_words(methods)
    name = f"The ensemble ({chosen}{', replaced by the mean' * best['fell_back_to_mean']})"
    if found is None or found["gain"]["value"] is None:
        return f"{name} cannot be compared with {noun}."
    return CLAIMS[found["word"]].format(name, noun)


def result_sentences(methods: Mapping[str, Stored]) -> list[str]:
    """The result as sentences: the recommendation first.

    Parameters
    ----------
    methods : mapping of method to dict
        Each as in `metrics.json`, evaluated on the same tables by the same metric.
    """
    chosen = chosen_of(methods)
    if chosen is None:
        return [recommendation(methods)]
    best = methods[chosen]
    if len(best["member_names"]) == 1:
        member = methods.get("best-member", best)
        return [recommendation(methods), _value_of(member), *_warnings(methods, member)]
    sentences = [recommendation(methods), _first(chosen, best, methods)]
    constant = _constant_warnings(methods, best)
    sentences += [*constant, *_comparisons(methods, best)]
    sentences += [] if constant or none_to_use(methods, best) else _chance_warnings(methods, best)
    return sentences + (_cross_fitted(best, methods) if part_of(best) == "test" else [])


def paper_sentence(methods: Mapping[str, Stored], level: float = 0.95) -> str:
    """The reported values of the best method and of the best member, with their verdict, for a paper.

    Parameters
    ----------
    methods : mapping of method to dict
        As for `result_sentences`.
    level : float
        Confidence level of the intervals.
    """
    chosen, member = chosen_of(methods), methods.get(BEST_MEMBER)
    if chosen is None or member is None:
        return ""
    is_alone = len(member["member_names"]) == 1
    name = BEST_MEMBER if is_alone else MEAN if method_to_use(methods) == MEAN else chosen
    best, found = methods[name], None if is_alone else deciding_verdict(methods[name])
    part = found["part"] if found is not None else part_of(best)
    metric, n_methods = best["metric"], _n_methods(methods)
    of = f" (best of {n_methods} methods by cross-validation)" if n_methods > 1 else ""
    noun = best["member_names"][0] if is_alone else called(name, best) + of * (name == chosen)
    value = _constant_or_value(best, part, metric)
    value += _corrected(best) if part == "cross_fitted" and not is_alone else ""
    text = (
        f"{metric.replace('_', ' ')} on {_size(best, best[part])} ({PARTS[part]}): {noun} {value}"
    )
    if not is_alone:
        text += f"; {best_member_words(methods)}, {_constant_or_value(member, part, metric)}"
    if found is not None and found["gain"]["value"] is not None:
        gain = difference(
            Interval(**found["gain"]), higher_is_better=metric_named(metric).higher_is_better
        )
        text += (
            f"; difference {gain}, {found['word']}{' to differ' * (found['word'] == 'not shown')}"
        )
        text += found.get("too_few", "").replace("no difference can be shown", "")
    if "[" not in text:
        return f"{text}. There are no confidence intervals."
    unit = best["group_kind"]
    return (
        f"{text}. In brackets: {100 * level:g} % confidence intervals by a delete-one-{unit} jackknife, "
        "stratified by class, with Student's t (Wilson's form if the metric has two bounds)."
    )


def _constant_or_value(one: Stored, part: str, metric: str) -> str:
    """The value with its interval; of a constant prediction the value and the class only."""
    constant = constant_class(one[part])
    if constant is None:
        return str(Interval(**one[part][metric]))
    return f"{Interval(one[part][metric]['value'])} (predicts '{constant}' for all images)"


def _n_methods(methods: Mapping[str, Stored]) -> int:
    return sum(name not in REFERENCE_METHODS for name in methods)


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
    part, sentences = part_of(best), []
    for against, noun in (("best-member", "the best member"), ("mean", "the mean")):
        found = verdict_against(best, part, against)
        sentences += [_compared(found, noun, methods.get(against), part, best)] if found else []
    sentences += [
        f"Nested cross-validation: {v['sentence']}"
        for v in best["verdicts"]
        if (v["part"], v["against"]) == ("nested", "best-member")
    ]
    few = next(
        (v["too_few"] for v in best["verdicts"] if v["part"] == part and v.get("too_few")), ""
    )
    return sentences + ([f"{few[0].upper()}{few[1:]}."] if few else [])


def _chance_warnings(methods: Mapping[str, Stored], best: Stored) -> list[str]:
    """A warning if the best method, or the best member, is not shown to be above chance."""
    some = [one for one in (best, methods.get("best-member")) if one is not None]
    names = list(dict.fromkeys(_noun(one) for one in some if is_above(one) is False))
    if not names:
        return []
    chance = chance_of(best["metric"], best[part_of(best)])
    verb = "are" if len(names) > 1 else "is"
    return [f"Warning: {' and '.join(names)} {verb} not shown to be better than chance, {chance}."]


def chance_sentence(methods: Mapping[str, Stored]) -> str:
    """The chance level on the reported part; empty if it is not defined."""
    name = chosen_of(methods) or ("mean" if "mean" in methods else "")
    if not name:
        return ""
    best = methods[name]
    chance = chance_of(best["metric"], best[part_of(best)])
    return "" if chance is None else f"Chance level: {chance}."


def _first(chosen: str, best: Stored, methods: Mapping[str, Stored]) -> str:
    n_methods = _n_methods(methods)
    name = called(chosen, best)
    head = f"Method: {name}."
    if n_methods > 1:
        head = f"Best of {n_methods} methods by cross-validation (mean and best member are baselines): {name}."
    return f"{head} {_value_of(best)}"


def _value_of(best: Stored) -> str:
    """The value of one method on the reported part."""
    part, metric = part_of(best), best["metric"]
    values, noun = best[part], metric.replace("_", " ")
    value = Interval(**values[metric])
    if part == "test":
        return f"Its {noun} on the test part: {value} ({_size(best, values)})."
    corrected = f"{_corrected(best)}; report this value" if _corrected(best) else ""
    return f"Its {noun}, cross-fitted: {value}{corrected} ({_size(best, values)})."


def _cross_fitted(best: Stored, methods: Mapping[str, Stored]) -> list[str]:
    """The cross-fitted value, beside the best member, and its correction for the choice."""
    if not best.get("corrected_for_choice"):
        return []
    noun, metric = best["metric"].replace("_", " "), best["metric"]
    other = methods.get("best-member")
    beside = f" (best member {Interval(**other['cross_fitted'][metric])})" if other else ""
    value = Interval(**best["cross_fitted"][metric])
    return [
        f"Its {noun}, cross-fitted: {value}{beside}{_corrected(best)}. Only for information: report the test value."
    ]


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


def _compared(found: Stored, noun: str, other: Stored | None, part: str, best: Stored) -> str:
    gain, name = Interval(**found["gain"]), found["metric"]
    if gain.value is None:
        return f"It cannot be compared with {noun}: {name} is undefined."
    value = difference(gain, higher_is_better=metric_named(name).higher_is_better)
    if other is not None:
        noun = f"{noun} ({Interval(other[part][name]['value'])})"
    value += "" if gain.low is not None or gain.high is not None else " (no interval)"
    text = VERDICTS[found["word"]].format(noun, value)
    excludes_zero = (
        gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)
    )
    if found.get("too_few") and excludes_zero:
        unit = best["group_kind"]
        text += f" The interval excludes 0, but too few {unit}s differ for a verdict."
    return text
