"""The section of cost: seconds, images per second, memory, parameters and GMACs of each member."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from ensemble_kit.members.jobs.status import read_spec
from ensemble_kit.plots.costs import costs_figure
from ensemble_kit.plots.pareto import pareto_figure
from ensemble_kit.report.content import Content
from ensemble_kit.report.sections.section import Drawing, Fold, Section
from ensemble_kit.report.sheet import Sheet, text_sheet

ALL = "all members"
# Name of each cost, and its number of decimals.
COSTS = {
    "parameters": ("parameters (million)", 2),
    "gmacs": ("GMACs per image", 3),
    "ms_per_image": ("ms per image", 1),
    "train_seconds": ("training, all folds (s)", 0),
    "memory_mib": ("peak memory (MiB)", 0),
}
DRAWN = ("parameters", "gmacs", "ms_per_image")
Costs = Mapping[str, Mapping[str, float]]
PARETO = (
    "Each point is the mean of a set of members. The sets were chosen on the same images that they "
    "are evaluated on, so these metrics are optimistic."
)


def cost_section(content: Content) -> Section:
    """Cost of training and prediction; one sentence if it is not known."""
    costs = member_costs(content)
    folds = _pareto(content)
    if not costs:
        words = "Costs are not known: the members were imported without them (`import-predictions --member-costs`)."
        return Section("cost", "Cost", (words,), folds=folds, is_half=not folds)
    sheet = costs_sheet(costs)
    words = " ".join(filter(None, (cost_sentence(content, costs), _speed(content, costs))))
    if len(content.oof.member_names) == 1:
        return Section("cost", "Cost", (words,), (), (sheet,), folds)
    drawn = {COSTS[c][0]: costs[c] for c in DRAWN if c in costs}
    drawings: tuple[Drawing, ...] = ()
    if drawn:
        alt = f"Cost of each member: {', '.join(drawn)}"
        drawings = (Drawing("cost", costs_figure(drawn, total=ALL), alt),)
    values = Fold("All values", (), (), (sheet,))
    return Section("cost", "Cost", (words,), drawings, (), (values, *folds))


def member_costs(content: Content) -> dict[str, dict[str, float]]:
    """By cost, the value of each member and of all members; costs unknown for a member are left out."""
    members = list(content.oof.member_names)
    found: dict[str, dict[str, float]] = {}
    for cost in COSTS:
        values = {m: _value(content, m, cost) for m in members}
        known = {m: v for m, v in values.items() if v is not None}
        if len(known) == len(members):
            together = max(known.values()) if cost == "memory_mib" else sum(known.values())
            found[cost] = {**known, **({ALL: together} if len(members) > 1 else {})}
    return found


def _value(content: Content, member: str, cost: str) -> float | None:
    training = content.trainings.get(member)
    if cost == "train_seconds":
        return None if training is None else sum(r["seconds"] for r in training.records.values())
    if cost == "memory_mib":
        peaks = [] if training is None else [r.get("memory_mib") for r in training.records.values()]
        return None if not peaks or None in peaks else float(max(p for p in peaks if p is not None))
    value = read_spec(content.run, member).get(cost)
    if cost == "ms_per_image" and value is None and training is not None:
        times = [r["ms_per_image"] for r in training.records.values() if "ms_per_image" in r]
        value = statistics.median(times) if times else None
    if value is None:
        return None
    return float(value) / (1e6 if cost == "parameters" else 1)


def cost_sentence(content: Content, costs: Costs) -> str:
    """Cost of all members against the best one; empty without a best member."""
    best, n_members = content.best_member, len(content.oof.member_names)
    if best is None or n_members < 2:
        return ""
    sentences = [f"Cost of the ensemble: {n_members} networks instead of 1"]
    for cost, noun in (("parameters", "million parameters"), ("gmacs", "GMACs per image")):
        if cost in costs:
            sentences.append(f"{costs[cost][ALL]:.3g} {noun} instead of {costs[cost][best]:.3g}")
    return f"{'; '.join(sentences)} (best member: {best})."


def _speed(content: Content, costs: Costs) -> str:
    sentences = []
    devices = {str(r["device"]) for one in content.trainings.values() for r in one.records.values()}
    on = f" on {' and '.join(sorted(devices))}" if devices else ""
    if "ms_per_image" in costs:
        values = costs["ms_per_image"]
        together = values.get(ALL, next(iter(values.values())))
        sentences.append(
            f"Prediction: {1000 / together:.1f} images per second with one network per member{on}."
        )
    if "train_seconds" in costs:
        values = costs["train_seconds"]
        together = values.get(ALL, next(iter(values.values())))
        sentences.append(f"Training took {_duration(together)} of computing time.")
    return " ".join(sentences)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def costs_sheet(costs: Costs) -> Sheet:
    """One row per member, and one row for all members."""
    names = list(next(iter(costs.values())))
    rows: list[tuple[str, ...]] = [("member", *(COSTS[c][0] for c in costs))]
    rows += [(n, *(f"{costs[c][n]:.{COSTS[c][1]}f}" for c in costs)) for n in names]
    note = (
        "Peak memory: memory of the process that trained the member, an upper bound if it trained "
        "other members before. For all members, the largest value is shown."
    )
    has_memory = "memory_mib" in costs
    return text_sheet(
        "cost", "Cost of each member", rows, note if has_memory else "", muted=frozenset({ALL})
    )


def _pareto(content: Content) -> tuple[Fold, ...]:
    if content.pareto.empty:
        return ()
    figure = pareto_figure(content.pareto)
    alt = "Sets of members by cost and quality, with the Pareto front"
    return (Fold("Quality against cost", (), (Drawing("pareto", figure, alt, PARETO),)),)
