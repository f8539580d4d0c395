"""`ensemble-kit operating-point`: a decision threshold and a rule for referral."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import json_option, resamples_option, run_option, seed_option
from ensemble_kit.cli.output.text import columns, printable

if TYPE_CHECKING:
    from ensemble_kit.evaluation.decisions.threshold_rules import DecisionMetrics, Threshold
    from ensemble_kit.evaluation.runs.operating_point import OperatingPoint, UnitDecision
    from ensemble_kit.run import Run

PARTS = {"in_sample": "in-sample", "cross_fitted": "cross-fitted", "test": "test"}
SHORT = {"ppv": "PPV", "npv": "NPV"}


@click.command("operating-point")
@run_option
@click.option(
    "--method",
    default="mean",
    show_default=True,
    metavar="NAME",
    help="A stacked method, or a member.",
)
@click.option(
    "--at",
    metavar="AIM",
    help="Target: sensitivity=.95, specificity=.9, youden, or cost=10:1 (cost of a false negative against a false positive).",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="The class to detect, against the rest. [default: the positive class of the data, else the last of two classes]",
)
@click.option(
    "--refer", metavar="SHARE", help="Refer the least certain cases, at most this share, e.g. 10%."
)
@click.option(
    "--max-error",
    metavar="SHARE",
    help="Refer the least certain cases until the error of the rest is at most this, e.g. .02.",
)
@resamples_option
@seed_option
@json_option
def operating_point_command(
    run: Run,
    method: str,
    at: str | None,
    class_name: str | None,
    refer: str | None,
    max_error: str | None,
    resamples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Choose a decision threshold (--at) and a rule for referral (--refer or --max-error).

    Both are chosen on out-of-fold predictions. They are evaluated in-sample, cross-fitted (chosen on
    the other folds) and on the test part, per image and per patient. Writes
    ensembles/<method>/decision.json.
    """
    from ensemble_kit.evaluation.decisions.thresholds import RejectOption, ThresholdTarget
    from ensemble_kit.evaluation.runs.operating_point import (
        DecisionOptions,
        decision_json,
        operating_point,
    )

    reject_option = None
    if refer is not None or max_error is not None:
        reject_option = RejectOption(_share(refer), _share(max_error))
    options = DecisionOptions(
        ThresholdTarget.parsed(at) if at else None,
        class_name,
        reject_option,
        n_resamples=resamples,
        seed=seed,
    )
    found = operating_point(run, method, options)
    if as_json:
        click.echo(json.dumps(decision_json(found), indent=2, allow_nan=False))
        return
    print_point(found)
    click.echo(printable(f"Written: {run.ensemble_dir(method).as_posix()}/decision.json"))


def _share(text: str | None) -> float | None:
    from ensemble_kit.errors import UsageError
    from ensemble_kit.evaluation.decisions.thresholds import share

    try:
        return None if text is None else share(text)
    except ValueError:
        raise UsageError(
            f"'{text}' is not a share", "a share is a number or a percentage", "Use e.g. 10% or .1"
        ) from None


def print_point(found: OperatingPoint) -> None:
    """The thresholds, a table for images and for patients, and the caveats."""
    asked = [
        str(one)
        for one in (found.options.threshold_target, found.options.reject_option)
        if one is not None
    ]
    target = "" if found.class_name is None else f"'{found.class_name}' against the rest, "
    click.echo(printable(f"Method {found.method}: {target}{'; '.join(asked)}. Chosen out-of-fold."))
    for unit, one in found.units.items():
        click.echo()
        click.echo(printable(f"Per {unit}: {_words(found, unit, one)}"))
        click.echo(columns(_rows(one, found.group_kind), right=range(1, 12)))
        click.echo(printable(_reading(found, unit, one)))
    level = found.options.level * 100
    over = "images" if found.group_kind == "image" else f"whole {found.group_kind}s"
    intervals = f"Intervals: {level:.0f} %, over {over}."
    if found.options.n_resamples == 0:
        intervals = "No intervals (--resamples 0)."
    click.echo()
    click.echo(
        f"In-sample: chosen and evaluated on the same rows. Cross-fitted: chosen on the other folds. "
        f"{intervals}"
        + (" PPV and NPV are for the class frequency in these data." if found.class_name else "")
    )
    for note in found.notes:
        click.echo(printable(f"Caveat: {note}"))


def _words(found: OperatingPoint, unit: str, one: UnitDecision) -> str:
    score = "p" if unit == "image" else "mean p of the images"
    said = []
    if one.point.threshold is not None:
        by_fold = [p.threshold for p in one.by_fold.values() if p.threshold is not None]
        spread = f" ({min(by_fold):.3f} to {max(by_fold):.3f} over folds)" if by_fold else ""
        said.append(f"'{found.class_name}' if {score} >= {one.point.threshold:.3f}{spread}")
    if found.options.reject_option is not None and one.point.threshold is None:
        said.append(f"referred if the highest {score} < {one.point.refer_below:.3f}")
    elif found.options.reject_option is not None:
        said.append(f"referred if {score} is {_referred_range(one.point)}")
    return "; ".join(said)


def _referred_range(point: Threshold) -> str:
    """The probabilities near the threshold, which are referred."""
    threshold, reach = point.threshold, point.refer_below
    if threshold is None or not 0.0 < threshold < 1.0:
        return f"within {reach:.3f} log odds of the threshold"
    middle = math.log(threshold / (1.0 - threshold))
    low, high = (1.0 / (1.0 + math.exp(-(middle + sign * reach))) for sign in (-1, 1))
    return f"between {low:.3f} and {high:.3f}"


def _rows(one: UnitDecision, group_kind: str) -> list[tuple[str, ...]]:

    first = next(iter(one.parts.values()))
    hide = {"referred"} if not any(p.counts["referred"] for p in one.parts.values()) else set()
    names = [n for n in first.shares if n not in hide and not n.endswith(" of all")]
    rows: list[tuple[str, ...]] = [
        ("", "n", f"{group_kind}s", *(SHORT.get(name, name) for name in names))
    ]
    for part, metrics in one.parts.items():
        cells = [str(metrics.shares[name]) for name in names]
        rows.append((PARTS[part], str(metrics.n), str(metrics.n_groups), *cells))
        of_all = [metrics.shares.get(f"{name} of all") for name in names]
        if any(of_all):
            cells = ["" if one is None else str(one) for one in of_all]
            rows.append(("  referred as errors", "", "", *cells))
    if all(row[1] == row[2] for row in rows[1:]):
        rows = [row[:1] + row[2:] for row in rows]
    return rows


def _reading(found: OperatingPoint, unit: str, one: UnitDecision) -> str:
    """The counts of the last part, and whether the target is reached on new data."""
    part = list(one.parts)[-1]
    metrics = one.parts[part]
    n = metrics.counts
    said = f"Result: of {metrics.n} {PARTS[part]} {unit}s"
    if found.class_name is None:
        said += f" {n['right']} decided correctly, {n['wrong']} wrongly, {n['referred']} referred."
    else:
        sick = n["true_positive"] + n["false_negative"]
        well = n["true_negative"] + n["false_positive"]
        decided = "decided " if n["referred"] else ""
        hits = f"{n['true_positive']} of {sick} {decided}'{found.class_name}' found"
        alarms = (
            f"{n['false_positive']} of {well} {decided}others falsely called '{found.class_name}'"
        )
        said += (
            f", {hits if sick else f'no {decided}{unit} is {found.class_name!r}'}, "
            f"{alarms if well else f'no {decided}{unit} is of another class'}"
            + (f", {n['referred']} referred." if n["referred"] else ".")
        )
        if well and n["false_positive"] == well:
            said += f" Every decided {unit} is called '{found.class_name}', so this threshold is of no use."
    return said + "".join(_shortfall(found, p, one.parts[p]) for p in one.parts if p != "in_sample")


def _shortfall(found: OperatingPoint, part: str, metrics: DecisionMetrics) -> str:
    target, reject_option = found.options.threshold_target, found.options.reject_option
    if target is not None and target.kind in metrics.shares:
        value = metrics.shares[target.kind].value
        if value is not None and round(value, 3) < target.value:
            return f" {PARTS[part].capitalize()}, the target is not reached: {target.kind} {value:.3f}."
    limit = None if reject_option is None else reject_option.max_error
    if limit is not None and metrics.error is not None and metrics.error > limit:
        return f" {PARTS[part].capitalize()}, the limit is exceeded: error {metrics.error:.3f}."
    return ""
