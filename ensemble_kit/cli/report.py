"""`ensemble-kit report`: one HTML page of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options import run_option

if TYPE_CHECKING:
    from ensemble_kit.run import Run


@click.command("report")
@run_option
def report(run: Run) -> None:
    """Write the run's report: results, confusion matrices, ROC and training curves, the split.

    One HTML page that opens offline, beside its figures (SVG) and tables (CSV).
    """
    from ensemble_kit.report.page import write_report

    click.echo(f"Written: {write_report(run).as_posix()}")
