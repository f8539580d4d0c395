"""Options that several commands share, e.g. `--run`, `--metric`, and lists of names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ensemble_kit.errors import DataError, first_few

Command = TypeVar("Command", bound=Callable[..., Any])

metric_option = click.option(
    "--metric",
    default="balanced_accuracy",
    show_default=True,
    metavar="NAME",
    help="Metric for the ranking and the verdicts, e.g. accuracy, macro_f1, auroc, kappa, log_loss.",
)


def _resamples(text: str) -> Callable[[Command], Command]:
    return click.option(
        "--resamples", type=click.IntRange(0), default=2000, show_default=True, help=text
    )


resamples_option = _resamples(
    "Bootstrap resamples that correct the value of the best method for the choice. 0: no correction and no intervals."
)
intervals_option = _resamples(
    "0: no intervals. All other values give the same intervals (jackknife)."
)
seed_option = click.option("--seed", default=0, show_default=True, help="Random seed.")
method_option = click.option(
    "--method",
    default="mean",
    show_default=True,
    metavar="NAME",
    help="A stacked method, or a member. Give predict the same --method.",
)
best_method_option = click.option(
    "--method",
    metavar="NAME",
    help="A stacked method, or a member. [default: the best stacked method by cross-validation]",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:0 or mps."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """The command with these options, in this order in its help."""
    for option in reversed(options):
        command = option(command)
    return command


def run_option(command: Command) -> Command:
    """Pass a `run: Run` to the command: from --run, the settings file, or the latest."""

    @click.option(
        "--run",
        "run_path",
        metavar="DIR",
        help="Run folder. [default: from the settings file, else the latest in checkpoints/]",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, run_path: str | None, **kwargs: Any) -> Any:
        from ensemble_kit.run import Run

        return command(*args, run=Run(run_path or default_run()), **kwargs)

    return wrapped  # type: ignore[return-value]


def how_chosen() -> str:
    """How the run was chosen, in brackets; "" if --run was given."""
    context = click.get_current_context()
    if context.get_parameter_source("run_path") is not ParameterSource.DEFAULT:
        return ""
    if _run_of_settings_file() is not None:
        return " (from ensemble-kit.toml; choose with --run)"
    return " (the latest; choose with --run)"


def default_run() -> Path:
    """The run of the settings file, else the latest one under checkpoints/."""
    named = _run_of_settings_file()
    if named is not None:
        return named
    records = sorted(Path("checkpoints").glob("*/run.json"), key=lambda p: p.stat().st_mtime)
    if not records:
        raise DataError(
            "No --run was given, and there is no run under 'checkpoints/'",
            "this command needs a run",
            "Train members first: ensemble-kit train-members --data DATA",
        )
    return records[-1].parent


def _run_of_settings_file() -> Path | None:
    file = Path("ensemble-kit.toml")
    if not os.path.lexists(file):
        return None
    from ensemble_kit.experiment import load_experiment

    return load_experiment(file=file).run_path


class Names(click.ParamType):
    """A comma-separated list of names; a name with a comma is put in double quotes."""

    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        from ensemble_kit.tables import names_of

        names = names_of(value)
        if not names:
            self.fail(f"{value!r} has no name; give at least one", param, ctx)
        return names


class Numbers(Names):
    """A comma-separated list of whole numbers."""

    name = "NUMBERS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        names = super().convert(value, param, ctx)
        wrong = [n for n in names if not str(n).rstrip("xX").isdigit()]
        if wrong:
            self.fail(f"{first_few(map(repr, wrong))} is not a whole number", param, ctx)
        return tuple(int(str(n).rstrip("xX")) for n in names)


class Shares(Names):
    """A comma-separated list of shares: .15 or 15%."""

    name = "SHARES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from ensemble_kit.evaluation.decisions.thresholds import share

        names = super().convert(value, param, ctx)
        try:
            return tuple(share(one) if isinstance(one, str) else float(one) for one in names)
        except ValueError:
            self.fail(f"{value!r} is not a list of shares; give e.g. .15 or 15%", param, ctx)


class Shard(click.ParamType):
    """Part I of N, as I/N."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        number, _, n_shards = value.partition("/")
        if not (number.isdigit() and n_shards.isdigit() and 1 <= int(number) <= int(n_shards)):
            self.fail(f"{value!r} is not I/N with I from 1 to N", param, ctx)
        return int(number), int(n_shards)


def given_flags(ctx: click.Context, *, but: Sequence[str] = ()) -> list[str]:
    """The flags that the user gave to this command, as words of a command line."""
    from ensemble_kit.tables import as_list

    words: list[str] = []
    for option in ctx.command.params:
        name = option.name or ""
        if name in but or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if isinstance(value, bool):
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            text = as_list([*map(str, value)]) if isinstance(value, tuple) else str(value)
            words += [option.opts[0], text]
    return words
