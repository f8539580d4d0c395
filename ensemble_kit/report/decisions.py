"""Stored operating points and prediction sets of a run as rows of text.

Reads `decision.json` and `sets.json` of each method; chooses and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import IntegrityError, command
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION, SETS_JSON
from ensemble_kit.evaluation.runs.stored_ensembles import what_changed
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run

Stored = Mapping[str, Any]
Rows = list[tuple[str, ...]]
NEEDED = {DECISION: "units", SETS_JSON: "figures"}


def stored_decisions(
    run: Run, methods: Iterable[str], oof: Predictions, test: Predictions | None
) -> tuple[dict[str, list[Stored]], list[str]]:
    """The stored operating points and prediction sets, and caveats on those that are out of date.

    Returns
    -------
    dict of file name to list of mapping
        Keys are `decision.json` and `sets.json`.

    Raises
    ------
    IntegrityError
        A stored file is damaged or was changed.
    """
    found: dict[str, list[Stored]] = {DECISION: [], SETS_JSON: []}
    notes = []
    for file, source in ((DECISION, "operating-point"), (SETS_JSON, "conformal")):
        for method in methods:
            path = run.ensemble_dir(method) / file
            if not path.is_file():
                continue
            again = f"Run {command(source, '--method', method, '--run', run.path)} again"
            stored = read_checked(path, advice=again)
            if not {"made_of", NEEDED[file]} <= stored.keys():
                raise IntegrityError(
                    f"'{path}' is damaged", "stored files must be what was written", again
                )
            if changed := what_changed(run, method, stored, oof, test):
                notes.append(
                    f"Not shown: {file} of {method}. Since it was written, {changed}. {again}."
                )
            else:
                found[file].append(stored)
    return found, notes


def point_rows(points: Iterable[Stored]) -> Rows:
    """Header and one row per method, unit and part of the operating points."""
    rows: Rows = [("method", "per", "part", "threshold", "n", "shares", "referred")]
    for one in points:
        for unit, block in one["units"].items():
            for part in [p for p in PARTS if p in block]:
                values = block[part]
                shares = [
                    f"{name} {Interval(**share)}"
                    for name, share in values["shares"].items()
                    if name != "referred"
                ]
                rows.append(
                    (
                        one["method"],
                        unit,
                        PARTS[part],
                        _rule(one, block),
                        str(values["n"]),
                        "; ".join(shares),
                        f"{values['referred']} of {values['n']}",
                    )
                )
    return rows


def _rule(one: Stored, block: Stored) -> str:
    if block["threshold"] is not None:
        return f"'{one['class']}' from {block['threshold']:.3f} on"
    return f"refer below {block['refer_below']:.3f}" if block["refer_below"] else "none referred"


def set_rows(sets: Iterable[Stored]) -> Rows:
    """Header and one row per method, part and class of the prediction sets."""
    rows: Rows = [
        (
            "method",
            "nominal coverage",
            "part",
            "measured coverage",
            "mean size",
            "one class",
            "empty",
        )
    ]
    for one in sets:
        for part, of_class in one["figures"].items():
            for name, found in of_class.items():
                rows.append(
                    (
                        one["method"],
                        f"{100 * (1 - one['miss']):.4g} %",
                        PARTS[part] if name == "all" else f"{PARTS[part]}: {name}",
                        str(Interval(**found["covered"])),
                        f"{found['mean_size']:.2f}",
                        f"{found['single']:.0%}",
                        f"{found['empty']:.0%}",
                    )
                )
    return rows
