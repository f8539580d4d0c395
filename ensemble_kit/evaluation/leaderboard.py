"""The leaderboard: evaluations laid out as rows of text, floor first, ceiling last.

Computes nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.evaluation.bootstrap import Interval
from ensemble_kit.evaluation.by_group import PER_GROUP_METRICS
from ensemble_kit.evaluation.evaluate import FLOORS
from ensemble_kit.evaluation.evaluation import Evaluation
from ensemble_kit.evaluation.figures import Figures
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.metrics import metric

BESIDE = ("accuracy", "auroc", "log_loss")


def leaderboard(judged: Mapping[str, Evaluation], protocol: Protocol) -> list[tuple[str, ...]]:
    """Header and one row per method.

    Columns: method; the protocol's metric in-sample, cross-fitted, nested where that was asked
    for (with what cross-fitted is above it) and on the test, all but the first with intervals;
    accuracy, AUROC and log loss on the last part; ties; the verdicts there against best member
    and mean.
    """
    has_nested = any(one.nested is not None for one in judged.values())
    has_test = any(one.test is not None for one in judged.values())
    part = "test" if has_test else "cross_fitted"
    name = protocol.metric.replace("_", " ")
    beside = [key for key in BESIDE if key != protocol.metric]
    last = "test" if has_test else "cross-fitted"
    head = (
        "method",
        f"{name}: in-sample",
        "cross-fitted",
        *(("nested", "cross-fitted - nested") if has_nested else ()),
        *(("test",) if has_test else ()),
        *(f"{key.replace('_', ' ')} ({last})" for key in beside),
        "ties",
        "vs best member",
        "vs mean",
    )
    return [
        head,
        *(_row(judged[key], protocol, part, beside, has_test) for key in ranked(judged, protocol)),
    ]


def per_group_table(
    judged: Mapping[str, Evaluation], protocol: Protocol, group_kind: str
) -> list[tuple[str, ...]]:
    """Header and one row per method on whole patients; empty where every image is its own.

    Columns: method; the recognition rate cross-fitted, nested and on the test; where every patient
    has one label, accuracy, balanced accuracy and AUROC of one pooled answer a patient on the last part.
    """
    found = {key: judged[key].per_group for key in ranked(judged, protocol)}
    found = {key: parts for key, parts in found.items() if parts}
    if not found:
        return []
    in_order = ("cross_fitted", "nested", "test")
    shown = [part for part in in_order if all(part in p for p in found.values())]
    last = shown[-1]
    is_pooled = all(parts[last].figures is not None for parts in found.values())
    columns = PER_GROUP_METRICS if is_pooled else ()
    head = [f"recognition rate ({part.replace('_', '-')})" for part in shown]
    head += [f"{key.replace('_', ' ')} ({last.replace('_', '-')})" for key in columns]
    rows = [(f"per {group_kind}", *head)]
    for key, parts in found.items():
        cells = [text(parts[part].recognition_rate) for part in shown]
        figures = parts[last].figures
        cells += [text(figures[name]) for name in columns] if figures is not None else []
        rows.append((judged[key].shown_name, *cells))
    return rows


def ranked(judged: Mapping[str, Evaluation], protocol: Protocol) -> list[str]:
    """Method names: floors, then by cross-fitted figure from best to worst, the oracle last."""
    sign = -1.0 if metric(protocol.metric).higher_is_better else 1.0

    def key(name: str) -> tuple[int, float]:
        if name in FLOORS:
            return 0, float(FLOORS.index(name))
        value = judged[name].cross_fitted[protocol.metric].value
        return (2 if judged[name].combiner.needs_labels else 1), sign * (value or 0.0)

    return sorted(judged, key=key)


def _row(
    one: Evaluation, protocol: Protocol, part: str, beside: list[str], has_test: bool
) -> tuple[str, ...]:
    figures = one.parts.get(part, one.cross_fitted)
    words = {v.against: v.word for v in one.verdicts if v.part == part}
    return (
        one.shown_name,
        text(Interval(one.in_sample[protocol.metric].value)),
        text(one.cross_fitted[protocol.metric]),
        *(
            (text(one.nested[protocol.metric]), text(one.coupling[protocol.metric]))
            if one.nested
            else ()
        ),
        *((text(one.test[protocol.metric]) if one.test else "",) if has_test else ()),
        *(text(Interval(_value(figures, key))) for key in beside),
        _ties(one),
        words.get("best-member", ""),
        words.get("mean", ""),
    )


def _value(figures: Figures, key: str) -> float | None:
    return figures.metrics[key].value if key in figures.metrics else None


def _ties(one: Evaluation) -> str:
    counts = [one.cross_fitted.n_ties] + ([one.test.n_ties] if one.test else [])
    return "+".join(map(str, counts))


def text(interval: Interval) -> str:
    """A figure in the field's short form.

    Examples
    --------
    >>> text(Interval(0.9, 0.85, 1.0)), text(Interval(None))
    ('.900 [.850, 1.000]', 'n/a')
    """

    def short(value: float) -> str:
        return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"

    if interval.value is None:
        return "n/a"
    if interval.low is None or interval.high is None:
        return short(interval.value)
    return f"{short(interval.value)} [{short(interval.low)}, {short(interval.high)}]"
