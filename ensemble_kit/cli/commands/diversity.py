"""`ensemble-kit diversity`: how much the members differ, and what each member adds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import (
    json_option,
    metric_option,
    resamples_option,
    run_option,
    seed_option,
)
from ensemble_kit.cli.output.text import columns, printable
from ensemble_kit.errors import counted

if TYPE_CHECKING:
    from ensemble_kit.evaluation.diversity.member_study import MemberStudy
    from ensemble_kit.run import Run

MAX_PAIRS = 15


@click.command("diversity")
@run_option
@metric_option
@resamples_option
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
        click.echo(json.dumps(study_json(found), indent=2, allow_nan=False))
        return
    print_study(found)
    click.echo(printable(f"Written: {folder.as_posix()}/"))


def print_study(found: MemberStudy) -> None:
    """What each member adds, the pairs, the decomposition of the Brier score, and the result."""

    name = found.protocol.metric.replace("_", " ")
    units = (
        "" if found.group_kind == "image" else f" of {counted(found.n_groups, found.group_kind)}"
    )
    click.echo(
        printable(
            f"{len(found.members)} members, {found.n} out-of-fold images{units}. {name[0].upper()}{name[1:]} of "
            f"their mean: {found.whole!s}."
        )
    )
    click.echo(printable(found.sentence))
    click.echo()
    click.echo(columns(_member_rows(found), right=range(1, 5)))
    click.echo(
        f"alone: {name} of the member. Other columns: gain in {name} by the member,\n"
        f"in the mean of all members; when it is added to {printable(found.best)}, the best member;\n"
        "and as Shapley value, averaged over all orders in which members can be added."
    )
    click.echo()
    rows, n_more = _pair_rows(found)
    click.echo(columns(rows, right=range(1, len(rows[0]))))
    more = f" {n_more} more pairs are in pairs.csv." if n_more else ""
    click.echo(
        f"Pairs with the most similar errors first.{more} both wrong, one wrong: shares of the images."
    )
    brier = found.decomposition
    click.echo(
        f"Brier score of the mean: {brier['ensemble']:.3f} = {brier['members']:.3f} (average of the members) - "
        f"{brier['ambiguity']:.3f} (ambiguity: the gain by averaging)."
    )
    for note in found.notes:
        click.echo(printable(f"Caveat: {note}"))


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
        "Q": "q_statistic",
        "both wrong": "double_fault",
        "one wrong": "disagreement",
        "kappa": "kappa",
        "mean error": "mean_error",
    }
    rows: list[tuple[str, ...]] = [("pair", *shown)]
    for one in found.pairs.head(MAX_PAIRS).to_dict("records"):
        cells = (str(Interval(_number(one[key]))) for key in shown.values())
        rows.append((f"{one['a']}, {one['b']}", *cells))
    return rows, max(len(found.pairs) - MAX_PAIRS, 0)


def _number(value: float) -> float | None:
    return None if value != value else float(value)  # NaN
