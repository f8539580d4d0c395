"""Options that several commands share, and how they become the experiment or the run.

Knows click; the commands themselves get library values.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ensemble_kit.errors import DataError, first_few

Command = TypeVar("Command", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings file; ./ensemble-kit.toml where it is there. A flag wins over the file.",
)

metric_option = click.option(
    "--metric",
    default="balanced_accuracy",
    show_default=True,
    help="The figure that verdicts are given on; where it is named, greedy selection picks by it too.",
)
resamples_option = click.option(
    "--resamples",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Bootstrap resamples of whole groups; 0 for no intervals.",
)
seed_option = click.option("--seed", default=0, show_default=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def run_option(command: Command) -> Command:
    """Hand the command a `run: Run`: the one named, the settings file's, or the latest one."""

    @click.option(
        "--run",
        "run_path",
        metavar="DIR",
        help="Run folder. [default: the settings file's, else the latest under checkpoints/]",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, run_path: str | None, **kwargs: Any) -> Any:
        from ensemble_kit.run import Run

        return command(*args, run=Run(run_path or default_run()), **kwargs)

    return wrapped  # type: ignore[return-value]


def default_run() -> Path:
    """The settings file's run, else the latest one under checkpoints/."""
    named = _run_of_settings_file()
    if named is not None:
        return named
    records = sorted(Path("checkpoints").glob("*/run.json"), key=lambda p: p.stat().st_mtime)
    if not records:
        raise DataError(
            "Combining needs a run",
            "there is none under 'checkpoints/', and no --run was given",
            "Train members first: ensemble-kit train-members",
        )
    return records[-1].parent


def _run_of_settings_file() -> Path | None:
    file = Path("ensemble-kit.toml")
    if not file.is_file():
        return None
    from ensemble_kit.experiment import load_experiment

    return load_experiment(file=file).run_path


class Names(click.ParamType):
    """A comma-separated list of names."""

    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(part.strip() for part in value.split(",") if part.strip())
        if not names:
            self.fail("give at least one name", param, ctx)
        return names


class Numbers(Names):
    """A comma-separated list of whole numbers."""

    name = "NUMBERS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        names = super().convert(value, param, ctx)
        wrong = [n for n in names if not str(n).rstrip("xX").isdigit()]
        if wrong:
            self.fail(f"{first_few(map(repr, wrong))} is no whole number", param, ctx)
        return tuple(int(str(n).rstrip("xX")) for n in names)


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


# What a reader can be told, by flag: the same words in every command that reads data.
READER_FLAGS = {
    "label_by": "BreakHis: binary or subtype.",
    "group_by": "BreakHis: patient (number) or slide.",
    "stain": "BCI, phantom: ihc, he or both.",
    "join": "BCI, phantom, both stains: stack, side or channels.",
    "color": "BCI, phantom: rgb or grayscale.",
    "groups": "BCI: a CSV file,patient.",
    "path_column": "CSV: the column of image paths.",
    "label_column": "CSV: the column of labels.",
    "group_column": "CSV: the column of patients.",
    "group_pattern": "Class folders: a regular expression that finds the patient in a path.",
}


def experiment_options(command: Command) -> Command:
    """Hand the command an `experiment: Experiment` made of the settings file and these flags."""
    options = [
        config_option,
        click.option(
            "--data",
            "path",
            metavar="PATH",
            help="BreakHis archive, class folders, a CSV (path,label,group), or the name of embedded data.",
        ),
        click.option(
            "--magnification", type=Numbers(), help="BreakHis: 40,100,200,400. [default: all]"
        ),
        *(
            click.option(f"--{name.replace('_', '-')}", name, metavar="X", help=text)
            for name, text in READER_FLAGS.items()
        ),
        click.option(
            "--split-by",
            type=click.Choice(["group", "image"]),
            help="Keep groups (patients) whole, or split single images; the latter is stamped on every figure. [default: group]",
        ),
        click.option(
            "--test-size",
            type=float,
            help="Share of the images held out for the test. [default: 0.2]",
        ),
        click.option("--test-groups", type=Names(), help="Exactly these groups are the test part."),
        click.option(
            "--splits",
            metavar="CSV",
            help="Your own split: sample_id,split[,fold]. Honoured, never made anew.",
        ),
        click.option(
            "--infer-groups",
            is_flag=True,
            default=None,
            help="Group near-duplicate images where no groups are known; stamped as inferred.",
        ),
        click.option(
            "--stain-norm",
            type=click.Choice(["none", "macenko", "reinhard"]),
            help="Normalise H&E stains before training. [default: none]",
        ),
        click.option(
            "--on-bad-image",
            type=click.Choice(["fail", "skip"]),
            help="Unreadable images: stop, or leave up to --max-bad of them out and say which. [default: fail]",
        ),
        click.option("--max-bad", type=int, help="[default: 10]"),
        click.option("--recipe", "preset", help="A named recipe: fast, standard, best, paper-..."),
        click.option("--folds", type=int, help="Number of folds. [default: 5; embedded data: 3]"),
        click.option(
            "--members",
            type=Names(),
            help="Networks or groups: resnet18, efficientnet_b0..b4, efficientnetv2_b0..b3, efficientnetv2_s, densenet121, any timm name; efficientnetv1, efficientnetv2, small, all. What differs stands behind it: resnet18:seed=1, resnet18:bag, resnet18:size=128:color=hed, resnet18:stain_norm=macenko, resnet18:snapshots=3.",
        ),
        click.option(
            "--image-size",
            type=int,
            help="Side of the input in pixels. [default: each network's own]",
        ),
        click.option("--epochs", type=int, help="[default: 15; embedded data: 12]"),
        click.option("--batch-size", type=int, help="[default: 32; embedded data: 32]"),
        click.option(
            "--learning-rate", type=float, help="Peak rate. [default: 5e-4; embedded data: 5e-3]"
        ),
        click.option("--augmentation", metavar="PRESET", help="[default: light]"),
        click.option(
            "--pretrained/--no-pretrained",
            default=None,
            help="Start from timm's published weights, or from random ones.",
        ),
        click.option(
            "--weights",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Start from this checkpoint.",
        ),
        click.option(
            "--run",
            "run_path",
            metavar="DIR",
            help="Run folder. [default: checkpoints/NAME-OF-DATA]",
        ),
        click.option("--seed", type=int, help="[default: 0]"),
        click.option("--device", help="auto, cpu, cuda, cuda:1, mps. [default: auto]"),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
            help="Number format while training; what is kept is predicted in fp32. [default: auto]",
        ),
    ]

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in _FLAGS}
        from ensemble_kit.experiment import load_experiment

        experiment = load_experiment(_nested(flags), file=kwargs.pop("config"))
        return command(*args, experiment=experiment, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def given_flags(ctx: click.Context, *, but: Sequence[str] = ()) -> str:
    """The flags that the user gave to this command, as they would be typed again; each after a space."""
    words = []
    for option in ctx.command.params:
        name = option.name or ""
        if name in but or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if isinstance(value, bool):
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [option.opts[0], text]
    return "".join(f" {shlex.quote(word)}" for word in words)


# Flag -> where it stands in the settings.
_FLAGS = {
    "path": ("data", "path"),
    "magnification": ("data", "magnification"),
    **{name: ("data", name) for name in READER_FLAGS},
    "split_by": ("data", "split_by"),
    "test_size": ("data", "test_size"),
    "test_groups": ("data", "test_groups"),
    "splits": ("data", "splits"),
    "infer_groups": ("data", "infer_groups"),
    "stain_norm": ("data", "stain_norm"),
    "on_bad_image": ("data", "on_bad_image"),
    "max_bad": ("data", "max_bad"),
    "preset": ("recipe", "preset"),
    "folds": ("data", "folds"),
    "members": ("members",),
    "image_size": ("image_size",),
    "epochs": ("recipe", "epochs"),
    "batch_size": ("recipe", "batch_size"),
    "learning_rate": ("recipe", "learning_rate"),
    "augmentation": ("recipe", "augmentation"),
    "pretrained": ("pretrained",),
    "weights": ("weights",),
    "run_path": ("run",),
    "seed": ("seed",),
    "device": ("device",),
    "precision": ("precision",),
}


def _nested(flags: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in flags.items():
        *tables, key = _FLAGS[name]
        place = out
        for table in tables:
            place = place.setdefault(table, {})
        place[key] = value
    return out
