"""`ensemble-kit conformal`: prediction sets with a stated coverage.

Parses and prints; the work is `evaluation.runs.prediction_sets.conformal_sets`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import json_option, resamples_option, run_option, seed_option
from ensemble_kit.cli.output.text import columns, printable

if TYPE_CHECKING:
    from ensemble_kit.evaluation.decisions.set_coverage import PredictionSets
    from ensemble_kit.run import Run

PARTS = {"cross_fitted": "cross-fitted", "test": "test"}


@click.command("conformal")
@run_option
@click.option(
    "--method",
    default="mean",
    show_default=True,
    metavar="NAME",
    help="A stacked method, or a member.",
)
@click.option(
    "--score",
    type=click.Choice(["lac", "aps", "raps"]),
    default="lac",
    show_default=True,
    help="lac: smallest sets; aps: sizes that follow the difficulty; raps: likewise, long sets avoided.",
)
@click.option(
    "--alpha",
    type=float,
    default=0.1,
    show_default=True,
    help="Accepted chance that a set misses the truth.",
)
@click.option("--per-class", is_flag=True, help="Keep the promise for each class by itself.")
@click.option(
    "--cross",
    is_flag=True,
    help="Cross-conformal: compare each fold's rows by that fold's own models.",
)
@resamples_option
@seed_option
@json_option
def conformal(
    run: Run,
    method: str,
    score: str,
    alpha: float,
    per_class: bool,
    cross: bool,
    resamples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Give each image a set of classes that misses the truth with a chance of at most --alpha.

    Calibrated on out-of-fold answers, each patient weighing the same; measured on the test part.
    Writes ensembles/<method>/sets.csv.
    """
    from ensemble_kit.evaluation.decisions.set_coverage import SetOptions, sets_json
    from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets

    options = SetOptions(score, alpha, per_class, cross, n_resamples=resamples, seed=seed)
    found = conformal_sets(run, method, options)
    if as_json:
        click.echo(json.dumps(sets_json(found), indent=2, allow_nan=False))
        return
    print_sets(found)
    click.echo(printable(f"Written: {run.ensemble_dir(method).as_posix()}/sets.csv"))


def print_sets(found: PredictionSets) -> None:
    """The promise, the table of what was measured, and what belongs beside it."""

    options, unit = found.options, found.unit
    each = " for each class" if options.per_class else ""
    about = "about " if options.cross else ""
    kind = "cross-conformal" if options.cross else "split conformal"
    click.echo(
        printable(
            f"Method {found.method}: prediction sets with {about}{100 * (1 - options.miss):.4g} % coverage"
            f"{each} ({kind}, score {options.score.upper()})"
        )
    )
    click.echo(
        f"Calibrated on {found.n_calibrated} out-of-fold images"
        + (
            f" of {found.n_units} {unit}s, each {unit} weighing the same."
            if unit != "image"
            else "."
        )
    )
    rows: list[tuple[str, ...]] = [("", "images", f"{unit}s", f"coverage, per {unit}", "coverage, per image",
             "mean size", "1 class", "empty", "all classes")]  # fmt: skip
    for part, of_class in found.figures.items():
        for name, one in of_class.items():
            rows.append((f"{PARTS[part]}: {name}", str(one.n), str(one.n_groups), str(one.covered),
                         str(one.covered_per_image), f"{one.mean_size:.2f}",
                         *(f"{share:.0%}" for share in (one.single, one.empty, one.full))))  # fmt: skip
    if unit == "image":
        rows = [row[:2] + row[4:] for row in rows]
    click.echo(columns(rows, right=range(1, len(rows[0]))))
    click.echo(reading_of(found))
    click.echo(promise_of(found))
    for note in found.notes:
        click.echo(printable(f"Caveat: {note}"))


def reading_of(found: PredictionSets) -> str:
    """What the sets tell of the last part's images, in a sentence."""
    if not found.figures:
        return "Reading: nothing was measured."
    part = "test" if "test" in found.figures else "cross_fitted"
    one = found.figures[part]["all"]
    single, none, full = (round(one.n * share) for share in (one.single, one.empty, one.full))
    right = "" if one.right_of_single is None else f" ({one.right_of_single:.0%} of them right)"
    return (
        f"Reading: of {one.n} {PARTS[part]} images, {single} have a set with one class{right}, {none} "
        f"an empty set (unlike all classes), and {full} a set with all classes (no information)."
    )


def promise_of(found: PredictionSets) -> str:
    """What is promised, for whom, and what it rests on."""
    over = "images" if found.unit == "image" else f"whole {found.unit}s"
    promised = "The coverage is guaranteed"
    if found.options.cross:
        promised = (
            f"Cross-conformal sets have a proven coverage of {100 * found.options.proven:.4g} %, and in "
            f"practice about {100 * (1 - found.options.miss):.4g} %. This holds"
        )
    level = f"Intervals: {found.options.level * 100:.0f} %, over {over}."
    if found.options.n_resamples == 0:
        level = "No intervals were asked for (0 resamples)."
    whose = "a new image" if found.unit == "image" else f"a random image of a new {found.unit}"
    return (
        f"{promised} for {whose}, if new {found.unit}s resemble these (exchangeable). It does not "
        f"hold for another scanner, stain or clinic. {level}"
    )
