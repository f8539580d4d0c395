"""The leaderboard: evaluations as rows of text, the best method first, the oracle last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble_kit.evaluation.compare import chosen
from ensemble_kit.evaluation.cross_validation.baselines import BASELINES, REFERENCE_METHODS
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.scores.per_group import PER_GROUP_METRICS
from ensemble_kit.evaluation.scores.per_image import MetricValues
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.winner import ranked
from ensemble_kit.metrics.costs import EXPECTED_COST

BESIDE = ("accuracy", "auroc", "log_loss")
POOLED_BY = {"mean": "mean", "vote": "votes", "max": "maximum"}


def headline(evaluations: Mapping[str, Evaluation], protocol: Protocol) -> str:
    """One sentence: number of methods, the best cross-fitted method, and the baselines."""
    name = protocol.metric.replace("_", " ")
    baselines = ", ".join(
        f"{key} {evaluations[key].cross_fitted[protocol.metric]!s}"
        for key in BASELINES
        if key in evaluations
    )
    best = chosen(evaluations, protocol)
    n_methods = sum(key not in REFERENCE_METHODS for key in evaluations)
    value = str(best.cross_fitted[protocol.metric])
    compared = (
        f"{n_methods} methods compared; best by cross-fitted" if n_methods > 1 else "Cross-fitted"
    )
    corrected = (
        ""
        if best.corrected is None
        else f" Corrected for the choice: {_number(best.corrected.value)}."
    )
    return f"{compared} {name}: {best.shown_name} {value}.{corrected} Baselines: {baselines}."


def _number(value: float | None) -> str:
    return str(Interval(value))


def leaderboard(evaluations: Mapping[str, Evaluation], protocol: Protocol) -> list[tuple[str, ...]]:
    """Header and one row per method.

    Columns: the method, with a star if it was replaced by the mean. The protocol's metric
    in-sample (without interval), cross-fitted, nested and on the test part, as far as they exist;
    with nested also cross-fitted minus nested. Accuracy, AUROC and log loss on the last part. The
    coverage, if a method abstained. The verdicts against best member and mean on the last part.
    """
    has_nested = any(one.nested is not None for one in evaluations.values())
    has_test = any(one.test is not None for one in evaluations.values())
    head = (
        "method",
        "in-sample",
        "cross-fitted",
        *(("nested", "cross-fitted - nested") if has_nested else ()),
        *(("test",) if has_test else ()),
        *(key.replace("_", " ") for key in _beside(protocol)),
        *(("coverage",) if _has_abstained(evaluations) else ()),
        "against best",
        "against mean",
    )
    last = "test" if has_test else "cross_fitted"
    return [
        head,
        *(
            _row(evaluations[key], protocol, last, has_coverage=_has_abstained(evaluations))
            for key in methods_in_order(evaluations, protocol)
        ),
    ]


def short_leaderboard(
    evaluations: Mapping[str, Evaluation],
    protocol: Protocol,
    n_shown: int = 8,
) -> tuple[list[tuple[str, ...]], int]:
    """The `n_shown` best methods with the best member and the mean, and the number of other methods.

    Columns: method; the protocol's metric cross-fitted, nested and on the test part, as far as they
    exist; the verdict against the best member on the last part. The oracle has no row.
    """
    parts = [
        p
        for p in ("cross_fitted", "nested", "test")
        if any(p in one.parts for one in evaluations.values())
    ]
    names = [n for n in methods_in_order(evaluations, protocol) if n != "oracle"]
    shown_names = {n for n in names if n not in REFERENCE_METHODS}
    shown_names = {*[n for n in names if n in shown_names][:n_shown], *BASELINES}
    rows = [("method", *(PARTS[p] for p in parts), "against the best member")]
    for name in names:
        if name in shown_names:
            one = evaluations[name]
            words = {v.against: v.word for v in one.verdicts if v.part == parts[-1]}
            shown = "best member" if name == "best-member" else name
            cells = [
                str(one.parts[p][protocol.metric]) + "*" * (one.fell_back and p == "test")
                if p in one.parts
                else ""
                for p in parts
            ]
            star = "*" if one.fell_back else ""
            rows.append((f"{shown}{star}", *cells, words.get("best-member", "")))
    return rows, len(set(names) - shown_names)


def short_note(
    evaluations: Mapping[str, Evaluation],
    protocol: Protocol,
    group_kind: str,
    best_member: str | None = None,
    chance: str = "",
    *,
    has_star: bool | None = None,
) -> str:
    """Legend of the short leaderboard, with a sentence on the chance level.

    Parameters
    ----------
    has_star : bool, optional
        Whether a printed row has a star; by default whether any method was replaced by the mean.
    """
    noun = protocol.metric.replace("_", " ")
    noun = f"{noun[0].upper()}{noun[1:]}"
    whole = "images" if group_kind == "image" else f"whole {group_kind}s"
    interval = f" [{protocol.level * 100:.0f} % interval over {whole}]"
    lines = [f"{noun}{interval}." if protocol.n_resamples else f"{noun}; no intervals."]
    lines[0] += f" {chance}" if chance else ""
    if best_member:
        lines.append(
            f"Best member: chosen by cross-validation ({best_member}); cross-fitted, for each fold by the "
            "others."
        )
    if has_star is None:
        has_star = any(one.fell_back for one in evaluations.values())
    if has_star:
        lines.append(
            replaced_legend(protocol.metric, has_test=any(one.test for one in evaluations.values()))
        )
    return "\n".join(lines)


def replaced_legend(metric_name: str, *, has_test: bool) -> str:
    """Legend of the star: both conditions, and which values of that row are the mean's."""
    reason = f"neither its {metric_name.replace('_', ' ')} nor its log loss is better"
    if metric_name == "log_loss":
        reason = "its log loss is not better"
    text = f"*: replaced by the mean, because {reason} than the mean's, cross-fitted."
    return f"{text} Its test value is that of the mean." if has_test else text


def columns_note(evaluations: Mapping[str, Evaluation], protocol: Protocol, group_kind: str) -> str:
    """Legend of the columns of the leaderboard."""
    name = protocol.metric.replace("_", " ")
    last = "test" if any(one.test is not None for one in evaluations.values()) else "cross-fitted"
    nested = ", nested" if any(one.nested is not None for one in evaluations.values()) else ""
    names = [*_beside(protocol), *(["coverage"] if _has_abstained(evaluations) else [])]
    beside = ", ".join(key.replace("_", " ") for key in names)
    parts = f"in-sample, cross-fitted{nested}" + (", test" if last == "test" else "")
    what = (
        f"The columns {parts} show {name}. The columns {beside}, against best (member) and against mean are of the "
        f"{last} predictions."
    )
    if _has_abstained(evaluations):
        what += " coverage: share of the images that are decided."
    if protocol.n_resamples == 0:
        return f"{what} There are no intervals (0 resamples)."
    whole = "images" if group_kind == "image" else f"whole {group_kind}s"
    return f"{what} Intervals: {protocol.level * 100:.0f} %, jackknife over {whole}."


def ties_note(evaluations: Mapping[str, Evaluation]) -> str:
    """Number of tied images of each method, out-of-fold and on the test part."""
    counts = {one.name: _tie_counts(one) for one in evaluations.values()}
    met = [f"{name} {'+'.join(map(str, some))}" for name, some in counts.items() if any(some)]
    where = "out-of-fold + test" if any(one.test for one in evaluations.values()) else "out-of-fold"
    return (
        f"Tied images ({where}): {', '.join(met)}. Other methods: none."
        if met
        else f"No ties ({where})."
    )


def per_group_table(
    evaluations: Mapping[str, Evaluation], protocol: Protocol, group_kind: str
) -> list[tuple[str, ...]]:
    """Header and one row per method with metrics per patient; empty if every group has one image.

    Columns: the method; the recognition rate cross-fitted, nested and on the test part. If every
    patient has one label: accuracy, balanced accuracy and AUROC of one pooled prediction per
    patient, on the last part.
    """
    found = {key: evaluations[key].per_group for key in methods_in_order(evaluations, protocol)}
    found = {key: parts for key, parts in found.items() if parts}
    if not found:
        return []
    in_order = ("cross_fitted", "nested", "test")
    shown = [part for part in in_order if all(part in p for p in found.values())]
    last = shown[-1]
    is_pooled = all(parts[last].values is not None for parts in found.values())
    cost_columns = (EXPECTED_COST,) if protocol.costs is not None else ()
    columns = (*PER_GROUP_METRICS, *cost_columns) if is_pooled else ()
    head = [f"rate: {part.replace('_', '-')}" for part in shown]
    head += [key.replace("_", " ") for key in columns]
    rows = [(f"per {group_kind}", *head)]
    for key, parts in found.items():
        cells = [str(parts[part].recognition_rate) for part in shown]
        values = parts[last].values
        cells += [str(values[name]) for name in columns] if values is not None else []
        rows.append((_starred(evaluations[key]), *cells))
    return rows


def per_group_note(rows: Sequence[tuple[str, ...]], unit: str, pool: str = "mean") -> str:
    """Legend of the table per patient."""
    rate = f"Rate: recognition rate, the mean over {unit}s of the accuracy on their images."
    if any(not cell.startswith("rate: ") for cell in rows[0][1:]):
        last = [cell for cell in rows[0] if cell.startswith("rate: ")][-1].removeprefix("rate: ")
        how = f"images are pooled by the {POOLED_BY[pool]}"
        return f"{rate} Other columns ({last}): one prediction per {unit}; {how}."
    return (
        f"{rate} Some {unit}s have images of several classes, so there is no single prediction per "
        f"{unit}."
    )


def methods_in_order(evaluations: Mapping[str, Evaluation], protocol: Protocol) -> list[str]:
    """Method names by cross-fitted metric from best to worst, the oracle last."""
    values = {name: one.cross_fitted[protocol.metric].value for name, one in evaluations.items()}
    names = ranked(values, protocol.metric)
    return [n for n in names if n != "oracle"] + [n for n in names if n == "oracle"]


def _beside(protocol: Protocol) -> list[str]:
    beside = (*BESIDE, *((EXPECTED_COST,) if protocol.costs is not None else ()))
    return [key for key in beside if key != protocol.metric]


def _starred(one: Evaluation) -> str:
    return f"{one.name}*" if one.fell_back else one.name


def _has_abstained(evaluations: Mapping[str, Evaluation]) -> bool:
    return any(part.n_abstained for one in evaluations.values() for part in one.parts.values())


def _row(one: Evaluation, protocol: Protocol, last: str, *, has_coverage: bool) -> tuple[str, ...]:
    values = one.parts.get(last, one.cross_fitted)
    words = {v.against: v.word for v in one.verdicts if v.part == last}
    nested = (
        (one.nested[protocol.metric], one.base_model_leakage[protocol.metric]) if one.nested else ()
    )
    return (
        _starred(one),
        str(Interval(one.in_sample[protocol.metric].value)),
        str(one.cross_fitted[protocol.metric]),
        *map(str, nested),
        *((str(one.test[protocol.metric]) + "*" * one.fell_back,) if one.test else ()),
        *(str(Interval(_value(values, key))) for key in _beside(protocol)),
        *((str(Interval(1.0 - values.n_abstained / values.n)),) if has_coverage else ()),
        words.get("best-member", ""),
        words.get("mean", ""),
    )


def _value(values: MetricValues, key: str) -> float | None:
    return values.metrics[key].value if key in values.metrics else None


def _tie_counts(one: Evaluation) -> list[int]:
    return [one.cross_fitted.n_ties] + ([one.test.n_ties] if one.test else [])
