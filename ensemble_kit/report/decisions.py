"""Tables of stored operating points (`decision.json`) and prediction sets (`sets.json`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import IntegrityError, command
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION, SETS_JSON, alpha_of
from ensemble_kit.evaluation.runs.stored_ensembles import what_changed
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.report.sheet import Cell, Sheet, value_cell
from ensemble_kit.run import Run

Stored = Mapping[str, Any]
SHARES = {"ppv": "PPV", "npv": "NPV"}
POINT_NOTE = (
    "In-sample: chosen and evaluated on the same images. Cross-fitted: chosen on the other folds. "
    "Of all: referred images count as errors."
)
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
                    f"'{path}' is damaged", "stored files must be unchanged", again
                )
            if changed := what_changed(run, method, stored, oof, test):
                notes.append(
                    f"Not shown: {file} of {method}. Since it was written, {changed}. {again}."
                )
            else:
                found[file].append(stored)
    return found, notes


def points_sheet(points: Sequence[Stored]) -> Sheet:
    """One row per method, unit and part of the operating points, one column per share."""
    blocks = [
        (one, unit, block, part)
        for one in points
        for unit, block in one["units"].items()
        for part in PARTS
        if part in block
    ]
    shares = dict.fromkeys(
        name for _, _, block, part in blocks for name in block[part]["shares"] if name != "referred"
    )
    rows = []
    for one, unit, block, part in blocks:
        values = block[part]
        found = values["shares"]
        cells = [value_cell(found[name]) if name in found else Cell("") for name in shares]
        about = (Cell(one["method"], _rule(one, block)), Cell(f"{unit}, {PARTS[part]}"))
        referred = Cell(f"{values['referred']} of {values['n']}")
        rows.append((*about, *cells, referred))
    heads = ("method", "per", *(SHARES.get(name, name) for name in shares), "referred")
    columns = tuple(("", head) for head in heads)
    return Sheet("operating_point", "Stored operating points", columns, tuple(rows), POINT_NOTE)


def _rule(one: Stored, block: Stored) -> str:
    if block["threshold"] is not None:
        return f"'{one['class']}' at {block['threshold']:.3f} or above"
    return f"refer below {block['refer_below']:.3f}" if block["refer_below"] else "none referred"


def sets_sheet(sets: Sequence[Stored]) -> Sheet:
    """One row per method, part and class of the prediction sets."""
    rows = []
    for one in sets:
        for part, of_class in one["figures"].items():
            for name, found in of_class.items():
                rows.append(
                    (
                        Cell(one["method"], f"{100 * (1 - alpha_of(one)):.4g} % target"),
                        Cell(PARTS[part]),
                        Cell(name),
                        value_cell(found["covered"]),
                        Cell(f"{found['mean_size']:.2f}"),
                        Cell(f"{found['single']:.0%}"),
                        Cell(f"{found['empty']:.0%}"),
                    )
                )
    heads = ("method", "part", "class", "coverage", "mean size", "one class", "empty")
    columns = tuple(("", head) for head in heads)
    return Sheet("sets", "Stored prediction sets", columns, tuple(rows))
