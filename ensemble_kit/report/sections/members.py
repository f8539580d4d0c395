"""The sections on members: differences between them, their gains, and their training."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import counted, first_few
from ensemble_kit.evaluation.diversity.member_study import MemberStudy, study_members
from ensemble_kit.evaluation.diversity.shapley import MAX_MEMBERS
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.metrics import METRICS
from ensemble_kit.plots.diversity import diversity_figure
from ensemble_kit.plots.members import members_figure
from ensemble_kit.plots.training import training_figure
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.report.content import Content
from ensemble_kit.report.sections.section import Drawing, Fold, Section
from ensemble_kit.report.sheet import Sheet, text_sheet, values_sheet

MEMBER_METRICS = ("balanced_accuracy", "accuracy", "auroc", "log_loss")
PAIRS = {
    "error_correlation": "error correlation",
    "disagreement": "one wrong",
    "double_fault": "both wrong",
    "kappa": "kappa",
    "mean_error": "mean error",
}
PAIRS_NOTE = (
    "One point per pair of members, out-of-fold. The best pairs are at the lower left: few errors, "
    "and errors on different images."
)


def members_section(content: Content) -> Section:
    """Agreement, error correlation and Shapley values; for a single member, only its metrics."""
    whole = content.oof.predicted_by_all()
    sheet = metrics_sheet(content)
    if whole.n_members < 2 or not len(whole):
        why = "has one member" if whole.n_members < 2 else "has no image that all members predicted"
        words = f"The run {why}, so there is nothing to combine or to compare."
        return Section("members", "Members", (words,), (), (sheet,))
    study = study_members(whole, _protocol(content))
    pairs = study.pairs
    fold = Fold("All pairs of members", (), (_kappa_error(pairs),), (pairs_sheet(pairs),))
    return Section(
        "members",
        "Members",
        (_sentence(study),),
        (_figure(study, whole.member_names),),
        (),
        (Fold("Metrics of each member", (), (), (sheet,)), fold),
    )


def _protocol(content: Content) -> Protocol:
    """The metric of the ranking; balanced accuracy if it needs further settings."""
    known = content.metric in METRICS and content.metric != "expected_cost"
    metric = content.metric if known else Protocol().metric
    return Protocol(metric, n_resamples=200).for_data(content.manifest)


def _sentence(study: MemberStudy) -> str:
    correlation = study.pairs["error_correlation"].mean()
    agree = 1 - study.pairs["disagreement"].mean()
    text = f"Two members are both correct or both wrong on {agree:.0%} of images on average"
    if np.isfinite(correlation):
        text += f"; the mean correlation of their errors is {correlation:.2f}"
    return f"{text}. {study.sentence}"


def _figure(study: MemberStudy, names: tuple[str, ...]) -> Drawing:
    at = {name: i for i, name in enumerate(names)}
    correlation = np.full((len(names),) * 2, np.nan)
    for a, b, value in study.pairs[["a", "b", "error_correlation"]].itertuples(index=False):
        correlation[at[a], at[b]] = correlation[at[b], at[a]] = value
    key = "shapley" if len(names) <= MAX_MEMBERS else "left_out"
    gains = study.members[[key, f"{key}_low", f"{key}_high"]].to_numpy(dtype=np.float64)
    metric = study.protocol.metric.replace("_", " ")
    label = f"{'Shapley value' if key == 'shapley' else 'loss without it'} ({metric})"
    alt = f"Correlation of the errors of {len(names)} members, and the {label} of each"
    return Drawing("members", members_figure(names, correlation, gains, gain=label), alt)


def _kappa_error(pairs: pd.DataFrame) -> Drawing:
    known = pairs.dropna(subset=["kappa", "mean_error"])
    names = [f"{a}, {b}" for a, b in zip(known["a"], known["b"], strict=True)]
    figure = diversity_figure(known[["kappa", "mean_error"]].to_numpy(), names)
    return Drawing("diversity", figure, "Kappa-error diagram of all pairs of members", PAIRS_NOTE)


def pairs_sheet(pairs: pd.DataFrame) -> Sheet:
    """One row per pair, the most similar errors first."""
    rows: list[tuple[str, ...]] = [("pair", *PAIRS.values())]
    for one in pairs.to_dict("records"):
        cells = ("n/a" if pd.isna(one[key]) else f"{one[key]:.3f}" for key in PAIRS)
        rows.append((f"{one['a']}, {one['b']}", *cells))
    note = "One wrong, both wrong: shares of the images. Pairs with the most similar errors first."
    return text_sheet("pairs", "Pairs of members, out-of-fold", rows, note)


def metrics_sheet(content: Content) -> Sheet:
    """Each member's metrics, out-of-fold and on the test part."""
    tables = {"out-of-fold": content.oof} | ({"test": content.test} if content.test else {})
    values = pd.concat([_values(table, part) for part, table in tables.items()])
    shown = [m for m in MEMBER_METRICS if m in set(values["metric"])]
    return values_sheet(
        "members", "Members", values,
        rows=list(content.oof.member_names), columns=[(m, p) for m in shown for p in tables],
        head="member",
    )  # fmt: skip


def _values(table: Predictions, part: str) -> pd.DataFrame:
    columns = ["row", "metric", "part", "value", "low", "high"]
    whole = table.predicted_by_all()
    if not len(whole):
        return pd.DataFrame(columns=columns)
    proba: Array = softmax(whole.logits)
    alone: dict[str, Combined] = {
        name: decided(np.ascontiguousarray(proba[:, m]))
        for m, name in enumerate(whole.member_names)
    }
    scored = score_methods(
        alone, whole.labels, whole.groups, whole.n_classes, metrics=MEMBER_METRICS
    )
    rows = [
        (name, metric, part, interval.value, interval.low, interval.high)
        for name, one in scored.items()
        for metric, interval in one.values.metrics.items()
    ]
    return pd.DataFrame(rows, columns=columns)


def training_section(content: Content) -> Section | None:
    """Loss by epoch; None for imported members."""
    if not content.trainings:
        return None
    histories = {member: one.histories for member, one in content.trainings.items()}
    last = [
        (member, record["chosen_epoch"] + 1, len(one.histories[fold]))
        for member, one in content.trainings.items()
        for fold, record in one.records.items()
    ]
    n_members = len(content.trainings)
    text = f"{counted(len(last), 'network')}: {counted(n_members, 'member')}, one network per fold."
    kinds = {one.about.get("recipe", {}).get("select_on") for one in content.trainings.values()}
    if kinds == {"none"}:
        text += " The last epoch is used; no epoch was selected."
    else:
        n_last = sum(epoch == n for _, epoch, n in last)
        text += f" The selected epoch is the last one in {n_last} of them."
        if falling := _still_falling(content):
            text += (
                f" The validation loss is lowest in the last epoch for {first_few(falling)}: longer "
                "training may help."
            )
    drawing = Drawing(
        "training", training_figure(histories), "Training and validation loss per epoch, by member"
    )
    return Section("training", "Training", (text,), (drawing,))


def _still_falling(content: Content) -> list[str]:
    """Members whose validation loss is lowest at the end in most folds."""
    found = []
    for member, one in content.trainings.items():
        losses = [h["val_log_loss"].to_numpy() for h in one.histories.values()]
        at_end = [len(v) > 1 and int(np.nanargmin(v)) == len(v) - 1 for v in losses if np.isfinite(v).any()]  # fmt: skip
        if 2 * sum(at_end) > len(losses):
            found.append(member)
    return found
