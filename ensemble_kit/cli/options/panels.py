"""Help in panels: common options first, all other options with `--help-all`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from ensemble_kit.errors import counted

# Panel -> options by their first name. Other options are shown by --help-all.
TRAINING = {
    "Data": (
        "--data", "--magnification", "--group-pattern", "--group-column", "--classes", "--test-part",
        "--folds",
    ),
    "Networks": ("--members", "--image-size", "--pretrained", "--weights"),
    "Training": ("--recipe", "--epochs", "--batch-size", "--learning-rate"),
    "Where it runs": ("--run", "--device", "--slots", "--engine", "--dry-run"),
}  # fmt: skip
TUNING = {
    "Tuning": ("--member", "--trials", "--time-limit", "--space", "--objective", "--workers"),
    "Data and networks": ("--data", "--members", "--image-size", "--epochs", "--run"),
}
STACKING = {
    "Methods": ("--run", "--method", "--metric", "--positive", "--quorum"),
    "Output": ("--verbose", "--per-class", "--clinical", "--prevalence", "--by", "--json"),
    "Further analyses": ("--nested", "--pareto", "--costs", "--permutation-test"),
}
EXPLAINING = {
    "Images": ("--run", "--worst", "--disputed", "--right", "--method"),
    "Maps": ("--maps", "--class", "--stain", "--geojson"),
    "Tests of the maps": ("--faithfulness", "--masks"),
    "Output": ("--out", "--json"),
}
EXPERT = "Expert"


class PanelCommand(click.Command):
    """A command whose help has panels.

    Parameters
    ----------
    panels : mapping of str to tuple of str
        Title of each panel, and its options.
    """

    def __init__(self, *args: Any, panels: Mapping[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.panels = panels
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show all options.",
            )
        )

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter, *, every: bool = False
    ) -> None:
        """Write each panel; other options only with --help-all."""
        by_flag = {p.opts[0]: p for p in self.get_params(ctx) if isinstance(p, click.Option)}
        help_flags = ("-h", "--help-all")
        for title, flags in self.panels.items():
            _write(ctx, formatter, title, [by_flag.pop(f) for f in flags if f in by_flag])
        helps = [by_flag.pop(f) for f in help_flags if f in by_flag]
        if every:
            _write(ctx, formatter, EXPERT, by_flag.values())
        _write(ctx, formatter, "Help", helps)
        if not every:
            formatter.write_paragraph()
            formatter.write_text(f"{counted(len(by_flag), 'more option')}: --help-all")


class PanelGroup(PanelCommand, click.Group):
    """A command group whose help has panels."""

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter, *, every: bool = False
    ) -> None:
        """Write the subcommands, then the panels."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter, every=every)


def _write(
    ctx: click.Context, formatter: click.HelpFormatter, title: str, options: Iterable[click.Option]
) -> None:
    rows = [row for one in options if (row := one.get_help_record(ctx)) is not None]
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _show_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or not isinstance(ctx.command, PanelCommand):
        return
    formatter = ctx.make_formatter()
    ctx.command.format_usage(ctx, formatter)
    ctx.command.format_help_text(ctx, formatter)
    ctx.command.format_options(ctx, formatter, every=True)
    click.echo(formatter.getvalue().rstrip("\n"))
    ctx.exit()
