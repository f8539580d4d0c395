"""`ensemble-kit diversity`: how much the members differ, and what each member adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import (
    intervals_option,
    json_option,
    metric_option,
    run_option,
    seed_option,
)
from ensemble_kit.cli.output.tables import print_table
from ensemble_kit.cli.output.text import print_json, print_text
from ensemble_kit.errors import counted

if TYPE_CHECKING:
    from ensemble_kit.evaluation.diversity.member_study import MemberStudy
    from ensemble_kit.run import Run

MAX_PAIRS = 15


@click.command("diversity")
@run_option
@metric_option
@intervals_option
@seed_option
@json_option
def diversity(run: Run, metric: str, resamples: int, seed: int, as_json: bool) -> None:
    """Measure how much the members differ, and what each member adds to their mean (out-of-fold).

    Shapley values are exact, for up to 12 members. Writes diversity/ in the run folder: members.csv,
    pairs.csv, diversity.json, kappa-error.png.
    """
    from ensemble_kit.evaluation.diversity.member_study import FOLDER, study_members
    from ensemble_kit.evaluation.diversity.member_study_files import study_json, write_study
    from ensemble_kit.evaluation.protocol import Protocol
    from ensemble_kit.files import write_bytes
    from ensemble_kit.plots.diversity import diversity_figure
    from ensemble_kit.plots.style import png_bytes

    protocol = Protocol(metric, n_resamples=resamples, seed=seed).for_data(run.manifest())
    found = study_members(run.predictions("oof"), protocol)
    pairs = found.pairs
    figure = diversity_figure(
        pairs[["kappa", "mean_error"]].to_numpy(),
        [f"{a}, {b}" for a, b in zip(pairs["a"], pairs["b"], strict=True)],
    )
    folder = run.path / FOLDER
    with run.writing_results():
        write_bytes(folder / "kappa-error.png", png_bytes(figure))
        write_study(folder, found)
    if as_json:
        print_json(study_json(found))
        return
    print_study(found)
    print_text(f"Written: {folder.as_posix()}/")


def print_study(found: MemberStudy) -> None:
    """The result, what each member adds, the pairs, and the decomposition of the Brier score."""
    name = found.protocol.metric.replace("_", " ")
    units = (
        "" if found.group_kind == "image" else f" of {counted(found.n_groups, found.group_kind)}"
    )
    print_text(found.sentence)
    print_text(
        f"{len(found.members)} members, {found.n} out-of-fold images{units}. {name[0].upper()}{name[1:]} "
        f"of their mean: {found.whole!s}."
    )
    click.echo()
    print_table(_member_rows(found))
    print_text(
        f"alone: {name} of the member alone.\n"
        "gain in mean: gain of the mean of all members by this member.\n"
        f"gain with best: gain of {found.best}, the best member, by this member.\n"
        "Shapley: the gain by the member, averaged over all orders of adding members. It can be positive "
        "although the mean of all members does not need the member."
    )
    click.echo()
    rows, n_more = _pair_rows(found)
    print_table(rows)
    more = f" {n_more} more pairs: pairs.csv." if n_more else ""
    print_text(
        f"Pairs with the most similar errors first.{more} error correlation: 1 if two members err on the "
        "same images, 0 if their errors are unrelated. both wrong, one wrong: shares of the images. "
        "pairs.csv also has kappa and Q."
    )
    brier = found.decomposition
    print_text(
        f"Brier score (lower is better): {brier['members']:.3f} on average over the members, "
        f"{brier['ensemble']:.3f} for their mean. The difference of {brier['ambiguity']:.3f} is the gain by "
        "averaging (ambiguity)."
    )
    for note in found.notes:
        print_text(f"Caveat: {note}")


def _member_rows(found: MemberStudy) -> list[tuple[str, ...]]:
    from ensemble_kit.evaluation.uncertainty.interval import Interval

    rows: list[tuple[str, ...]] = [("member", "alone", "gain in mean", "gain with best", "Shapley")]
    for one in found.members.to_dict("records"):
        cells = {
            key: str(Interval(*(_number(one[k]) for k in (key, f"{key}_low", f"{key}_high"))))
            for key in ("alone", "left_out", "shapley")
        }
        with_best = "" if one["member"] == found.best else str(Interval(one["added"]))
        rows.append((one["member"], cells["alone"], cells["left_out"], with_best, cells["shapley"]))
    return rows


def _pair_rows(found: MemberStudy) -> tuple[list[tuple[str, ...]], int]:
    from ensemble_kit.evaluation.uncertainty.interval import Interval

    shown = {
        "error correlation": "error_correlation",
        "both wrong": "double_fault",
        "one wrong": "disagreement",
    }
    rows: list[tuple[str, ...]] = [("pair", *shown)]
    for one in found.pairs.head(MAX_PAIRS).to_dict("records"):
        cells = (str(Interval(_number(one[key]))) for key in shown.values())
        rows.append((f"{one['a']}, {one['b']}", *cells))
    return rows, max(len(found.pairs) - MAX_PAIRS, 0)


def _number(value: float) -> float | None:
    return None if value != value else float(value)  # NaN
