"""A metric against inference cost: the Pareto front, and the cheapest set that is not inferior.

The cost of a set is the sum of the costs of its members (GMACs, parameters, ms per image).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.scores.verdict import verdicts
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions

PARETO = "pareto.csv"


def pareto_table(
    oof: Predictions,
    costs: Mapping[str, float],
    *,
    unit: str = "cost",
    budget: float | None = None,
    max_members: int | None = None,
    margin: float = 0.02,
    protocol: Protocol | None = None,
) -> pd.DataFrame:
    """Evaluate plain means of growing sets of members on the out-of-fold rows.

    From each single member, a set grows by the member that improves the metric most.

    Parameters
    ----------
    oof : Predictions
    costs : mapping of member name to cost
    unit : str
        Unit of the costs, e.g. "GMACs per image".
    budget : float, optional
        Largest cost of a set.
    max_members : int, optional
    margin : float
        Non-inferiority margin, in units of the metric.
    protocol : Protocol, optional

    Returns
    -------
    pandas.DataFrame
        `members, n_members, cost, unit, metric, value, low, high, verdict, at_worst, on_front,
        within_margin`, cheapest first. `verdict` is against the best set. `at_worst` is the lower
        end of the simultaneous interval of the gain over the best set; `within_margin`: it is at
        least minus the margin (non-inferiority). `attrs["choice"]` is the cheapest set within the
        margin; None without intervals. Sets are chosen and evaluated on the same rows, so values
        are optimistic.

    Raises
    ------
    DataError
        A member has no cost.
    UsageError
        No set is within the limits.

    Examples
    --------
    >>> labels = np.arange(40) % 2
    >>> logits = {m: np.eye(2)[labels] for m in "ab"}
    >>> table = Predictions.from_arrays(logits, labels, fold=np.arange(40) // 8)
    >>> pareto_table(table, {"a": 1.0, "b": 3.0}).attrs["choice"]
    'a'
    """
    protocol = protocol or Protocol()
    _refuse_unknown_costs(oof, costs)
    grown = _growing_sets(
        oof, max_members, lambda s: budget is None or _cost(s, costs) <= budget, protocol
    )
    sets = [s for s in grown if _predicts_all(oof, s)]
    if not sets:
        _refuse_no_set(oof, costs, budget, len(grown))
    table = _with_front(_evaluated(oof, sets, costs, unit, protocol), margin, _sign(oof, protocol))
    choice = table[table["within_margin"]].head(1)
    table.attrs |= {
        "choice": None if not protocol.intervals or choice.empty else choice["members"].iloc[0],
        "margin": margin,
        "level": protocol.level,
    }
    return table


def _evaluated(
    oof: Predictions,
    sets: Sequence[tuple[str, ...]],
    costs: Mapping[str, float],
    unit: str,
    protocol: Protocol,
) -> pd.DataFrame:
    """One row per set: its cost, its metric and its verdict against the best set."""
    metric, sign = protocol.verdict_metric(oof.class_names), _sign(oof, protocol)
    scored = score_methods(
        {"+".join(s): _mean_of(oof, s) for s in sets},
        np.asarray(oof.labels), oof.groups, oof.n_classes,
        metrics=[metric], level=protocol.level, intervals=protocol.intervals,
    )  # fmt: skip
    best = max(scored, key=lambda name: _merit(scored[name].values[protocol.metric].value, sign))
    against_best = verdicts(
        scored, best, scored[best], metric_name=metric, part="cross_fitted", level=protocol.level
    )
    return pd.DataFrame(
        {
            "members": name,
            "n_members": len(members),
            "cost": _cost(members, costs),
            "unit": unit,
            "metric": protocol.metric,
            **dataclasses.asdict(one.values[protocol.metric]),
            "verdict": against_best[name].word,
            "at_worst": 0.0 if name == best else against_best[name].effect.low,
        }
        for members, (name, one) in zip(sets, scored.items(), strict=True)
    )


def _with_front(table: pd.DataFrame, margin: float, sign: float) -> pd.DataFrame:
    """The rows by cost, with the columns `on_front` and `within_margin`."""
    table = table.assign(gain=sign * table["value"].astype(float)).sort_values(
        ["cost", "gain"], ascending=[True, False], ignore_index=True
    )
    table["on_front"] = table["gain"] > table["gain"].cummax().shift(fill_value=-np.inf)
    table["within_margin"] = table["at_worst"].astype(float) >= -margin
    return table.drop(columns="gain")


def _refuse_unknown_costs(oof: Predictions, costs: Mapping[str, float]) -> None:
    unknown = [name for name in oof.member_names if name not in costs]
    if unknown:
        raise DataError(
            f"The cost of {first_few(unknown)} is not known",
            "every member needs a cost",
            "Measure it, or leave it out",
        )


def _refuse_no_set(
    oof: Predictions, costs: Mapping[str, float], budget: float | None, n_sets: int
) -> None:
    cheapest = min(costs[name] for name in oof.member_names)
    if budget is not None and cheapest > budget:
        raise UsageError(
            f"The budget {budget} is below the cost of the cheapest member, {cheapest}",
            "a budget must allow at least one member",
            "Raise the budget",
        )
    raise UsageError(
        f"0 of {n_sets} sets of members within the limits predict every image",
        "only sets that predict every image are compared",
        "Allow more members, or train the missing folds",
    )


def pareto_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """The front of `pareto_table` as rows of text, with a header."""
    unit, metric_name = table["unit"].iloc[0], table["metric"].iloc[0].replace("_", " ")
    rows: list[tuple[str, ...]] = [
        ("on the Pareto front", "members", unit, f"{metric_name}, out-of-fold", "against the best")
    ]
    for one in table[table["on_front"]].to_dict("records"):
        interval = Interval(one["value"], one["low"], one["high"])
        cost = f"{one['cost']:.3g}" if one["cost"] < 1e4 else f"{one['cost']:,.0f}"
        rows.append((one["members"], str(one["n_members"]), cost, str(interval), one["verdict"]))
    return rows


def cheapest_sentence(table: pd.DataFrame) -> str:
    """The cheapest set that is not inferior by more than the margin, in words."""
    if table.attrs["choice"] is None:
        return "No cheapest set is named: intervals over several groups are needed."
    choice = table[table["members"] == table.attrs["choice"]].iloc[0]
    margin, level = table.attrs["margin"], 100 * table.attrs["level"]
    share = 100 * choice["cost"] / float(table["cost"].max())
    loss = (
        "It is the best set."
        if choice["at_worst"] == 0
        else (f"It could be {max(-choice['at_worst'], 0.0):.3f} worse than the best set.")
    )
    return (
        f"Cheapest set not inferior to the best by more than {margin:g} ({level:.0f} % intervals, simultaneous "
        f"for {len(table)} sets): {choice['members']}, at {share:.0f} % of the cost of all. {loss} The sets "
        "were chosen on the same rows, so these values are optimistic."
    )


def _cost(members: tuple[str, ...], costs: Mapping[str, float]) -> float:
    return float(sum(costs[name] for name in members))


def _predicts_all(oof: Predictions, members: tuple[str, ...]) -> bool:
    """Whether each row has a prediction of one of these members; a quorum accepts gaps."""
    return oof.quorum is None or bool(oof.select(members).available.any(axis=1).all())


def _mean_of(oof: Predictions, members: tuple[str, ...]) -> Combined:
    some = oof.select(members)
    return MeanProba().fit_to(some).apply(some)


def _growing_sets(
    oof: Predictions,
    max_members: int | None,
    is_affordable: Callable[[tuple[str, ...]], bool],
    protocol: Protocol,
) -> list[tuple[str, ...]]:
    """The affordable sets of the greedy growth from each single member, without duplicates."""
    found: dict[tuple[str, ...], None] = {}
    limit = min(max_members or oof.n_members, oof.n_members)
    for first in oof.member_names:
        members: tuple[str, ...] = (first,)
        if not is_affordable(members):
            continue
        found[members] = None
        while len(members) < limit:
            rest = [name for name in oof.member_names if name not in members]
            grown: list[tuple[str, ...]] = [tuple(sorted((*members, name))) for name in rest]
            grown = [some for some in grown if is_affordable(some)]
            if not grown:
                break
            members = max(grown, key=lambda some: _value(oof, some, protocol))
            found[members] = None
    return list(found)


def _value(oof: Predictions, members: tuple[str, ...], protocol: Protocol) -> float:
    if not _predicts_all(oof, members):
        return -np.inf
    scored = score_methods(
        {"set": _mean_of(oof, members)},
        np.asarray(oof.labels),
        oof.groups,
        oof.n_classes,
        metrics=[protocol.verdict_metric(oof.class_names)],
        intervals=False,
    )
    return _merit(scored["set"].values[protocol.metric].value, _sign(oof, protocol))


def _sign(oof: Predictions, protocol: Protocol) -> float:
    return 1.0 if protocol.verdict_metric(oof.class_names).higher_is_better else -1.0


def _merit(value: float | None, sign: float) -> float:
    return -np.inf if value is None else sign * value
