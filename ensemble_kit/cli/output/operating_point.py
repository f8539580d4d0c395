"""The output of `operating-point`: rules, tables per image and per patient, and caveats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.output.tables import print_table
from ensemble_kit.cli.output.text import print_command, print_text
from ensemble_kit.errors import command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ensemble_kit.evaluation.decisions.threshold_rules import DecisionMetrics, Threshold
    from ensemble_kit.evaluation.runs.operating_point import OperatingPoint, UnitDecision
    from ensemble_kit.evaluation.uncertainty.interval import Interval
    from ensemble_kit.run import Run

PARTS = {"in_sample": "in-sample", "cross_fitted": "cross-fitted", "test": "test"}
SHORT = {"ppv": "PPV", "npv": "NPV"}
OF_ALL = " of all"


def print_point(found: OperatingPoint, *, verbose: bool = False) -> None:
    """The thresholds, a table for images and for patients, and the caveats.

    With referral the tables are long: the second one is printed only if `verbose`.
    """
    requested = [
        str(one)
        for one in (found.options.threshold_target, found.options.reject_option)
        if one is not None
    ]
    target = "" if found.class_name is None else f"'{found.class_name}' against the rest, "
    print_text(f"Method {found.method}: {target}{'; '.join(requested)}. Chosen out-of-fold.")
    for unit, one in found.units.items():
        click.echo()
        print_text(f"Per {unit}: {_rule_in_words(found, unit, one)}")
        is_shown = unit == "image" or found.options.reject_option is None or verbose
        if is_shown:
            print_table(_rows(one, unit, found.group_kind))
        more = "" if is_shown else f" Table per {unit}: --verbose."
        print_text(f"{_result_sentence(found, unit, one)}{more}")
    click.echo()
    print_text(_legend(found))
    for note in found.notes:
        print_text(f"Caveat: {note}")


def _legend(found: OperatingPoint) -> str:
    """How the parts were chosen, and how the rows and the intervals are read."""
    parts = [part for one in found.units.values() for part in one.parts.values()]
    sentences = [
        "In-sample: chosen and evaluated on the same rows, so optimistic. Cross-fitted: chosen on the "
        "other folds. Report the test part, or cross-fitted without one."
    ]
    if any(name.endswith(OF_ALL) for part in parts for name in part.shares):
        sentences.append(
            "Referred as errors: the same metric if each referred case counts as an error."
        )
    if found.class_name:
        sentences.append("PPV and NPV hold for the class frequency in these data.")
    if any(one.value is None for part in parts for one in part.shares.values()):
        sentences.append("n/a: there is no such decided case.")
    over = "images" if found.group_kind == "image" else f"whole {found.group_kind}s"
    if found.options.n_resamples == 0:
        sentences.append("No intervals (--resamples 0).")
    else:
        sentences.append(f"Intervals: {found.options.level * 100:.0f} %, over {over}.")
    if any(_is_very_wide(one) for part in parts for one in part.shares.values()):
        sentences.append(
            "A wide interval beside a value near 1 comes from few "
            f"{found.group_kind}s of a class, or from errors that all lie in one {found.group_kind}."
        )
    return " ".join(sentences)


def _is_very_wide(one: Interval) -> bool:
    if one.value is None or one.low is None:
        return False
    return 0.9 < one.value < 1.0 and one.low < 0.5


def _rule_in_words(found: OperatingPoint, unit: str, one: UnitDecision) -> str:
    """The decision rule for one image or patient, by its probability."""
    mean = "" if unit == "image" else "mean "
    point, name = one.point, found.class_name
    if point.threshold is None:
        if point.refer_below <= 0:
            return "nothing is referred; the most probable class is predicted."
        return (
            f"referred if the highest {mean}probability is below {point.refer_below:.3f}; else the "
            "most probable class is predicted."
        )
    proba = f"the {mean}probability of '{name}'"
    by_fold = [p.threshold for p in one.by_fold.values() if p.threshold is not None]
    spread = f" ({min(by_fold):.3f} to {max(by_fold):.3f} over folds)" if by_fold else ""
    if point.refer_below <= 0:
        referred = "" if found.options.reject_option is None else " Nothing is referred."
        return f"'{name}' if {proba} is at least {point.threshold:.3f}{spread}.{referred}"
    return (
        f"referred if {proba} is {_referred_range(point)}; '{name}' above, not '{name}' below. "
        f"Threshold without referral: {point.threshold:.3f}{spread}."
    )


def _referred_range(point: Threshold) -> str:
    """The probabilities near the threshold, which are referred."""
    from ensemble_kit.evaluation.decisions.thresholds import SMALLEST_PROBA

    threshold, reach = point.threshold, point.refer_below
    if threshold is None:
        return f"within {reach:.3f} log odds of the threshold"
    threshold = min(max(threshold, SMALLEST_PROBA), 1.0 - SMALLEST_PROBA)
    middle = math.log(threshold / (1.0 - threshold))
    low, high = (1.0 / (1.0 + math.exp(-(middle + sign * reach))) for sign in (-1, 1))
    return f"between {low:.3f} and {high:.3f}"


def _rows(one: UnitDecision, unit: str, group_kind: str) -> list[tuple[str, ...]]:
    """One row per metric, one column per part; metrics with referred cases as errors last."""
    parts = one.parts
    rows: list[tuple[str, ...]] = [
        ("", *(PARTS[part] for part in parts)),
        (f"{unit}s", *(str(part.n) for part in parts.values())),
    ]
    if any(part.n != part.n_groups for part in parts.values()):
        rows.append((f"{group_kind}s", *(str(part.n_groups) for part in parts.values())))
    names = list(dict.fromkeys(name for part in parts.values() for name in part.shares))
    for name in sorted(names, key=lambda one: one.endswith(OF_ALL)):
        if name == "referred" and not any(part.counts["referred"] for part in parts.values()):
            continue
        plain = name.removesuffix(OF_ALL)  # the same metric if nothing is referred
        cells = (
            str(part.shares.get(name) or part.shares.get(plain) or "") for part in parts.values()
        )
        rows.append((_metric_name(name), *cells))
    return rows


def _metric_name(name: str) -> str:
    if name.endswith(OF_ALL):
        return f"{name.removesuffix(OF_ALL)}, referred as errors"
    if name.startswith("sensitivity "):
        return f"sensitivity of '{name.removeprefix('sensitivity ')}'"
    return SHORT.get(name, name)


def _result_sentence(found: OperatingPoint, unit: str, one: UnitDecision) -> str:
    """The counts of the last part, and whether the target is reached on new data."""
    part = list(one.parts)[-1]
    metrics, name = one.parts[part], found.class_name
    n = metrics.counts
    text = f"Result: {metrics.n} {PARTS[part]} {unit}s"
    referred = "" if found.options.reject_option is None else f", {n['referred']} referred"
    if name is None:
        text += f", {n['right']} decided correctly, {n['wrong']} wrongly{referred}."
    else:
        n_positive = n["true_positive"] + n["false_negative"]
        n_negative = n["true_negative"] + n["false_positive"]
        hits = (
            f"{n['true_positive']} of {n_positive}"
            if n_positive
            else f"there is no decided '{name}'"
        )
        alarms = (
            f"{n['false_positive']} of {n_negative} others" if n_negative else "there are no others"
        )
        text += f"{referred}. Found '{name}': {hits}. Falsely called '{name}': {alarms}."
    later = {p: metrics for p, metrics in one.parts.items() if p != "in_sample"}
    text += "".join(_shortfall(found, p, metrics) for p, metrics in later.items())
    return text + _never_right(unit, later)


def _shortfall(found: OperatingPoint, part: str, metrics: DecisionMetrics) -> str:
    """The targets that are not reached on this part, as sentences."""
    target, reject_option = found.options.threshold_target, found.options.reject_option
    sentences, where = [], PARTS[part].capitalize()
    if target is not None and target.kind in metrics.shares:
        value = metrics.shares[target.kind].value
        if value is not None and round(value, 3) < target.value:
            sentences.append(
                f"{where}: {target.kind} {value:.3f}, below the target of {target.value:g}."
            )
    limit = None if reject_option is None else reject_option.max_error
    if limit is not None and metrics.error is not None and metrics.error > limit:
        sentences.append(f"{where}: error {metrics.error:.3f}, above the limit of {limit:g}.")
    limit = None if reject_option is None else reject_option.share
    share = metrics.counts["referred"] / metrics.n
    if limit is not None and share > limit + 1e-9:
        sentences.append(f"{where}: {100 * share:.1f} % are referred, more than {100 * limit:g} %.")
    return "".join(f" {one}" for one in sentences)


def _never_right(unit: str, parts: Mapping[str, DecisionMetrics]) -> str:
    """The classes of which no image or patient is decided correctly, as sentences."""
    where: dict[str, list[str]] = {}
    for part, metrics in parts.items():
        for name in metrics.never_right:
            where.setdefault(name, []).append(PARTS[part])
    return "".join(
        f" No {unit} of class '{name}' is decided correctly ({', '.join(of)})."
        for name, of in where.items()
    )


def print_replaced(found: OperatingPoint, run: Run, *, err: bool = False) -> None:
    """Print which stored rules were replaced, and the command that stores both."""
    if not found.dropped:
        return
    dropped = " and ".join(found.dropped)
    print_text(f"Replaced: {dropped}. `predict` no longer uses it.", err=err)
    if typed := found.typed_with_dropped:
        again = command("operating-point", *typed, "--method", found.method, "--run", run.path)
        print_command("To store both", again, err=err)
