"""The verdict on a method against a baseline: better, not shown, or worse, in one sentence.

Verdicts use paired differences over whole groups. If several methods are compared, the intervals
are simultaneous.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ensemble_kit.evaluation.scores.per_image import Scored, n_differing_groups, paired_gains
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.t_intervals import Gain
from ensemble_kit.metrics import Metric, metric

PARTS = {
    "in_sample": "in-sample",
    "cross_fitted": "cross-fitted",
    "nested": "nested",
    "test": "test",
}

NOUNS = {"best-member": "the best member", "mean": "the mean of all members"}
CLAIMS = {
    "better": "{} is better than {}",
    "worse": "{} is worse than {}",
    "not shown": "{} is not shown to differ from {}",
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether one method is better than another, with the evidence.

    Parameters
    ----------
    method, against, metric, part : str
    word : {"better", "not shown", "worse"}
    effect : Interval
        Paired difference, positive if `method` is better. Its interval is simultaneous for all
        methods that were compared.
    sentence : str
    n_compared : int
        Number of methods that were compared with `against`.
    p_value : float or None
        Two-sided p value, adjusted for all methods that were compared.
    too_few : str
        Why no difference can be shown with these groups, as a sentence; else empty.
    """

    method: str
    against: str
    metric: str
    part: str
    word: str
    effect: Interval
    sentence: str
    n_compared: int = 1
    p_value: float | None = None
    too_few: str = ""


def verdict(
    method: str,
    ours: Scored,
    against: str,
    theirs: Scored,
    *,
    metric_name: str | Metric,
    part: str,
    group_kind: str = "group",
    level: float = 0.95,
) -> Verdict:
    """Compare `ours` with `theirs`, both scored on the same samples.

    Parameters
    ----------
    method, against : str
        Names of the two.
    metric_name : str or Metric
        A key of `METRICS`, or the metric itself.
    part : {"in_sample", "cross_fitted", "nested", "test"}
    """
    return verdicts(
        {method: ours}, against, theirs,
        metric_name=metric_name, part=part, group_kind=group_kind, level=level,
    )[method]  # fmt: skip


def verdicts(
    methods: Mapping[str, Scored],
    against: str,
    theirs: Scored,
    *,
    metric_name: str | Metric,
    part: str,
    group_kind: str = "group",
    level: float = 0.95,
    shown: Mapping[str, str] | None = None,
    n_compared: int | None = None,
) -> dict[str, Verdict]:
    """Compare several methods with one baseline, with simultaneous intervals.

    Parameters
    ----------
    methods : mapping of name to Scored
        Scored on the same samples as `theirs`.
    shown : mapping of name to str, optional
        Names to print in the sentences, for methods whose printed name differs.
    n_compared : int, optional
        Number of methods that these were picked from; by default the number given.
    """
    wanted = metric(metric_name) if isinstance(metric_name, str) else metric_name
    found = paired_gains(methods, theirs, wanted, level=level)
    over = _over(theirs, len(methods), part, group_kind, level)
    n_compared = len(methods) if n_compared is None else n_compared
    return {
        name: _verdict(
            name, ours, against, theirs, wanted, found[name], part=part, over=over,
            few=too_few(
                n_differing_groups(ours, theirs, wanted), ours.values.n_groups, group_kind, level,
                pair=(name, against), part=part,
            ),
            called=(shown or {}).get(name, name), n_compared=n_compared,
        )
        for name, ours in methods.items()
    }  # fmt: skip


def _verdict(
    name: str,
    ours: Scored,
    against: str,
    theirs: Scored,
    wanted: Metric,
    gain: Gain,
    *,
    part: str,
    over: str,
    few: str,
    called: str,
    n_compared: int,
) -> Verdict:
    effect = gain.effect
    word = "not shown" if few else _word(effect)
    values = ours.values[wanted.name].value, theirs.values[wanted.name].value
    sentence = _sentence(called, against, word, effect, values, wanted, over)
    if few and _word(effect) != "not shown":
        sentence += f" {few[0].upper()}{few[1:]}."
    p_value = None if few else gain.p_value
    return Verdict(
        name, against, wanted.name, part, word, effect, sentence, n_compared, p_value, few
    )


def corrected_verdict(outcome: Verdict, gain: float | None) -> Verdict:
    """The verdict on the best of several methods, with its gain corrected for the choice.

    Parameters
    ----------
    outcome : Verdict
        The verdict before the correction, with a simultaneous interval.
    gain : float or None
        The corrected gain. If it is None (could not be computed), the verdict is "not shown".
    """
    effect, (_, _, facts) = outcome.effect, outcome.sentence.partition(": ")
    if gain is None or effect.value is None or effect.low is None or effect.high is None:
        return (
            outcome
            if outcome.word == "not shown"
            else dataclasses.replace(outcome, word="not shown")
        )
    # The correction may lower the gain of the chosen method, but not raise it.
    moved = min(gain - effect.value, 0.0)
    new = Interval(effect.value + moved, effect.low + moved, effect.high + moved)
    word = "not shown" if outcome.word == "not shown" else _word(new)
    claim = CLAIMS[word].format(
        outcome.sentence.partition(" is ")[0], NOUNS.get(outcome.against, outcome.against)
    )
    before, _, over = facts.partition(", difference ")
    level = over[over.index("(") :]
    shown = difference(new, higher_is_better=metric(outcome.metric).higher_is_better)
    sentence = f"{claim}: {before}, difference corrected for the choice {shown} {level}"
    p_value = outcome.p_value if word == outcome.word else None
    return dataclasses.replace(outcome, effect=new, word=word, sentence=sentence, p_value=p_value)


def too_few(
    n_differing: int,
    n_groups: int,
    group_kind: str = "group",
    level: float = 0.95,
    *,
    pair: tuple[str, str] = ("the first", "the second"),
    part: str = "cross_fitted",
) -> str:
    """Why no difference between the two methods of `pair` can be shown; empty if one can be shown.

    If two methods differ in n groups, the smallest possible p value of a sign-flip permutation
    test is 2 / 2**n. Below .05 this needs six groups.
    """
    if 2.0 ** (1 - n_differing) <= 1.0 - level + 1e-12:
        return ""
    against = NOUNS.get(pair[1], pair[1])
    if n_differing == 0:
        return (
            f"no difference can be shown: {pair[0]} and {against} are equal for all {n_groups} "
            f"{group_kind}s ({PARTS[part]})"
        )
    where = (
        f"there are only {n_groups} {group_kind}s ({PARTS[part]})"
        if n_differing == n_groups
        else f"{pair[0]} and {against} differ in only {n_differing} of {n_groups} "
        f"{group_kind}s ({PARTS[part]})"
    )
    return f"no difference can be shown: {where}, and at least {_needed(level)} must differ"


def _needed(level: float) -> int:
    """The smallest number of differing groups with which a difference can be shown."""
    n = 1
    while 2.0 ** (1 - n) > 1.0 - level + 1e-12:
        n += 1
    return n


def _word(effect: Interval) -> str:
    if effect.low is not None and effect.low > 0:
        return "better"
    if effect.high is not None and effect.high < 0:
        return "worse"
    return "not shown"


def _over(theirs: Scored, n_methods: int, part: str, group_kind: str, level: float) -> str:
    n_groups = theirs.values.n_groups
    noun = group_kind if n_groups == 1 else f"{group_kind}s"
    joint = f", simultaneous for {n_methods} methods," if n_methods > 1 else ""
    return f"{level * 100:.0f} %{joint} over {n_groups} {noun}, {PARTS[part]}"


def _sentence(
    method: str,
    against: str,
    word: str,
    effect: Interval,
    values: tuple[float | None, float | None],
    wanted: Metric,
    over: str,
) -> str:
    claim, noun = (
        CLAIMS[word].format(method, NOUNS.get(against, against)),
        wanted.name.replace("_", " "),
    )
    if effect.value is None:
        return f"{claim}: {noun} is undefined here ({over})."
    a, b = values
    if effect.low is None:
        over = f"no interval, {over.rpartition(', ')[2]}"
    shown = difference(effect, higher_is_better=wanted.higher_is_better)
    return f"{claim}: {noun} {a:.3f} against {b:.3f}, difference {shown} ({over})."


def difference(gain: Interval, *, higher_is_better: bool) -> str:
    """A gain as the plain difference of two values, ours minus theirs, with signs.

    Examples
    --------
    >>> difference(Interval(0.2, 0.1, 0.3), higher_is_better=True)
    '+0.200 [+0.100, +0.300]'
    >>> difference(Interval(0.2, 0.1, 0.3), higher_is_better=False)
    '-0.200 [-0.300, -0.100]'
    """
    if gain.value is None:
        return "n/a"
    sign = 1.0 if higher_is_better else -1.0
    value = f"{sign * gain.value:+.3f}"
    if gain.low is None or gain.high is None:
        return value
    low, high = sorted((sign * gain.low, sign * gain.high))
    return f"{value} [{low:+.3f}, {high:+.3f}]"
