"""`ensemble-kit report`: one HTML page of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import run_option
from ensemble_kit.cli.output.text import print_text, printable
from ensemble_kit.errors import command, counted, first_few

if TYPE_CHECKING:
    from ensemble_kit.run import Run


def _out_of_date(run: Run) -> list[str]:
    """A warning if stacked results are older than the networks."""
    from ensemble_kit.evaluation.runs.stored_ensembles import current_metrics, stored_methods

    has_test = len(run.manifest().part("test")) > 0
    oof = run.predictions("oof", partial=True)
    current, notes = current_metrics(
        run, oof, run.predictions("test", partial=True) if has_test else None
    )
    if not notes:
        return []
    old = counted(len(stored_methods(run)) - len(current), "method")
    again = command("stack", "--method", "all", "--run", run.path)
    return [
        f"Warning: the stacked results of {old} are older than the networks. The report does not "
        f"show them. Run {again}, then this command again."
    ]


@click.command("report")
@run_option
@click.option(
    "--checklist",
    is_flag=True,
    help="Add the checklists TRIPOD+AI and CLAIM 2024: items filled in from the run, and items for the author.",
)
def report(run: Run, checklist: bool) -> None:
    """Write the run's report: verdict, results, errors, calibration, members, data, cost, provenance.

    The report is one HTML page that opens offline, with its figures (SVG, PNG) and tables (CSV,
    Markdown, LaTeX) in the same folder.
    """
    from ensemble_kit.plots.lettering import fonts_for
    from ensemble_kit.report.page import write_report

    click.echo(printable(f"Written: {write_report(run, checklist=checklist).as_posix()}"))
    for line in _out_of_date(run):
        print_text(line)
    missing = fonts_for("".join((*run.manifest().class_names, *run.members())))[1]
    if missing:
        click.echo(
            printable(
                f"Note: no installed font has {first_few(missing)}. The plots contain text instead "
                "of outlines, in the fonts of the viewer."
            )
        )
