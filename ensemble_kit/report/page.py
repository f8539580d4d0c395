"""The report page: tables and figures of a run in one HTML file without scripts or links out.

Formats what `content` gathered and `plots` drew; computes no figure.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.ensembles import guarded
from ensemble_kit.files import write_bytes, write_csv, write_text
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.plots.confusion import confusion_figure
from ensemble_kit.plots.diversity import diversity_figure
from ensemble_kit.plots.leaderboard import leaderboard_figure
from ensemble_kit.plots.pareto import pareto_figure
from ensemble_kit.plots.reliability import reliability_figure
from ensemble_kit.plots.risk_coverage import risk_coverage_figure
from ensemble_kit.plots.roc import roc_figure
from ensemble_kit.plots.style import svg_bytes
from ensemble_kit.plots.training import training_figure
from ensemble_kit.report.answers import Answers
from ensemble_kit.report.content import BOUNDS, PARTS, Content, gather, ranked_methods
from ensemble_kit.report.sets import set_table
from ensemble_kit.run import Run

SHOWN = (
    "balanced_accuracy",
    "accuracy",
    "auroc",
    "log_loss",
    "ece",
    "quadratic_weighted_kappa",
    "mean_absolute_error",
)
MAX_DRAWN = 4
TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "log_loss": "log loss",
    "ece": "calibration error",
    "quadratic_weighted_kappa": "quadratic weighted kappa",
    "mean_absolute_error": "mean absolute error (grades)",
    "recognition_rate": "recognition rate",
}


def write_report(run: Run, scores: pd.DataFrame | None = None) -> Path:
    """Write `report/index.html`, its figures and its tables, and return the page's path.

    Parameters
    ----------
    run : Run
        With stored predictions; ensembles that `stack` wrote are shown where they are there.
    scores : DataFrame, optional
        The table of `compare`, shown instead of the stored figures.

    Raises
    ------
    DataError
        The folder holds no run or no predictions.
    """
    content = gather(run, scores)
    figures = draw(content)
    for name, figure in figures.items():
        write_bytes(run.report_dir / "figures" / f"{name}.svg", svg_bytes(figure))
    for name, table in {"results": content.scores, "members": content.members}.items():
        safe = table.map(lambda cell: guarded(cell) if isinstance(cell, str) else cell)
        write_csv(run.report_dir / "tables" / f"{name}.csv", safe)
    page = run.report_dir / "index.html"
    write_text(page, render(content, figures))
    return page


def draw(content: Content) -> dict[str, Figure]:
    """The page's figures by name."""
    names = content.manifest.class_names
    methods = drawn_methods(content)
    answers = {k: a for k, a in content.answers.items() if k[0] in methods}
    ordered = sorted(answers, key=lambda k: (k[1] == "test", methods.index(k[0])))
    confusion = {f"{method}, {part}": answers[method, part].confusion() for method, part in ordered}
    curves: dict[str, Answers] = {
        f"{part}: {method}": answers[method, part] for method, part in ordered
    }
    figures = {
        "confusion": confusion_figure(confusion, names),
        "roc": roc_figure(
            {k: a.proba for k, a in curves.items()}, {k: a.labels for k, a in curves.items()}, names
        ),
    }
    parts: dict[str, dict[str, Array]] = {}
    for method, part in ordered:
        parts.setdefault(part, {})[method] = answers[method, part].reliability()
    figures["reliability"] = reliability_figure(parts)
    figures["risk_coverage"] = risk_coverage_figure(
        {p: {m: answers[m, p].risk_coverage() for m in of} for p, of in parts.items()},
        {p: {m: answers[m, p].aurc() for m in of} for p, of in parts.items()},
    )
    if not content.scores.empty:
        figures["leaderboard"] = leaderboard_figure(
            content.scores, ranked_methods(content.scores), metric=SHOWN[0]
        )
    pairs = content.pairs.dropna()
    if len(pairs):
        points = pairs[["kappa", "error"]].to_numpy()
        figures["diversity"] = diversity_figure(points, pairs["pair"].tolist())
    if len(content.pareto):
        figures["pareto"] = pareto_figure(content.pareto)
    if content.histories:
        figures["training"] = training_figure(content.histories)
    return figures


def drawn_methods(content: Content) -> list[str]:
    """The methods that get figures: the best cross-fitted ones, and the best member as their floor."""
    have = {method for method, _ in content.answers}
    order = [m for m in ranked_methods(content.scores) if m in have and m not in BOUNDS]
    floor = [m for m in ("best-member", "mean") if m in have]
    return [*order[: MAX_DRAWN - len(floor)], *floor] or sorted(have)[:MAX_DRAWN]


def render(content: Content, figures: Mapping[str, Figure]) -> str:
    """The HTML of the page; every name from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("ensemble_kit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sources = {
        name: "data:image/svg+xml;base64," + base64.b64encode(svg_bytes(figure)).decode()
        for name, figure in figures.items()
    }
    record = content.record
    return environment.get_template("template.html").render(
        title=f"{content.manifest.name}: {content.run.path.name}",
        content=content,
        figures=sources,
        results=results_table(content.scores),
        per_group=per_group_table(content),
        coupling=coupling_table(content),
        sets=set_table(
            content.answers, drawn_methods(content), by_group=content.manifest.has_groups
        ).to_dict("records"),
        members=member_table(content.members),
        sides=sides_table(content.manifest),
        folds=folds_table(content),
        test_groups=sorted(set(content.manifest.part("test").groups.tolist())),
        by_image=record["folds"]["split_by"] == "image",
        no_groups=not content.manifest.has_groups,
        unit=content.manifest.group_kind,
        recipes=recipe_table(content.recipes),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


Table = dict[str, Any]


def results_table(scores: pd.DataFrame) -> Table:
    """Methods down; metrics across, each as in-sample, cross-fitted and test."""
    if scores.empty:
        return {"metrics": [], "rows": []}
    metrics = [m for m in SHOWN if m in set(scores["metric"])]
    parts = [p for p in PARTS if p in set(scores["part"])]
    cells = {(r["method"], r["part"], r["metric"]): r for r in scores.to_dict("records")}
    rows = []
    for method in ranked_methods(scores):
        row = []
        for metric in metrics:
            for part in parts if metric == metrics[0] else parts[1:]:
                row.append(_cell(cells.get((method, part, metric))))
        ties = [
            str(int(cells[method, p, metrics[0]]["n_ties"])) for p in parts[1:] if p != "nested"
        ]
        kind = {"oracle": "ceiling", "best-member": "floor", "mean": "floor"}.get(method, "")
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
    """Methods down; the recognition rate and pooled figures of whole patients across."""
    table = content.per_group[content.per_group["part"] != "in_sample"]
    if table.empty:
        return {"metrics": [], "rows": []}
    order = [m for m in ranked_methods(content.scores) if m in set(table["method"])]
    in_order = pd.concat([table[table["method"] == m] for m in order])
    shown = in_order.assign(part=in_order["part"].str.replace("_", "-"))
    sizes = shown.groupby("part", sort=False)["n_groups"].first().to_dict()
    return {**member_table(shown, "cross-fitted"), "sizes": sizes}


def coupling_table(content: Content) -> Table:
    """Methods down; across, what cross-fitted figures are above (or below) nested ones."""
    order = [m for m in ranked_methods(content.scores) if m in set(content.coupling["method"])]
    in_order = [content.coupling[content.coupling["method"] == m] for m in order]
    return member_table(pd.concat(in_order) if in_order else content.coupling)


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


def sides_table(manifest: Manifest) -> Table:
    """Images and groups per class in the training and the test part."""
    counts = manifest.counts().set_index(["split", "label"])
    rows = []
    for split in ("train", "test"):
        part = manifest.part(split)
        cells = [
            (f"{counts.loc[(split, c), 'images']}", f"{counts.loc[(split, c), 'groups']}")
            if (split, c) in counts.index
            else ("0", "0")
            for c in manifest.class_names
        ]
        rows.append({"name": split, "cells": [*cells, (str(len(part)), str(part.n_groups))]})
    return {"columns": [*manifest.class_names, "all"], "rows": rows}


def folds_table(content: Content) -> Table:
    """Images and groups per class in each fold."""
    counts = content.fold_counts
    rows = []
    for fold, part in counts.groupby("fold"):
        cells = [(str(i), str(g)) for i, g in zip(part["images"], part["groups"], strict=True)]
        rows.append({"name": f"fold {fold}", "cells": cells})
    return {"columns": list(content.manifest.class_names), "rows": rows}


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
