"""Options of `tune`: what is tuned, for how long, and where trials run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from ensemble_kit.cli.options.shared import Command, Names, with_options

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType):
    """A time such as 90s, 30m, 2h or 1h30m, in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        parts = re.findall(r"([\d.]+)\s*(min|[smhd])", value)
        if not parts or "".join(n + u for n, u in parts) != re.sub(r"\s", "", value):
            self.fail(f"{value!r} is not a time; give e.g. 90s, 30m, 2h or 1h30m", param, ctx)
        try:
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
        except ValueError:
            self.fail(f"{value!r} is not a time; give e.g. 90s, 30m, 2h or 1h30m", param, ctx)


class ProxyType(click.ParamType):
    """Settings of a proxy, such as epochs=3,images=0.5."""

    name = "SETTINGS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kinds = {"epochs": int, "image_size": int, "images": float}
        if not isinstance(value, str):
            return value
        given: dict[str, Any] = {}
        for part in value.split(","):
            name, _, number = part.partition("=")
            try:
                given[name.strip()] = kinds[name.strip()](number)
            except (KeyError, ValueError):
                known = ", ".join(f"{key}=NUMBER" for key in kinds)
                self.fail(f"{part!r} is not a setting of a proxy; known: {known}", param, ctx)
        return given


storage_option = click.option(
    "--storage",
    metavar="URL",
    help="PostgreSQL server for several hosts, e.g. postgresql://USER@HOST/DATABASE. [default: a file in the run folder]",
)


_OPTIONS = [
    click.option("--member", "only", type=Names(), help="Members to tune. [default: all]"),
    click.option(
        "--trials",
        type=click.IntRange(min=1),
        default=20,
        show_default=True,
        help="Total number of trials per member, including earlier calls.",
    ),
    click.option(
        "--time-limit",
        type=Duration(),
        help="Total time, e.g. 30m or 2h. Members that still improve get more of it. [default: none]",
    ),
    click.option(
        "--space",
        "space_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="TOML file with the settings to tune, as in [tune.space] of the settings file. [default: learning rate and batch size]",
    ),
    click.option(
        "--objective",
        type=click.Choice(["solo", "team"]),
        default="solo",
        show_default=True,
        help="solo: loss of the member. team: loss of the mean of this member and the stored predictions of the others.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes that run trials at the same time, distributed over the GPUs.",
    ),
    click.option(
        "--keep-trials",
        is_flag=True,
        help="Keep the networks of finished trials. Greedy selection picks an ensemble from all of them.",
    ),
    click.option(
        "--combiner",
        type=click.Choice(["mlp", "logistic", "boosting"]),
        help="Tune this combiner instead of the members, on their stored predictions. Takes seconds.",
    ),
    click.option(
        "--nested",
        is_flag=True,
        help="Also tune without each fold, and score that fold: a gain without selection bias. K folds take K times longer.",
    ),
    click.option(
        "--proxy",
        type=ProxyType(),
        help="Run cheaper trials, e.g. epochs=3,image_size=64,images=0.5, then train a few in full. Their rank correlation is stored.",
    ),
    storage_option,
]


def tuning_options(command: Command) -> Command:
    """The options of `tune` itself, the most used first."""
    return with_options(command, _OPTIONS)
