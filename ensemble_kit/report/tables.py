"""The tables of the report page: rows of cells with their intervals, in the order of reading.

Lays out what `content` gathered; computes no figure and knows no HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ensemble_kit.evaluation.tables.scores import PARTS
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.report.content import Content, ranked_methods

SHOWN = (
    "balanced_accuracy",
    "accuracy",
    "auroc",
    "log_loss",
    "ece",
    "quadratic_weighted_kappa",
    "mean_absolute_error",
)
TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "log_loss": "log loss",
    "ece": "calibration error",
    "quadratic_weighted_kappa": "quadratic weighted kappa",
    "mean_absolute_error": "mean absolute error (grades)",
    "recognition_rate": "recognition rate",
    "average_precision": "average precision",
    "f1": "F1",
}

Table = dict[str, Any]


def results_table(scores: pd.DataFrame, metric: str) -> Table:
    """Methods down; metrics across, each as in-sample, cross-fitted and test; `metric` first."""
    if scores.empty:
        return {"metrics": [], "rows": []}
    metrics = [m for m in dict.fromkeys((metric, *SHOWN)) if m in set(scores["metric"])]
    parts = [p for p in PARTS if p in set(scores["part"])]
    cells = {(r["method"], r["part"], r["metric"]): r for r in scores.to_dict("records")}
    rows = []
    for method in ranked_methods(scores, metric):
        row = []
        for name in metrics:
            for part in parts if name == metrics[0] else parts[1:]:
                row.append(_cell(cells.get((method, part, name))))
        ties = [
            str(int(cells[method, p, metrics[0]]["n_ties"])) for p in parts[1:] if p != "nested"
        ]
        kind = {"oracle": "upper bound", "best-member": "baseline", "mean": "baseline"}.get(
            method, ""
        )
        rows.append({"method": method, "kind": kind, "cells": row, "ties": " + ".join(ties)})
    first = next(iter(cells.values()))
    sizes = {p: next((r for k, r in cells.items() if k[1] == p), first) for p in parts}
    return {
        "metrics": [
            {
                "title": TITLES.get(m, m),
                "parts": [p.replace("_", "-") for p in (parts if m == metrics[0] else parts[1:])],
            }
            for m in metrics
        ],
        "rows": rows,
        "sizes": {p.replace("_", "-"): (int(r["n"]), int(r["n_groups"])) for p, r in sizes.items()},
    }


def per_group_table(content: Content) -> Table:
    """One row per method: the recognition rate and the pooled metrics per patient."""
    table = content.per_group[content.per_group["part"] != "in_sample"]
    if table.empty:
        return {"metrics": [], "rows": []}
    order = [m for m in ranked_methods(content.scores, content.metric) if m in set(table["method"])]
    in_order = pd.concat([table[table["method"] == m] for m in order])
    shown = in_order.assign(part=in_order["part"].str.replace("_", "-"))
    sizes = shown.groupby("part", sort=False)["n_groups"].first().to_dict()
    return {**member_table(shown, "cross-fitted"), "sizes": sizes}


def coupling_table(content: Content) -> Table:
    """One row per method: cross-fitted minus nested, by metric."""
    order = [
        m
        for m in ranked_methods(content.scores, content.metric)
        if m in set(content.coupling["method"])
    ]
    in_order = [content.coupling[content.coupling["method"] == m] for m in order]
    return member_table(pd.concat(in_order) if in_order else content.coupling)


def optimism_table(content: Content) -> Table:
    """One row per method: in-sample minus cross-fitted, and cross-fitted minus test, by metric."""
    table = content.optimism[content.optimism["method"] != "oracle"]
    order = [m for m in ranked_methods(content.scores, content.metric) if m in set(table["method"])]
    in_order = [table[table["method"] == m] for m in order]
    return member_table(pd.concat(in_order) if in_order else table)


def class_tables(
    content: Content, methods: Sequence[str], classes: Sequence[str]
) -> dict[str, Table]:
    """By method: classes down, with how many images they have; each class's metrics across."""
    found = {}
    table = content.per_class[content.per_class["class"].isin(classes)]
    for method in methods:
        own = table[table["method"] == method]
        if not own.empty:
            shown = own.assign(method=own["class"], part=own["part"].str.replace("_", "-"))
            found[method] = {**member_table(shown, "cross-fitted"), "sizes": _sizes(own)}
    return found


def _sizes(per_class: pd.DataFrame) -> dict[str, str]:
    """By class, its images in each part, as "60 + 20"."""
    once = per_class.drop_duplicates(["class", "part"])
    return {
        str(name): " + ".join(map(str, of["n"])) for name, of in once.groupby("class", sort=False)
    }


def member_table(members: pd.DataFrame, crossed: str = "out-of-fold") -> Table:
    """Members down; metrics across, out-of-fold (or what `crossed` calls it) and test."""
    if members.empty:
        return {"metrics": [], "rows": []}
    metrics = list(dict.fromkeys(members["metric"]))
    parts = list(dict.fromkeys(members["part"]))
    cells = {(r["method"], r["part"], r["metric"]): r for r in members.to_dict("records")}
    shown = [crossed if p == "cross-fitted" else p for p in parts]
    return {
        "metrics": [{"title": TITLES.get(m, m), "parts": shown} for m in metrics],
        "rows": [
            {
                "method": name,
                "cells": [_cell(cells.get((name, p, m))) for m in metrics for p in parts],
            }
            for name in dict.fromkeys(members["method"])
        ],
    }


def _cell(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    """Value and interval as text; "n/a" where undefined."""
    if figure is None or pd.isna(figure["value"]):
        return "n/a", ""
    low, high = figure["low"], figure["high"]
    interval = "" if pd.isna(low) or pd.isna(high) else f"{low:.3f} to {high:.3f}"
    return f"{figure['value']:.3f}", interval


def sides_table(manifest: Manifest, classes: Sequence[str]) -> Table:
    """Images and groups per class in the training and the test part."""
    counts = manifest.counts().set_index(["split", "label"])
    rows = []
    for split in ("train", "test"):
        part = manifest.part(split)
        cells = [
            (f"{counts.loc[(split, c), 'images']}", f"{counts.loc[(split, c), 'groups']}")
            if (split, c) in counts.index
            else ("0", "0")
            for c in classes
        ]
        rows.append({"name": split, "cells": [*cells, (str(len(part)), str(part.n_groups))]})
    return {"columns": [*classes, "all"], "rows": rows}


def folds_table(content: Content, classes: Sequence[str]) -> Table:
    """Images and groups per class in each fold."""
    counts = content.fold_counts[content.fold_counts["label"].isin(classes)]
    rows = []
    for fold, part in counts.groupby("fold"):
        cells = [(str(i), str(g)) for i, g in zip(part["images"], part["groups"], strict=True)]
        rows.append({"name": f"fold {fold}", "cells": cells})
    return {"columns": list(classes), "rows": rows}


def recipe_table(recipes: pd.DataFrame) -> Table:
    """What all members share, as text; what differs, as a table with a row per member."""
    if recipes.empty:
        return {"shared": [], "columns": [], "rows": []}
    own = ["member", "network", "input", "start"]
    varied = [c for c in recipes if c in own or recipes[c].nunique(dropna=False) > 1]
    return {
        "shared": [
            f"{c.replace('_', ' ')} {recipes[c].iloc[0]}" for c in recipes if c not in varied
        ],
        "columns": [c.replace("_", " ") for c in varied],
        "rows": recipes[varied].astype(str).to_numpy().tolist(),
    }
