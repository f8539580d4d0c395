"""The sections on use: clinical value, stored operating point, stored prediction sets, ordinal errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import command
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION, SETS_JSON, alpha_of
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.metrics import ORDINAL_METRICS
from ensemble_kit.plots.calibration import calibration_figure
from ensemble_kit.plots.counts import class_distance_figure
from ensemble_kit.plots.decision_curve import decision_curve_figure
from ensemble_kit.plots.decisions import set_coverage_figure, threshold_figure
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.report.clinical import numbers_of
from ensemble_kit.report.content import Content
from ensemble_kit.report.decisions import points_sheet, sets_sheet
from ensemble_kit.report.sections.results import few_methods
from ensemble_kit.report.sections.section import Drawing, Fold, Section
from ensemble_kit.report.sheet import text_sheet, values_sheet


def clinical_section(content: Content) -> Section | None:
    """Net benefit, calibration of one class, predictive values; None if they are not stored."""
    one = content.clinical
    if one is None:
        return None
    if one.block.get("why_not"):
        return Section("clinical", "Clinical use", (one.block["why_not"],))
    text = (
        f"Net benefit of {one.method}, {one.title}: true positives minus weighted false positives, "
        "per image. At a threshold of 0.1, one true positive is worth nine false positives. A model "
        'is useful at a threshold if its curve is above both "treat all" and "treat none".'
    )
    curve = Drawing(
        "decision_curve",
        decision_curve_figure(one.curves(), one.treat_all()),
        "Decision curves: net benefit by threshold, beside treating all and treating none",
    )
    points = Drawing(
        "calibration",
        calibration_figure(one.bins(), one.proba(), one.measures()),
        "Calibration plots: observed share by predicted probability",
        f"Points: bins with about equal numbers of images, with intervals over {content.unit}s. Bars: "
        "the predicted probabilities of positive images (up) and of all other images (down).",
    )
    sheets = tuple(
        text_sheet(f"clinical_{i}", title, rows, note)
        for i, (title, rows, note) in enumerate(one.text_tables(content.unit), start=1)
    )
    fold = Fold("Calibration of this class, predictive values, subgroups", (), (points,), sheets)
    return Section("clinical", "Clinical use", (text,), (curve,), (), (fold,))


def point_section(content: Content) -> Section:
    """The stored operating points, or the command that stores one."""
    stored = content.decisions.get(DECISION, [])
    if not stored:
        has_class = content.manifest.n_classes == 2 or content.manifest.positive
        flags = ("--at", "youden") if has_class else ("--refer", "10%")
        again = command(
            "operating-point", "--method", content.chosen, *flags, "--run", content.run.path
        )
        words = f"No operating point is stored: the most probable class is predicted. To choose one: `{again}`."
        return Section("operating_point", "Operating point", (words,), is_half=True)
    first = stored[0]
    block = first["units"]["image"]
    drawings = []
    proba = _by_truth(content, first["method"], first["class"])
    if block["threshold"] is not None and proba:
        figure = threshold_figure(proba, block["threshold"], first["class"])
        alt = f"Probabilities of {first['class']} by true class, with the threshold"
        drawings.append(Drawing("operating_point", figure, alt))
    fold = Fold("All values", (), (), (points_sheet(stored),))
    sentences = (_point_sentence(first), *_own_caveats(content, first))
    return Section("operating_point", "Operating point", sentences, tuple(drawings), (), (fold,))


def _point_sentence(one: Mapping[str, Any]) -> str:
    """The threshold, its metrics on the last part, and the number of referred images."""
    block = one["units"]["image"]
    last = [p for p in PARTS if p in block][-1]
    values, shares = block[last], block[last]["shares"]
    if block["threshold"] is None:
        text = f"{one['method']}: images below a confidence of {block['refer_below']:.3f} are referred."
    else:
        text = f"{one['method']} predicts {one['class']} if its probability is at least {block['threshold']:.3f}."
    metrics_shown = [
        f"{n} {Interval(**shares[n])}" for n in ("sensitivity", "specificity") if n in shares
    ]
    if values["referred"] or block["threshold"] is None:
        metrics_shown.append(f"{values['referred']} of {values['n']} images are referred")
    return f"{text} {PARTS[last].capitalize()}: {', '.join(metrics_shown)}."


def _by_truth(content: Content, method: str, name: str | None) -> dict[str, tuple[Array, Array]]:
    """By part, probabilities of the class and of the others; empty for a member."""
    if name is None:
        return {}
    c = content.manifest.class_names.index(name)
    found = {}
    for part in ("cross-fitted", "test"):
        if (method, part) in content.predictions:
            own = content.predictions[method, part]
            is_class = own.labels == c
            found[part] = (own.proba[is_class, c], own.proba[~is_class, c])
    return found


def sets_section(content: Content) -> Section:
    """The stored prediction sets, or the command that stores them."""
    stored = content.decisions.get(SETS_JSON, [])
    if not stored:
        again = command("conformal", "--method", content.chosen, "--run", content.run.path)
        words = f"No prediction sets are stored. To make sets that contain the true class with a stated probability: `{again}`."
        return Section("sets", "Prediction sets", (words,), is_half=True)
    first = stored[0]
    figures = {PARTS[p]: of for p, of in first["figures"].items()}
    last, found = list(figures.items())[-1]
    covered = found["all"]["covered"]["value"]
    text = (
        f"Sets of {first['method']}: the target coverage is {1 - alpha_of(first):.0%}, the measured coverage "
        f"is {covered:.1%} ({last}). Mean size: {found['all']['mean_size']:.2f} classes; "
        f"{found['all']['single']:.0%} of the sets have one class. `predict` uses these sets."
    )
    caveats = _own_caveats(content, first)
    coverage = {
        part: {name: numbers_of(Interval(**one["covered"])) for name, one in of.items()}
        for part, of in figures.items()
    }
    figure = set_coverage_figure(coverage, 1 - alpha_of(first))
    drawing = Drawing("sets", figure, "Coverage of the prediction sets by class, with intervals")
    sheet = sets_sheet(stored)
    return Section(
        "sets", "Prediction sets", (text, *caveats), (drawing,), (),
        (Fold("All values", (), (), (sheet,)),),
    )  # fmt: skip


def _own_caveats(content: Content, stored: Mapping[str, Any]) -> tuple[str, ...]:
    """The caveats of a stored decision that the page does not show elsewhere."""
    own = f"{stored['method']}: "
    notes = [note for note in stored.get("notes", []) if note not in content.notes]
    return tuple(f"Caveat: {note}" for note in notes if not note.startswith(own))


def ordinal_section(content: Content) -> Section | None:
    """Metrics of ordinal classes; None if the classes are not ordinal."""
    if not content.manifest.ordinal:
        return None
    names = content.manifest.class_names
    predictions = content.compared("best-member")
    far = {m: _shares_by_distance(a, len(names)) for m, a in predictions.items()}
    own, middle = far[content.chosen], len(names) - 1
    near = own[middle - 1] + own[middle + 1]
    text = (
        f"Class order: {' < '.join(names)}. {content.chosen} is correct on {own[middle]:.0%} of images, "
        f"one class off on {near:.0%}, and further off on {max(1 - own[middle] - near, 0):.0%} "
        f"({content.part})."
    )
    drawing = Drawing("ordinal", class_distance_figure(far), "Shares of images by classes off")
    part = content.part.replace("-", "_")
    own_part = content.scores[content.scores["part"] == part]
    metrics = [m for m in ORDINAL_METRICS if m in set(own_part["metric"])]
    sheet = values_sheet(
        "ordinal", f"Ordinal metrics, {PARTS[part]}", own_part.rename(columns={"method": "row"}),
        rows=content.ranking, columns=[(m, part) for m in metrics], head="method",
        part_names=PARTS,
    ).only(few_methods(content))  # fmt: skip
    return Section("ordinal", "Ordinal classes", (text,), (drawing,), (sheet,) if metrics else ())


def _shares_by_distance(predictions: MethodPredictions, n_classes: int) -> Array:
    """Shares of images by predicted minus true class; abstentions are left out."""
    is_decided = predictions.predicted >= 0
    off = predictions.predicted[is_decided] - predictions.labels[is_decided] + n_classes - 1
    counts = np.bincount(off, minlength=2 * n_classes - 1)
    return np.asarray(counts / max(int(is_decided.sum()), 1))
