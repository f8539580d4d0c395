"""The report page: tables and figures of a run in one HTML file without scripts or links out.

Formats what `content` gathered and `plots` drew; computes no figure.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION, SETS_JSON
from ensemble_kit.files import write_bytes, write_csv, write_text
from ensemble_kit.plots.calibration import calibration_figure
from ensemble_kit.plots.confusion import confusion_figure
from ensemble_kit.plots.decision_curve import decision_curve_figure
from ensemble_kit.plots.diversity import diversity_figure
from ensemble_kit.plots.leaderboard import leaderboard_figure
from ensemble_kit.plots.pareto import pareto_figure
from ensemble_kit.plots.reliability import reliability_figure
from ensemble_kit.plots.risk_coverage import risk_coverage_figure
from ensemble_kit.plots.roc import roc_figure
from ensemble_kit.plots.style import png_bytes, svg_bytes
from ensemble_kit.plots.training import training_figure
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.report.classes import ShownClasses, confusion_table, shown_classes
from ensemble_kit.report.content import Content, gather, ranked_methods
from ensemble_kit.report.decisions import point_rows, set_rows
from ensemble_kit.report.method_curves import (
    area_under_risk_coverage,
    confusion_counts,
    reliability,
    risk_coverage_curve,
)
from ensemble_kit.report.sets import set_table
from ensemble_kit.report.tables import (
    class_tables,
    coupling_table,
    folds_table,
    member_table,
    optimism_table,
    per_group_table,
    recipe_table,
    results_table,
    sides_table,
)
from ensemble_kit.report.tuning import tuning_content
from ensemble_kit.run import Run

MAX_DRAWN = 4
# On the first screen; the section of caveats has all.
N_CAVEATS = 4
# With more methods than this, the first table shows the best ones and the baselines.
MAX_ROWS, N_BEST = 6, 3


def write_report(run: Run, scores: pd.DataFrame | None = None) -> Path:
    """Write `report/index.html`, its figures and its tables, and return the page's path.

    Parameters
    ----------
    run : Run
        With stored predictions; ensembles that `stack` wrote are shown where they are there.
    scores : DataFrame, optional
        The table of `compare`, shown instead of the stored metrics.

    Raises
    ------
    DataError
        The folder holds no run or no predictions.
    IntegrityError
        A stored file is damaged or was changed.
    RunLockedError
        Another process writes results in this run.
    """
    with run.writing_results():
        return _written(run, gather(run, scores))


def _written(run: Run, content: Content) -> Path:
    figures = {}
    for name, figure in draw(content).items():
        figures[name] = svg_bytes(figure)
        write_bytes(run.report_dir / "figures" / f"{name}.svg", figures[name])
        write_bytes(run.report_dir / "figures" / f"{name}.png", png_bytes(figure))
    tables = {
        "results": content.scores,
        "members": content.members,
        "classes": content.per_class,
        "confusion": confusion_table(_drawn_answers(content), content.manifest.class_names),
        "folds": content.fold_counts,
    }
    for name, table in tables.items():
        write_csv(run.report_dir / "tables" / f"{name}.csv", table)
    page = run.report_dir / "index.html"
    write_text(page, render(content, figures))
    return page


def draw(content: Content) -> dict[str, Figure]:
    """The page's figures by name."""
    answers = _drawn_answers(content)
    classes = classes_of(content)
    confusion = {
        f"{method}, {part}": classes.merged(confusion_counts(one))
        for (method, part), one in answers.items()
    }
    curves = {f"{part}: {method}": one for (method, part), one in answers.items()}
    figures = {
        "confusion": confusion_figure(confusion, classes.axis_names),
        "roc": roc_figure(
            {k: a.proba for k, a in curves.items()},
            {k: a.labels for k, a in curves.items()},
            classes.names,
            classes.in_roc,
        ),
    }
    parts: dict[str, dict[str, Array]] = {}
    for method, part in answers:
        parts.setdefault(part, {})[method] = reliability(answers[method, part])
    figures["reliability"] = reliability_figure(parts)
    figures["risk_coverage"] = risk_coverage_figure(
        {p: {m: risk_coverage_curve(answers[m, p]) for m in of} for p, of in parts.items()},
        {p: {m: area_under_risk_coverage(answers[m, p]) for m in of} for p, of in parts.items()},
    )
    if not content.scores.empty:
        figures["leaderboard"] = leaderboard_figure(
            content.scores, ranked_methods(content.scores, content.metric), metric=content.metric
        )
    pairs = content.pairs.dropna()
    if len(pairs):
        points = pairs[["kappa", "error"]].to_numpy()
        figures["diversity"] = diversity_figure(points, pairs["pair"].tolist())
    if len(content.pareto):
        figures["pareto"] = pareto_figure(content.pareto)
    if content.clinical is not None and content.clinical.parts:
        one = content.clinical
        figures["decision_curve"] = decision_curve_figure(one.curves(), one.treat_all())
        figures["calibration"] = calibration_figure(one.bins(), one.proba(), one.measures())
    if content.histories:
        figures["training"] = training_figure(content.histories)
    return figures


def _drawn_answers(content: Content) -> dict[tuple[str, str], MethodPredictions]:
    """The predictions that get figures: by part, then by method."""
    methods = drawn_methods(content)
    drawn = [k for k in content.answers if k[0] in methods]
    drawn.sort(key=lambda k: (k[1] == "test", methods.index(k[0])))
    return {key: content.answers[key] for key in drawn}


def classes_of(content: Content) -> ShownClasses:
    """The classes that the page shows: those of the first method that gets figures decide."""
    method, _ = next(iter(answers := _drawn_answers(content)))
    first = next(iter(answers.values()))
    return shown_classes(content.manifest.class_names, method, first)


def drawn_methods(content: Content) -> list[str]:
    """The methods that get figures: the best cross-fitted ones, and the best member as their floor."""
    have = {method for method, _ in content.answers}
    order = [
        m
        for m in ranked_methods(content.scores, content.metric)
        if m in have and m not in REFERENCE_METHODS
    ]
    floor = [m for m in ("best-member", "mean") if m in have]
    return [*order[: MAX_DRAWN - len(floor)], *floor] or sorted(have)[:MAX_DRAWN]


def render(content: Content, figures: Mapping[str, bytes]) -> str:
    """The HTML of the page; every name from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("ensemble_kit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sources = {
        name: "data:image/svg+xml;base64," + base64.b64encode(image).decode()
        for name, image in figures.items()
    }
    record = content.record
    shown = classes_of(content)
    return environment.get_template("template.html").render(
        title=f"{content.manifest.name}: {content.run.path.name}",
        content=content,
        figures=sources,
        results=results_table(content.scores, content.metric),
        per_group=per_group_table(content),
        coupling=coupling_table(content),
        optimism=optimism_table(content),
        shown=shown,
        classes=class_tables(content, drawn_methods(content), shown.shown_names),
        sets=set_table(
            content.answers, drawn_methods(content), by_group=content.manifest.has_groups
        ).to_dict("records"),
        stored_tables=_stored_tables(content),
        few_methods=few_methods(content),
        split_sentence=_split_sentence(content),
        n_caveats=N_CAVEATS,
        members=member_table(content.members),
        tuning=tuning_content(content.run),
        clinical=None
        if content.clinical is None
        else content.clinical.text_tables(content.manifest.group_kind),
        sides=sides_table(content.manifest, shown.shown_names),
        folds=folds_table(content, shown.shown_names),
        test_groups=sorted(set(content.manifest.part("test").groups.tolist())),
        by_image=record["folds"]["split_by"] == "image",
        no_groups=not content.manifest.has_groups,
        unit=content.manifest.group_kind,
        recipes=recipe_table(content.recipes),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def few_methods(content: Content) -> list[str]:
    """The methods of the first table: all of a few, else the best ones and the baselines."""
    names = ranked_methods(content.scores, content.metric)
    if len(names) <= MAX_ROWS:
        return names
    best = [name for name in names if name not in REFERENCE_METHODS][:N_BEST]
    return [name for name in names if name in (*best, "best-member", "mean")]


def _stored_tables(content: Content) -> list[tuple[str, list[tuple[str, ...]], str]]:
    """Title, rows and a sentence: what `operating-point` and `conformal` stored."""
    return [
        (
            "Stored operating point",
            point_rows(content.decisions.get(DECISION, [])),
            "As operating-point stored it. In-sample: chosen and counted on the same rows. "
            "Cross-fitted: chosen on the other folds.",
        ),
        (
            "Stored prediction sets",
            set_rows(content.decisions.get(SETS_JSON, [])),
            "As conformal stored them: predict uses these sets.",
        ),
    ]


def _split_sentence(content: Content) -> str:
    """Images and patients of both parts, and the unit of the split."""
    manifest = content.manifest
    said = []
    for split, noun in (("train", "training with cross-validation"), ("test", "the test part")):
        part = manifest.part(split)
        if len(part):
            of = f" of {part.n_groups} {manifest.group_kind}s" if manifest.has_groups else ""
            said.append(f"{len(part)} images{of} for {noun}")
    by_image = content.record["folds"]["split_by"] == "image"
    return f"{'; '.join(said)}. Split by {'image' if by_image else manifest.group_kind}."
