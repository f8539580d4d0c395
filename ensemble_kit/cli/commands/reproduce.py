"""`ensemble-kit reproduce`: rerun an experiment of `experiments/`, and print its table."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.output.text import columns, duration, printable
from ensemble_kit.errors import DataError, EnsembleKitError, counted, first_few

if TYPE_CHECKING:
    from ensemble_kit.reproduce.reproduce import Reproduced
    from ensemble_kit.reproduce.results import Results
    from ensemble_kit.reproduce.run_steps import StepEnded


@click.command("reproduce")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--data", metavar="DIR", help="The published images; see the README of the folder.")
@click.option(
    "--quick",
    is_flag=True,
    help="Smaller images, fewer epochs and variants: takes minutes on two cores. Without --data, uses synthetic images.",
)
@click.option("--only", metavar="STEP", help="Run a single step of each variant.")
def reproduce(folder: Path, data: str | None, quick: bool, only: str | None) -> None:
    """Rerun the experiment in FOLDER: all variants, all steps, one table.

    Finished steps are skipped. Results are written to FOLDER/RESULTS.md, with --quick to
    FOLDER/quick/RESULTS.md.
    """
    from ensemble_kit.reproduce.reproduce import plan_of
    from ensemble_kit.reproduce.reproduce import reproduce as run_plan

    began = time.perf_counter()
    plan = plan_of(folder, data=data, quick=quick)
    steps = only or ", ".join(plan.file.steps)
    about = f"{plan.file.title}: {counted(len(plan.variants), 'variant')}. Steps: {steps}."
    click.echo(printable(f"{about} Runs: {plan.runs.as_posix()}"))
    try:
        done = run_plan(plan, call_command, only=only, listener=print_step)
    except BaseException:
        click.echo()  # ends the line of the variant
        raise
    print_results(done)
    click.echo(f"Took {duration(time.perf_counter() - began)}.")


def call_command(words: Sequence[str], log: Path) -> None:
    """Run a command of this package in this process; its output is written to the file `log`.

    Raises
    ------
    DataError
        The exit code is not 0.
    """
    from ensemble_kit.cli import app

    log.parent.mkdir(parents=True, exist_ok=True)
    code: object = 0
    with (
        log.open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            app.main(args=list(words), prog_name="ensemble-kit", standalone_mode=False)
        except SystemExit as ended:
            code = ended.code
        except EnsembleKitError as error:
            file.write(f"error: {error}\n")
            raise
    if code:
        raise DataError(
            f"The command '{words[0]}' ended with exit code {code}",
            f"its output is in '{log}'",
            "Correct the problem in it, then run the same command",
        )


def print_step(ended: StepEnded) -> None:
    """Print one line per variant; its steps are appended when they end."""
    if ended.is_first:
        click.echo(
            printable(f"[{ended.variant_number}/{ended.n_variants}] {ended.variant}:"), nl=False
        )
    took = "done before" if ended.seconds is None else duration(ended.seconds)
    comma = "" if ended.is_last else ","
    click.echo(printable(f" {ended.step} {took}{comma}"), nl=ended.is_last)


def print_results(done: Reproduced) -> None:
    """Print the main methods, constant predictions, the image-split bias, and the path of the page."""
    if done.results is None or done.page is None:
        return
    click.echo()
    click.echo(columns(_rows(done.results), right=[1, 2, 3]))
    for line in _remarks(done.results):
        click.echo(printable(line))
    if done.results.bias:
        click.echo()
        click.echo(columns(_bias_rows(done.results), right=[1, 2, 3]))
        click.echo("Balanced accuracy, cross-fitted, on the images that both splits predict.")
    if done.plan.is_quick:
        click.echo("Quick run: reduced. Do not compare these values with the published ones.")
    click.echo(printable(f"Written: {done.page.as_posix()}"))


def _rows(results: Results) -> list[tuple[str, ...]]:
    """The table of the terminal: one row per variant, by its main method."""
    from ensemble_kit.reproduce.results import METRIC
    from ensemble_kit.reproduce.results_table import label_of, verdict_of

    rows: list[tuple[str, ...]] = [("", "test", "cross-fitted", "difference", "verdict")]
    for row in results.rows:
        if row.is_main:
            test, fitted = row.parts.get("test"), row.parts["cross_fitted"]
            of_test = "" if test is None else str(test.metrics[METRIC])
            difference, word = verdict_of(fitted)
            word += "; constant classifier" if row.is_constant else ""
            name = label_of(results, row)
            rows.append((name, of_test, str(fitted.metrics[METRIC]), difference, word))
    return rows


def _bias_rows(results: Results) -> list[tuple[str, ...]]:
    """Split by image against split by patient, one row per method."""
    from ensemble_kit.reproduce.results_table import signed

    head = ("method", "split by image", "split by patient", "difference")
    rows = [
        (one.method, *map(str, one.values), signed(str(one.difference))) for one in results.bias
    ]
    return [head, *rows]


def _remarks(results: Results) -> list[str]:
    """The lines below the table in the terminal."""
    from ensemble_kit.reproduce.results_table import constant_rows

    sentences = [
        "Balanced accuracy [95 % interval]. Difference: cross-fitted, from the first row, on the same images."
    ]
    if named := constant_rows(results):
        sentences.append(
            f"Constant classifier (one class for all images of a part): {first_few(named, 4)}."
        )
    return sentences
