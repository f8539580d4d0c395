"""The verdict on an ensemble against a simpler choice: better, not shown, or worse; in one sentence.

Rests on paired group resamples. Knows no combiner.
"""

from __future__ import annotations

import dataclasses

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.bootstrap import Interval, percentile_interval
from ensemble_kit.evaluation.figures import Resampled
from ensemble_kit.metrics import metric

PARTS = {"in_sample": "in-sample", "cross_fitted": "cross-fitted", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What may be said of one method against another.

    Parameters
    ----------
    method, against, metric, part : str
    word : {"better", "not shown", "worse"}
    effect : Interval
        Paired difference, positive where `method` is better.
    sentence : str
    """

    method: str
    against: str
    metric: str
    part: str
    word: str
    effect: Interval
    sentence: str


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
    part : {"in_sample", "cross_fitted", "test"}
    """
    sign = 1.0 if metric(metric_name).higher_is_better else -1.0
    a, b = ours.figures[metric_name].value, theirs.figures[metric_name].value
    if a is None or b is None:
        effect = Interval(None)
    else:
        effect = _effect(sign * (a - b), _paired(ours, theirs, metric_name, sign), level)
    word = _word(effect)
    return Verdict(
        method,
        against,
        metric_name,
        part,
        word,
        effect,
        _sentence(
            method,
            against,
            word,
            effect,
            (a, b),
            f"{metric_name.replace('_', ' ')}",
            _over(ours, part, group_kind, level),
        ),
    )


def _paired(ours: Resampled, theirs: Resampled, name: str, sign: float) -> Array | None:
    if name not in ours.resamples or name not in theirs.resamples:
        return None
    difference: Array = sign * (ours.resamples[name] - theirs.resamples[name])
    return difference


def _effect(value: float, differences: Array | None, level: float) -> Interval:
    ends = percentile_interval(differences, level) if differences is not None else None
    return Interval(value, *ends) if ends else Interval(value)


def _word(effect: Interval) -> str:
    if effect.low is not None and effect.low > 0:
        return "better"
    if effect.high is not None and effect.high < 0:
        return "worse"
    return "not shown"


def _over(ours: Resampled, part: str, group_kind: str, level: float) -> str:
    n_groups = ours.figures.n_groups
    noun = group_kind if n_groups == 1 else f"{group_kind}s"
    return f"{level * 100:.0f} % over {n_groups} {noun}, {PARTS[part]}"


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
    interval = "no interval" if effect.low is None else f"[{effect.low:+.3f}, {effect.high:+.3f}]"
    return f"{claims[word]}: {noun} {a:.3f} against {b:.3f}, gain {effect.value:+.3f} {interval} ({over})."
