"""`ensemble-kit doctor`: check Python, packages, device, memory, disk and file locks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from ensemble_kit.cli.options.shared import json_option
from ensemble_kit.cli.output.text import columns, print_json, printable

MISSING = 4


@click.command("doctor")
@click.option(
    "--run",
    "folder",
    default="checkpoints",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to check for free space and file locks.",
)
@json_option
def doctor_command(folder: Path, as_json: bool) -> None:
    """Check Python, packages, device, memory, disk and file locks. Exit code 4 if something is missing."""
    from ensemble_kit.doctor import diagnose

    checks = diagnose(folder)
    problems = [one for one in checks if one.problem]
    if as_json:
        print_json([dataclasses.asdict(one) for one in checks])
    else:
        click.echo(printable(columns([(one.name, one.found) for one in checks], right=())))
        for one in problems:
            click.echo(printable(f"Missing: {one.name}: {one.found}. {one.problem}."))
        if not problems:
            click.echo("Nothing is missing.")
    raise SystemExit(MISSING if problems else 0)
