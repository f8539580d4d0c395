"""The section of results: the best methods and the baselines; other methods are collapsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from ensemble_kit.errors import counted
from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.evaluation.scores.verdict import PARTS as PART_NAMES
from ensemble_kit.evaluation.tables.scores import PARTS
from ensemble_kit.plots.leaderboard import leaderboard_figure
from ensemble_kit.report.content import Content
from ensemble_kit.report.differences import DIFFERENCES, SHOWN, leakage_frame, optimism_frame
from ensemble_kit.report.sections.section import Drawing, Fold, Section
from ensemble_kit.report.sheet import Cell, Sheet, values_sheet

# With more methods than this, the first table shows the best ones and the baselines.
MAX_ROWS, N_BEST = 6, 3
BESIDE = ("auroc", "log_loss", "ece")
ALL = ("balanced_accuracy", "accuracy", "auroc", "log_loss", "ece", "quadratic_weighted_kappa", "mean_absolute_error")  # fmt: skip
KINDS = {"oracle": "upper bound", "best-member": "baseline", "mean": "baseline"}
LEGEND = (
    "In-sample: the method is fitted and scored on the same out-of-fold predictions. Cross-fitted: "
    "each fold is scored with a method fitted on the other folds. Test: the method is fitted on all "
    "out-of-fold predictions and scored on images that are in no fold. The best member is chosen on "
    "out-of-fold predictions. The oracle uses the labels: it is an upper bound, not a method."
)
OPTIMISM = (
    "In-sample minus cross-fitted is the optimism of a fitted method. For log loss, where lower is "
    "better, optimism is negative. Cross-fitted minus test is not optimism: the test images come from "
    "other patients, and are predicted by the average of the models of all folds."
)
NESTED = (
    "In nested cross-validation, each fold is scored with members and combiners that were trained "
    "without that fold. For cross-fitted metrics, the combiner is fitted to predictions of members "
    "that were trained on the labels of that fold. The difference is base-model leakage."
)


def results_section(content: Content) -> Section:
    """Methods with their intervals and verdicts."""
    if content.scores.empty:
        again = f"`ensemble-kit stack --method all --run {content.run.path.as_posix()}`"
        return Section("results", "Results", (f"This run has no stacked methods yet. Run {again}",))
    few, sheet = few_methods(content), methods_sheet(content)
    folds = [Fold("All metrics of all methods", (LEGEND,), (), (all_values_sheet(content),))]
    if len(few) < len(content.ranking) and content.oof.n_members > 1:
        whole = (dataclasses.replace(sheet, shown=None),)
        everyone = (_forest(content, content.ranking, "leaderboard_all"),)
        folds.insert(0, Fold(f"All {len(sheet.rows)} methods", (), everyone, whole))
    return Section(
        "results",
        "Results",
        (_sentence(content, few),),
        (_forest(content, few, "leaderboard"),),
        (sheet.only(few),),
        (*folds, *_further(content)),
    )


def few_methods(content: Content) -> list[str]:
    """The methods of the first table: all if there are few, else the best ones and the baselines."""
    names = content.ranking
    if content.oof.n_members == 1:
        return ["best-member"]
    if len(names) <= MAX_ROWS:
        return names
    best = [name for name in names if name not in REFERENCE_METHODS][:N_BEST]
    return [name for name in names if name in (*best, "best-member", "mean")]


def methods_sheet(content: Content) -> Sheet:
    """The metric of the ranking by part, other metrics of the main part, and the verdicts."""
    parts = [p for p in PARTS[1:] if p in set(content.scores["part"])]
    has = set(content.scores["metric"])
    beside = [m for m in BESIDE if m in has and m != content.metric]
    columns = [*((content.metric, p) for p in parts), *((m, parts[-1]) for m in beside)]
    sheet = _sheet(content, "methods", columns, "Methods, the best by cross-validation first")
    words = {m: _word(content, m, parts[-1]) for m in content.ranking}
    if not any(words.values()):
        return sheet
    rows = [(*row, Cell(words[row[0].text])) for row in sheet.rows]
    columns_with = (*sheet.columns, ("", "against the best member"))
    return dataclasses.replace(sheet, columns=columns_with, rows=tuple(rows))


def all_values_sheet(content: Content) -> Sheet:
    """Every shown metric of every method and part, with the numbers of tied votes."""
    has = set(content.scores["metric"])
    parts = [p for p in PARTS if p in set(content.scores["part"])]
    metrics = [m for m in dict.fromkeys((content.metric, *ALL)) if m in has]
    columns = [(m, p) for m in metrics for p in (parts if m == metrics[0] else parts[1:])]
    sheet = _sheet(content, "values", columns, "All methods")
    ties = content.scores[content.scores["metric"] == content.metric]
    known = {
        (m, p): n for m, p, n in zip(ties["method"], ties["part"], ties["n_ties"], strict=True)
    }
    shown = [p for p in parts[1:] if p != "nested"]
    rows = [
        (*row, Cell(" + ".join(str(int(known[row[0].text, p])) for p in shown)))
        for row in sheet.rows
    ]
    heads = (*sheet.columns, ("ties", " + ".join(PART_NAMES[p] for p in shown)))
    return dataclasses.replace(sheet, columns=heads, rows=tuple(rows))


def _sheet(content: Content, name: str, columns: Sequence[tuple[str, str]], caption: str) -> Sheet:
    smalls = {m: KINDS.get(m, "") for m in content.ranking}
    smalls |= dict.fromkeys(content.fell_back, "replaced by the mean")
    return values_sheet(
        name,
        f"{caption}. {_sizes(content)}",
        content.scores.rename(columns={"method": "row"}),
        rows=content.ranking,
        columns=columns,
        head="method",
        part_names=PART_NAMES,
        muted=KINDS,
        smalls=smalls,
    )


def _sizes(content: Content) -> str:
    """Images and patients of each part that is shown."""
    first = content.scores.drop_duplicates("part").set_index("part")
    sentences = []
    for part in [p for p in PARTS[1:] if p in first.index]:
        n, groups = int(first.loc[part, "n"]), int(first.loc[part, "n_groups"])
        of = f" of {counted(groups, content.unit)}" if content.manifest.has_groups else ""
        sentences.append(f"{PART_NAMES[part]}: n = {counted(n, 'image')}{of}")
    return f"95 % intervals over whole {content.unit}s. {'; '.join(sentences)}."


def _word(content: Content, method: str, part: str) -> str:
    verdicts = content.stored.get(method, {}).get("verdicts", [])
    found = [v["word"] for v in verdicts if (v["part"], v["against"]) == (part, "best-member")]
    return found[0] if found else ""


def _forest(content: Content, methods: Sequence[str], name: str) -> Drawing:
    metric = content.metric.replace("_", " ")
    figure = leaderboard_figure(content.scores, methods, metric=content.metric)
    alt = f"{metric} of {len(methods)} methods with intervals; dotted: the best member"
    return Drawing(name, figure, alt)


def _sentence(content: Content, few: Sequence[str]) -> str:
    if content.oof.n_members == 1:
        text = f"The run has one member, {content.oof.member_names[0]}. {content.chance}"
        return text.strip()
    n_all = sum(m not in REFERENCE_METHODS for m in content.ranking)
    n_few = sum(m not in REFERENCE_METHODS for m in few)
    metric = content.metric.replace("_", " ")
    which = f"The {n_few} best of {n_all} methods" if n_few < n_all else f"All {n_all} methods"
    if n_all == 2:
        which = "Both methods"
    if n_all == 1:
        which = f"The method {next(m for m in few if m not in REFERENCE_METHODS)}"
    if not n_all:
        which = "The baselines"
    text = f"{which} by {metric}, beside the best member (dotted line) and the mean of all members."
    return f"{text} {content.chance}" if content.chance else text


def _further(content: Content) -> list[Fold]:
    """Differences between parts, nested cross-validation, and metrics per patient."""
    found = []
    optimism = optimism_frame(content.stored)
    if len(optimism):
        sheet = _differences(content, "differences", optimism, [*DIFFERENCES.values()])
        found.append(Fold("Differences between parts", (OPTIMISM,), (), (sheet,)))
    nested = leakage_frame(content.stored)
    if len(nested):
        sheet = _differences(content, "nested", nested, ["cross-fitted - nested"])
        found.append(Fold("Nested cross-validation", (NESTED,), (), (sheet,)))
    if (per_group := _per_group(content)) is not None:
        found.append(per_group)
    return found


def _differences(content: Content, name: str, frame: pd.DataFrame, parts: Sequence[str]) -> Sheet:
    rows = [m for m in content.ranking if m in set(frame["row"])]
    have = set(frame["part"])
    columns = [(m, p) for m in SHOWN if m in set(frame["metric"]) for p in parts if p in have]
    values = frame.reindex(columns=["row", "metric", "part", "value", "low", "high"])
    return values_sheet(name, "", values, rows=rows, columns=columns, head="method")


def _per_group(content: Content) -> Fold | None:
    """The recognition rate and the pooled metrics per patient; None without groups."""
    values = content.values
    table = values[(values["unit"] != "image") & (values["part"] != "in_sample")]
    if table.empty:
        return None
    metrics, parts = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["part"]))
    shown = [m for m in metrics if m in ("recognition_rate", *ALL)]
    sheet = values_sheet(
        "per_group",
        f"One prediction per {content.unit}.",
        table.rename(columns={"method": "row"}),
        rows=[m for m in content.ranking if m in set(table["method"])],
        columns=[(m, p) for m in shown for p in parts],
        head="method",
        part_names=PART_NAMES,
    )
    unit = content.unit
    words = f"Recognition rate: mean over {unit}s of the accuracy on their images."
    if len(metrics) > 1:
        words += f" The other metrics are of one prediction per {unit}, pooled over its images."
    else:
        words += f" Some {unit}s have images of several classes, so there is no single prediction per {unit}."
    return Fold(f"Per {unit}", (words,), (), (sheet,))
