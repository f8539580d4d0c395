"""The clinical block of `metrics.json` as rows of text, each table with its legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.evaluation.uncertainty.interval import Interval

Block = Mapping[str, Any]
Rows = list[tuple[str, ...]]
CALIBRATED = {
    "slope": ("slope", "1"),
    "intercept": ("intercept", "0"),
    "observed_to_expected": ("observed / expected", "1"),
}


def clinical_tables(block: Block, unit: str) -> Iterator[tuple[str, Rows, str]]:
    """Title, rows with a header, and a legend: of the positive class, then of subgroups.

    Parameters
    ----------
    block : mapping
        The result of `clinical_json`.
    unit : str
        Name of a group, e.g. "patient".
    """
    method, positive = block["method"], str(block["positive"])
    for part in [p for p in PARTS if p in block]:
        one, name = block[part], PARTS[part]
        sizes = (
            f"{one['n_positive']} of {one['n']} images, "
            f"{one['n_positive_groups']} of {one['n_groups']} {unit}s are positive"
        )
        yield (
            f"{method}, '{positive}' against the rest, {name} ({sizes})",
            benefit_rows(one),
            benefit_note(one, block["level"]),
        )
        yield f"Calibration, {name}", calibration_rows(one), calibration_note(one)
        yield f"Predictive values, {name}", value_rows(one), value_note(one, positive)
    for column, of_part in block["subgroups"].items():
        for part, some in of_part.items():
            title = f"{method} by {column}, {PARTS[part]}"
            yield title, subgroup_rows(some, block["metric"], unit), ""


def benefit_rows(part: Block) -> Rows:
    """Header and one row per threshold."""
    rows: Rows = [("threshold", "net benefit", "best member", "difference", "treat all")]
    for one in part["net_benefit"]:
        cells = [_text(one[key]) for key in ("method", "best_member", "gain")]
        cells.append(str(Interval(one["treat_all"])))
        rows.append((f"{one['threshold']:g}", *cells))
    return rows


def benefit_note(part: Block, level: float) -> str:
    """Legend of the net benefit, and the meaning of its intervals."""
    gains = [one["gain"] for one in part["net_benefit"]]
    text = (
        "Net benefit: true positives minus weighted false positives, per image. "
        "The weight is threshold / (1 - threshold). Treating nobody has a net benefit of 0. The share of "
        "positive images is taken as fixed."
    )
    if len(gains) > 1 and any(gain["low"] is not None for gain in gains):
        text += f" The {level * 100:.0f} % intervals of the differences are simultaneous for all thresholds."
    return text


def calibration_rows(part: Block) -> Rows:
    """Header and one row per measure."""
    found = part["calibration"]
    rows = [(name, _text(found[key]), want) for key, (name, want) in CALIBRATED.items()]
    return [("", "value", "calibrated"), *rows]


def calibration_note(part: Block) -> str:
    """How to read slope and intercept, and why one is missing."""
    found = part["calibration"]
    sentences = [
        "Slope below 1: the probabilities are too extreme. "
        "Intercept above 0: they are too low on average. Observed / expected: the number of positive "
        "images over the sum of their probabilities."
    ]
    if found["slope"]["value"] is None:
        sentences.append(
            "The slope is undefined: one class is missing, all probabilities are equal, or the "
            "probabilities separate the classes perfectly."
        )
    elif found["slope"]["low"] is None and found["observed_to_expected"]["low"] is not None:
        sentences.append(
            "The slope has no interval: it is undefined when one of the groups is left out, or the "
            "data are too large."
        )
    if found["intercept"]["value"] is None:
        sentences.append(
            "The intercept is undefined: one class is missing, or all probabilities are 0 or 1."
        )
    return " ".join(sentences)


def value_rows(part: Block) -> Rows:
    """Header, and one row per prevalence: the study's own first."""
    rates = [_text(part[key]) for key in ("sensitivity", "specificity")]
    rows: Rows = [("prevalence", "PPV", "NPV", "sensitivity", "specificity")]
    for one in part["predictive_values"]:
        origin = "study" if one["is_of_study"] else "stated"
        name = f"{Interval(one['prevalence'])!s} {origin}"
        rows.append((name, _text(one["ppv"]), _text(one["npv"]), *rates))
    return rows


def value_note(part: Block, positive: str) -> str:
    """Legend of the predictive values, and why one is undefined."""
    sentences = [f"The predicted class is '{positive}' or not, as in the table of methods."]
    study = part["predictive_values"][0]
    if study["ppv"]["value"] is None:
        sentences.append(f"No image is predicted as '{positive}', so PPV is undefined.")
    if study["npv"]["value"] is None:
        sentences.append(f"Every image is predicted as '{positive}', so NPV is undefined.")
    if len(part["predictive_values"]) > 1:
        sentences.append("The intervals treat a stated prevalence as known exactly.")
    return " ".join(sentences)


def subgroup_rows(some: list[Block], metric: str, unit: str) -> Rows:
    """Header and one row per value of the column."""
    keys = [
        key
        for key in ("metric", "sensitivity", "specificity")
        if any(one[key] is not None for one in some)
    ]
    names = [metric if key == "metric" else key for key in keys]
    rows: Rows = [("", "images", f"{unit}s", *(n.replace("_", " ") for n in names), "remark")]
    for one in some:
        cells = [_text(one[key]) for key in keys]
        rows.append((one["name"], str(one["n"]), str(one["n_groups"]), *cells, one["remark"]))
    return rows


def _text(interval: Mapping[str, float | None]) -> str:
    return str(Interval(**interval))
