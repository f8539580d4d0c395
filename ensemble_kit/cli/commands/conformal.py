"""`ensemble-kit conformal`: prediction sets with a stated coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import (
    intervals_option,
    json_option,
    method_option,
    run_option,
    seed_option,
)
from ensemble_kit.cli.output.tables import print_table
from ensemble_kit.cli.output.text import print_command, print_json, print_text
from ensemble_kit.errors import command

if TYPE_CHECKING:
    from ensemble_kit.evaluation.decisions.set_coverage import PredictionSets
    from ensemble_kit.run import Run

SCORES = {
    "lac": "smallest sets",
    "aps": "larger sets for difficult images",
    "raps": "larger sets for difficult images, but no very large ones",
}
PARTS = {"cross_fitted": "cross-fitted", "test": "test"}


@click.command("conformal")
@run_option
@method_option
@click.option(
    "--score",
    type=click.Choice(["lac", "aps", "raps"]),
    default="lac",
    show_default=True,
    help="lac: smallest sets. aps: larger sets for difficult images. raps: as aps, but without very large sets.",
)
@click.option(
    "--alpha",
    type=float,
    default=0.1,
    show_default=True,
    help="Accepted probability that a set does not contain the true class.",
)
@click.option(
    "--per-class",
    is_flag=True,
    help="Calibrate separately for each class, so that the coverage holds for each class.",
)
@click.option(
    "--cross",
    is_flag=True,
    help="Cross-conformal sets: compare a test image with the images of each fold by the models of that fold.",
)
@intervals_option
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
    """Make a set of classes for each image that contains the true class with probability 1 - alpha.

    The sets are calibrated on out-of-fold predictions and evaluated on the test part. Each patient
    has the same weight. Writes ensembles/<method>/sets.csv.
    """
    from ensemble_kit.evaluation.decisions.set_coverage import SetOptions, sets_json
    from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets

    options = SetOptions(score, alpha, per_class, cross, n_resamples=resamples, seed=seed)
    found = conformal_sets(run, method, options)
    if as_json:
        print_json(sets_json(found))
        return
    print_sets(found)
    print_text(f"Written: {run.ensemble_dir(method).as_posix()}/sets.csv")
    if not run.is_imported:
        print_command(
            "To use them", command("predict", "IMAGES", "--method", method, "--run", run.path)
        )


def print_sets(found: PredictionSets) -> None:
    """The stated coverage, the table of the measured coverage, and the caveats."""
    options, unit = found.options, found.unit
    each = "for each class" if options.per_class else "for a random image of a new patient"
    about = "about " if options.cross else ""
    kind = "cross-conformal" if options.cross else "split conformal"
    weights = (
        "" if unit == "image" else f" of {found.n_units} {unit}s, each {unit} with the same weight"
    )
    print_text(
        f"Method {found.method}: prediction sets with {about}{100 * (1 - options.alpha):.4g} % coverage "
        f"{each} ({kind}, {options.score}: {SCORES[options.score]})."
    )
    print_text(f"Calibrated on {found.n_calibrated} out-of-fold images{weights}.")
    print_text(result_sentence(found))
    click.echo()
    print_table(_rows(found))
    click.echo()
    print_text(guarantee_of(found))
    for note in found.notes:
        print_text(f"Caveat: {note}")


def _rows(found: PredictionSets) -> list[tuple[str, ...]]:
    """One row per part and class."""
    heads = ("coverage", "mean size", "1 class", "no class", "all classes")
    rows: list[tuple[str, ...]] = [("", "images", f"{found.unit}s", *heads)]
    for part, of_class in found.metrics.items():
        for name, one in of_class.items():
            shares = (f"{100 * share:.0f} %" for share in (one.single, one.empty, one.full))
            sizes = (str(one.n), str(one.n_groups), str(one.covered), f"{one.mean_size:.2f}")
            rows.append((f"{PARTS[part]}: {name}", *sizes, *shares))
    return [row[:2] + row[3:] for row in rows] if found.unit == "image" else rows


def result_sentence(found: PredictionSets) -> str:
    """The sets of the last part in one sentence."""
    if not found.metrics:
        return "Result: no coverage was measured."
    part = "test" if "test" in found.metrics else "cross_fitted"
    one = found.metrics[part]["all"]
    single, none, full = (round(one.n * share) for share in (one.single, one.empty, one.full))
    right = (
        ""
        if one.right_of_single is None
        else f" ({100 * one.right_of_single:.0f} % of them correct)"
    )
    return (
        f"Result: sets of {one.n} {PARTS[part]} images: {single} with one class{right}, {none} with no "
        f"class (unlike every class), {full} with all classes (no information)."
    )


def guarantee_of(found: PredictionSets) -> str:
    """The guarantee: its coverage, its unit, and its assumptions."""
    over = "images" if found.unit == "image" else f"whole {found.unit}s"
    guarantee = "The coverage is guaranteed"
    if found.options.cross:
        guarantee = (
            f"Cross-conformal sets have a proven coverage of {100 * found.options.proven:.4g} %, and in "
            f"practice about {100 * (1 - found.options.alpha):.4g} %. This holds"
        )
    level = f"Intervals: {found.options.level * 100:.0f} %, over {over}."
    if found.options.n_resamples == 0:
        level = "No intervals (--resamples 0)."
    whose = "a new image" if found.unit == "image" else f"a random image of a new {found.unit}"
    weights = (
        "" if found.unit == "image" else f"Coverage: mean over {found.unit}s, as in the guarantee. "
    )
    return (
        f"{weights}{guarantee} for {whose}, if new {found.unit}s are similar to these (exchangeable). It "
        f"may not hold for another scanner, stain or hospital. {level}"
    )
