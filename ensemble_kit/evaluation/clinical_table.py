"""The clinical block as rows of text and the sentences beside them.

Computes nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_kit.evaluation.clinical import Clinical, ClinicalPart
from ensemble_kit.evaluation.interval import Interval
from ensemble_kit.evaluation.leaderboard import text
from ensemble_kit.evaluation.subgroups import Subgroup
from ensemble_kit.evaluation.verdict import PARTS

Rows = list[tuple[str, ...]]
CALIBRATED = {"slope": "1", "intercept": "0", "observed / expected": "1"}


def clinical_tables(found: Clinical, unit: str) -> Iterator[tuple[str, Rows, str]]:
    """Title, rows with a header, and a sentence: first of the positive class, then of subgroups.

    Parameters
    ----------
    found : Clinical
    unit : str
        What a group is, e.g. "patient".
    """
    for part, one in found.parts.items():
        title = (
            f"{found.method}, '{found.positive}' against the rest, {PARTS[part]}: "
            f"{one.n_positive} of {one.n} images, {one.n_positive_groups} of {one.n_groups} {unit}s"
        )
        yield title, benefit_rows(one), benefit_note(one, found.level)
        yield "calibration", calibration_rows(one), calibration_note(one)
        yield "predictive values", value_rows(one), value_note(one, str(found.positive))
    for column, of_part in found.by.items():
        for part, some in of_part.items():
            title = f"{found.method} by {column}, {PARTS[part]}"
            yield title, subgroup_rows(some, found.metric, unit), ""


def benefit_rows(part: ClinicalPart) -> Rows:
    """Header and one row per threshold."""
    rows: Rows = [("threshold", "net benefit", "best member", "gain", "treat all", "treat none")]
    for ours, best, gain in zip(
        part.curve.points, part.best_member.points, part.gains, strict=True
    ):
        cells = (ours.value, best.value, gain, Interval(ours.treat_all), Interval(0.0))
        rows.append((f"{ours.threshold:g}".removeprefix("0"), *map(text, cells)))
    return rows


def benefit_note(part: ClinicalPart, level: float) -> str:
    """What net benefit is, and what its intervals hold for."""
    several = f" The {level * 100:.0f} % intervals of the gains hold for all thresholds at once."
    return (
        "Net benefit: true positives minus weighted false positives, per image. "
        "The weight is threshold / (1 - threshold). The share of positive images is taken as fixed."
        + (several if len(part.gains) > 1 and any(g.low is not None for g in part.gains) else "")
    )


def calibration_rows(part: ClinicalPart) -> Rows:
    """Header and one row per measure."""
    one = part.calibration
    found = (one.slope, one.intercept, one.observed_to_expected)
    cells = zip(CALIBRATED.items(), found, strict=True)
    return [("", "value", "calibrated"), *((name, text(i), want) for (name, want), i in cells)]


def calibration_note(part: ClinicalPart) -> str:
    """What is too high or too low, and why something is not there."""
    one = part.calibration
    said = [
        "Slope below 1: the probabilities are too extreme. "
        "Intercept above 0: they are too low on average."
    ]
    if one.slope.value is None:
        said.append("No slope fits best here.")
    elif one.slope.low is None:
        said.append("The slope has no interval: without some group no slope fits best.")
    if one.intercept.value is None:
        said.append("No intercept fits here.")
    return " ".join(said)


def value_rows(part: ClinicalPart) -> Rows:
    """Header, and one row per prevalence: the study's own first."""
    values = part.values
    rows: Rows = [("prevalence", "PPV", "NPV", "sensitivity", "specificity")]
    for one in values.at:
        name = f"{text(Interval(one.prevalence))} ({'study' if one.is_of_study else 'stated'})"
        rows.append((name, *map(text, (one.ppv, one.npv, values.sensitivity, values.specificity))))
    return rows


def value_note(part: ClinicalPart, positive: str) -> str:
    """Which decisions these are, and why a value is undefined."""
    said = [f"Decisions of the method, as in the table of methods: '{positive}' or not."]
    first = part.values.at[0]
    if first.ppv.value is None:
        said.append(f"No image is called '{positive}', so PPV is undefined.")
    if first.npv.value is None:
        said.append(f"Every image is called '{positive}', so NPV is undefined.")
    if any(not one.is_of_study for one in part.values.at):
        said.append("A stated prevalence is taken as known.")
    return " ".join(said)


def subgroup_rows(some: tuple[Subgroup, ...], metric: str, unit: str) -> Rows:
    """Header and one row per value of the column."""
    has_rates = any(one.sensitivity is not None for one in some)
    rates = ("sensitivity", "specificity") if has_rates else ()
    rows: Rows = [("", "images", f"{unit}s", metric.replace("_", " "), *rates, "remark")]
    for one in some:
        shown = [i for i in (one.metric, one.sensitivity, one.specificity) if i is not None]
        rows.append((one.name, str(one.n), str(one.n_groups), *map(text, shown), one.remark))
    return rows
