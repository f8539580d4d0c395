"""The flags that make an experiment, in every command that trains: data, folds, members, recipe.

Knows click and where each flag stands in the settings; what the settings mean is theirs.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from ensemble_kit.cli.options.shared import Command, Names, Numbers

# What a reader can be told, by flag: the same words in every command that reads data.
READER_FLAGS = {
    "label_by": "BreakHis: binary, subtype, or folder (your own class folders).",
    "group_by": "BreakHis: patient (number) or slide.",
    "stain": "BCI, phantom: ihc, he or both.",
    "join": "BCI, phantom, both stains: stack, side or channels.",
    "color": "BCI, phantom: rgb or grayscale.",
    "groups": "BCI: a CSV file,patient.",
    "image_root": "CSV: the folder of the images. [default: the folder of the CSV]",
    "image_suffix": "CSV: what the names of the images lack, e.g. .tif.",
    "path_column": "CSV: the column of image paths or ids.",
    "label_column": "CSV: the column of labels.",
    "group_column": "CSV: the column of patients.",
    "label_pattern": "Class folders: a regular expression that finds the class in a path.",
    "group_pattern": "Class folders: a regular expression that finds the patient in a path.",
}

# Flag -> where it stands in the settings.
_FLAGS = {
    "path": ("data", "path"),
    "magnification": ("data", "magnification"),
    **{name: ("data", name) for name in READER_FLAGS},
    "classes": ("data", "classes"),
    "ordinal": ("data", "ordinal"),
    "split_by": ("data", "split_by"),
    "test_size": ("data", "test_size"),
    "test_groups": ("data", "test_groups"),
    "test_part": ("data", "test_part"),
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


def experiment_options(command: Command) -> Command:
    """Hand the command an `experiment: Experiment` made of the settings file and these flags."""
    options = [
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Settings file; ./ensemble-kit.toml where it is there. A flag wins over the file.",
        ),
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
            "--classes",
            type=Names(),
            metavar="A,B,...",
            help="The classes in their order, the mildest first. Put a name with a comma in double quotes. [default: by their names and numbers]",
        ),
        click.option(
            "--ordinal/--no-ordinal",
            default=None,
            help="The order of the classes means something, as in grades: metrics for grades are added. [default: for HER2 scores]",
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
        click.option(
            "--test-part",
            type=click.Choice(["own", "valid", "drawn"]),
            help="own: test/ of the data, else a drawn share. valid: val/ of the data is the test part. drawn: a drawn share, whatever split the data bring. [default: own]",
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
        click.option(
            "--augmentation",
            metavar="PRESET",
            help="One of the package, or of the [augmentation.NAME] tables. [default: light]",
        ),
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


def _nested(flags: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in flags.items():
        *tables, key = _FLAGS[name]
        place = out
        for table in tables:
            place = place.setdefault(table, {})
        place[key] = value
    return out
