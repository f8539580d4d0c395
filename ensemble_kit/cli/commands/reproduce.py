"""`ensemble-kit reproduce`: rerun an experiment of `experiments/`, and print its table.

Parses and prints; the work is `reproduce.reproduce`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.output.text import columns, duration, printable
from ensemble_kit.errors import DataError, EnsembleKitError, first_few

if TYPE_CHECKING:
    from ensemble_kit.reproduce.reproduce import Reproduced
    from ensemble_kit.reproduce.run_steps import StepEnded


@click.command("reproduce")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--data", metavar="DIR", help="The published images; see the README of the folder.")
@click.option(
    "--quick",
    is_flag=True,
    help="Reduced in size, epochs and variants: minutes on two cores. Without --data on synthetic images.",
)
@click.option("--only", metavar="STEP", help="Run a single step of each variant.")
def reproduce(folder: Path, data: str | None, quick: bool, only: str | None) -> None:
    """Rerun the experiment in FOLDER: all variants, all steps, one table.

    What is done is skipped. Results are written to FOLDER/RESULTS.md, those of a quick run to
    FOLDER/quick/RESULTS.md.
    """
    from ensemble_kit.reproduce.reproduce import plan_of
    from ensemble_kit.reproduce.reproduce import reproduce as run_plan

    began = time.perf_counter()
    plan = plan_of(folder, data=data, quick=quick)
    steps = plan.file.steps
    click.echo(
        printable(
            f"{plan.file.title}: {len(plan.variants)} variants x {len(steps)} steps "
            f"({', '.join(steps)}), into {plan.runs.as_posix()}"
        )
    )
    done = run_plan(plan, call_command, only=only, tell=_say)
    print_results(done)
    click.echo(f"Took {duration(time.perf_counter() - began)}.")


def call_command(words: Sequence[str], log: Path) -> None:
    """Run a command of this package in this process; what it prints goes to the file `log`.

    Raises
    ------
    DataError
        The command ended with another exit code than 0.
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
            "Correct what it names, then run the same command",
        )


def _say(ended: StepEnded) -> None:
    took = "done before" if ended.seconds is None else duration(ended.seconds)
    click.echo(printable(f"[{ended.number}/{ended.total}] {ended.variant}: {ended.step} ({took})"))


def print_results(done: Reproduced) -> None:
    """The table of the main methods, constant classifiers, the image-split bias, and the page."""
    from ensemble_kit.reproduce.results import METRIC
    from ensemble_kit.reproduce.results_page import constant_rows, verdict_of

    if done.results is None or done.page is None:
        return
    click.echo()
    rows: list[tuple[str, ...]] = [
        ("variant", "method", "test", "cross-fitted", "minus the first row", "")
    ]
    for row in done.results.rows:
        if row.is_main:
            test, fitted = row.parts.get("test"), row.parts["cross_fitted"]
            cells = (
                "" if test is None else str(test.metrics[METRIC]),
                str(fitted.metrics[METRIC]),
            )
            rows.append((row.variant, row.method, *cells, *verdict_of(fitted)))
    click.echo(columns(rows, right=[2, 3, 4]))
    click.echo("Balanced accuracy [95 % interval]; differences are paired and cross-fitted.")
    for one in done.results.bias:
        if one.method == next(r.method for r in done.results.rows if r.variant == one.by_image):
            click.echo(
                printable(
                    f"Split by image adds {one.difference!s} to {one.method} ({one.by_image})."
                )
            )
    named = constant_rows(done.results)
    if named:
        click.echo(
            printable(
                f"Caveat: {len(named)} of {len(done.results.rows)} rows are constant classifiers, which "
                f"predict one class for all images of a part: {first_few(named, 4)}."
            )
        )
    if done.plan.is_quick:
        click.echo("Quick run: reduced. These values do not answer the published figures.")
    click.echo(printable(f"Written: {done.page.as_posix()}"))
