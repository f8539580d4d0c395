"""The verdict on an ensemble against a simpler choice: better, not shown, or worse; in one sentence.

Rests on paired group resamples; where several methods are compared, "better" holds for all of
them at once. Over a handful of groups resamples look surer than they are, so nothing is shown
there. Knows no combiner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from ensemble_kit.evaluation.bootstrap import Interval
from ensemble_kit.evaluation.figures import Figures, Resampled
from ensemble_kit.evaluation.jointly import joint_intervals
from ensemble_kit.metrics import metric

PARTS = {
    "in_sample": "in-sample",
    "cross_fitted": "cross-fitted",
    "nested": "nested",
    "test": "test",
}

# A class held by fewer groups hardly varies between resamples: of two groups, half of the resamples
# hold one of them alone.
GROUPS_OF_A_CLASS = 3


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What may be said of one method against another.

    Parameters
    ----------
    method, against, metric, part : str
    word : {"better", "not shown", "worse"}
    effect : Interval
        Paired difference, positive where `method` is better; its interval holds jointly for all
        methods that were compared.
    sentence : str
    n_compared : int
        How many methods were compared with `against`.
    """

    method: str
    against: str
    metric: str
    part: str
    word: str
    effect: Interval
    sentence: str
    n_compared: int = 1


def verdict(
    method: str,
    ours: Resampled,
    against: str,
    theirs: Resampled,
    *,
    metric_name: str,
    part: str,
    group_kind: str = "group",
    level: float = 0.95,
) -> Verdict:
    """Judge `ours` against `theirs`, both over the same samples and resamples.

    Parameters
    ----------
    method, against : str
        What the two are called.
    metric_name : str
        A key of `METRICS`.
    part : {"in_sample", "cross_fitted", "nested", "test"}
    """
    return verdicts(
        {method: ours}, against, theirs,
        metric_name=metric_name, part=part, group_kind=group_kind, level=level,
    )[method]  # fmt: skip


def verdicts(
    methods: Mapping[str, Resampled],
    against: str,
    theirs: Resampled,
    *,
    metric_name: str,
    part: str,
    group_kind: str = "group",
    level: float = 0.95,
    shown: Mapping[str, str] | None = None,
) -> dict[str, Verdict]:
    """Judge several methods against one: intervals hold jointly, so that the best may be picked.

    Parameters
    ----------
    methods : mapping of name to Resampled
        Over the same samples and resamples as `theirs`.
    shown : mapping of name to str, optional
        What the sentences call methods otherwise than by their name.
    """
    sign = 1.0 if metric(metric_name).higher_is_better else -1.0
    differences = {
        name: sign * (ours.resamples[metric_name] - theirs.resamples[metric_name])
        for name, ours in methods.items()
        if metric_name in ours.resamples and metric_name in theirs.resamples
    }
    intervals = joint_intervals(differences, level)
    over = _over(theirs, len(methods), part, group_kind, level)
    few = too_few(theirs.figures, group_kind, level)
    out = {}
    for name, ours in methods.items():
        values = ours.figures[metric_name].value, theirs.figures[metric_name].value
        effect = _effect(values, sign, intervals.get(name))
        word = "not shown" if few else _word(effect)
        called = (shown or {}).get(name, name)
        sentence = _sentence(
            called, against, word, effect, values, metric_name.replace("_", " "), over
        )
        if few and _word(effect) != "not shown":
            sentence += f" Whatever the interval, {few}."
        out[name] = Verdict(name, against, metric_name, part, word, effect, sentence, len(methods))
    return out


def too_few(figures: Figures, group_kind: str = "group", level: float = 0.95) -> str:
    """Why nothing can be shown over so few groups, in words; empty where there are enough.

    Even where a method wins in every group, a sign test over n of them reaches p = 2 / 2**n: at 95 %
    that takes six. Percentile intervals of fewer are too short (Efron & Tibshirani 1993, "An
    introduction to the bootstrap", ch. 13), and the more so where a class is in one or two.
    """
    wanted = math.ceil(1.0 - math.log2(1.0 - level) - 1e-9)
    n, fewest = figures.n_groups, figures.fewest_groups
    if n >= wanted and fewest >= GROUPS_OF_A_CLASS:
        return ""
    has = f"{n} {group_kind}{'s' * (n != 1)}"
    if n >= wanted:
        has = f"a class that only {fewest} of {has} {'have' if fewest > 1 else 'has'}"
    needed = f"{wanted}, and {GROUPS_OF_A_CLASS} with each class"
    return f"{has} cannot show a difference at {level * 100:.0f} %: that takes {needed}"


def _effect(
    values: tuple[float | None, float | None], sign: float, ends: tuple[float, float] | None
) -> Interval:
    a, b = values
    if a is None or b is None:
        return Interval(None)
    return Interval(sign * (a - b), *(ends or ()))


def _word(effect: Interval) -> str:
    if effect.low is not None and effect.low > 0:
        return "better"
    if effect.high is not None and effect.high < 0:
        return "worse"
    return "not shown"


def _over(theirs: Resampled, n_methods: int, part: str, group_kind: str, level: float) -> str:
    n_groups = theirs.figures.n_groups
    noun = group_kind if n_groups == 1 else f"{group_kind}s"
    joint = f" jointly for {n_methods} methods," if n_methods > 1 else ""
    return f"{level * 100:.0f} %{joint} over {n_groups} {noun}, {PARTS[part]}"


def _sentence(
    method: str,
    against: str,
    word: str,
    effect: Interval,
    values: tuple[float | None, float | None],
    noun: str,
    over: str,
) -> str:
    claims = {
        "better": f"{method} is better than {against}",
        "worse": f"{method} is worse than {against}",
        "not shown": f"{method} is not shown to differ from {against}",
    }
    if effect.value is None:
        return f"{claims[word]}: {noun} is undefined here ({over})."
    a, b = values
    if effect.low is None:
        over = f"no interval, {over.rpartition(', ')[2]}"
        return f"{claims[word]}: {noun} {a:.3f} against {b:.3f}, gain {effect.value:+.3f} ({over})."
    interval = f"[{effect.low:+.3f}, {effect.high:+.3f}]"
    return f"{claims[word]}: {noun} {a:.3f} against {b:.3f}, gain {effect.value:+.3f} {interval} ({over})."
