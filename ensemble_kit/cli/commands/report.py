"""`ensemble-kit report`: one HTML page of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import run_option
from ensemble_kit.cli.output.text import printable
from ensemble_kit.errors import first_few

if TYPE_CHECKING:
    from ensemble_kit.run import Run


@click.command("report")
@run_option
@click.option(
    "--checklist",
    is_flag=True,
    help="Add the items of TRIPOD+AI and CLAIM 2024 that the run can answer, and those for the author.",
)
def report(run: Run, checklist: bool) -> None:
    """Write the run's report: verdict, results, errors, calibration, members, data, cost, provenance.

    One HTML page that opens offline, beside its figures (SVG, PNG) and tables (CSV, Markdown, LaTeX).
    """
    from ensemble_kit.plots.lettering import fonts_for
    from ensemble_kit.report.page import write_report

    click.echo(printable(f"Written: {write_report(run, checklist=checklist).as_posix()}"))
    missing = fonts_for("".join((*run.manifest().class_names, *run.members())))[1]
    if missing:
        click.echo(
            printable(
                f"Note: no installed font has {first_few(missing)}. The plots hold text instead of "
                "outlines. The fonts of the viewer are used."
            )
        )
