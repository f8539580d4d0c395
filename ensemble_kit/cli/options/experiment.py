"""The options that define an experiment: data, folds, members, recipe."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from ensemble_kit.cli.options.shared import Command, Names, Numbers, with_options

# Options of the readers, the same in every command that reads data.
READER_FLAGS = {
    "label_by": "BreakHis: binary, subtype, or folder (your own class folders).",
    "group_by": "BreakHis: patient (the number in the file name) or slide.",
    "stain": "BCI, phantom: the stain to use: ihc, he or both.",
    "join": "BCI, phantom: how both stains are joined: stack, side or channels.",
    "color": "BCI, phantom: rgb or grayscale.",
    "groups": "BCI: a CSV table with the columns file and patient.",
    "image_root": "CSV: the folder of the images. [default: the folder of the CSV]",
    "image_suffix": "CSV: suffix to append to image names, e.g. .tif.",
    "path_column": "CSV: the column of image paths or ids.",
    "label_column": "CSV: the column of labels.",
    "group_column": "CSV: the column of patients.",
    "label_pattern": "Class folders: regular expression for the path. Its first group is the class.",
    "group_pattern": "Class folders: regular expression for the path. Its first group is the patient.",
}


def metavar_of(name: str) -> str:
    """The metavar of a reader option in the help."""
    if name.endswith("_pattern"):
        return "REGEX"
    own = {"groups": "CSV", "image_root": "DIR", "image_suffix": "SUFFIX", "magnification": "LIST"}
    return own.get(name, "NAME")


_OF_DATA = (
    "path", "magnification", *READER_FLAGS, "classes", "ordinal", "split_by", "test_size",
    "test_groups", "test_part", "splits", "infer_groups", "stain_norm", "on_bad_image", "max_bad",
    "folds",
)  # fmt: skip
_OF_RECIPE = ("preset", "epochs", "batch_size", "learning_rate", "augmentation")
_TOP = (
    "members", "image_size", "pretrained", "weights", "seed", "device", "precision", "use_tuned",
)  # fmt: skip
# Option -> its key in the settings.
_KEYS: dict[str, tuple[str, ...]] = {
    **{name: ("data", name) for name in _OF_DATA},
    **{name: ("recipe", name) for name in _OF_RECIPE},
    **{name: (name,) for name in _TOP},
    "run_path": ("run",),
}

_DATA = [
    click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Settings file. Flags override it. [default: ./ensemble-kit.toml if it exists]",
    ),
    click.option(
        "--data",
        "path",
        metavar="PATH",
        help="A folder with one folder per class, a CSV table (path,label,group), a BreakHis or BCI archive, a MedMNIST .npz, or embedded data: phantom, digits.",
    ),
    click.option(
        "--magnification",
        type=Numbers(),
        help="BreakHis: magnifications to use, e.g. 40,100. [default: all]",
    ),
    *(
        click.option(f"--{name.replace('_', '-')}", name, metavar=metavar_of(name), help=text)
        for name, text in READER_FLAGS.items()
    ),
    click.option(
        "--classes",
        type=Names(),
        metavar="A,B,...",
        help="Class names in order, the mildest first. Put a name with a comma in double quotes. [default: sorted by name or number]",
    ),
    click.option(
        "--ordinal/--no-ordinal",
        default=None,
        help="The classes are ordinal, e.g. tumour grades. Adds ordinal metrics. [default: only for HER2 scores]",
    ),
]
_SPLIT = [
    click.option(
        "--split-by",
        type=click.Choice(["group", "image"]),
        help="Split by patient (group) or by image. A split by image is shown as a caveat beside every result. [default: group]",
    ),
    click.option(
        "--test-size", type=float, help="Share of the images in the test part. [default: 0.2]"
    ),
    click.option(
        "--test-part",
        type=click.Choice(["own", "valid", "drawn"]),
        help="own: the test part of the data (folder or column), or a random part if there is none. valid: the validation part of the data. drawn: a random part, even if the data have one. [default: own]",
    ),
    click.option(
        "--test-groups", type=Names(), help="Names of the patients (groups) in the test part."
    ),
    click.option(
        "--splits", metavar="CSV", help="Your own split: a CSV table sample_id,split[,fold]."
    ),
    click.option(
        "--infer-groups",
        is_flag=True,
        default=None,
        help="If no patients are known, put near-duplicate images into one group. Shown as a caveat.",
    ),
]
_IMAGES = [
    click.option(
        "--stain-norm",
        type=click.Choice(["none", "macenko", "reinhard"]),
        help="Normalise H&E stains before training. [default: none]",
    ),
    click.option(
        "--on-bad-image",
        type=click.Choice(["fail", "skip"]),
        help="Unreadable images. fail: stop. skip: skip and list at most --max-bad of them. [default: fail]",
    ),
    click.option("--max-bad", type=int, help="Most images that may be skipped. [default: 10]"),
]
_MEMBERS_AND_RECIPE = [
    click.option("--recipe", "preset", help="Training recipe: fast, standard, best, paper-..."),
    click.option("--folds", type=int, help="Number of folds. [default: 5; for embedded data 3]"),
    click.option(
        "--members",
        type=Names(),
        help="Comma-separated networks (see ensemble-kit members list) or groups: efficientnetv1, efficientnetv2, small, all. Settings follow the name: resnet18:seed=1:size=128. [default: all; for embedded data small]",
    ),
    click.option(
        "--image-size",
        type=int,
        help="Height and width of the input in pixels. [default: native size of each network]",
    ),
    click.option(
        "--epochs", type=int, help="Epochs of training. [default: 15; for embedded data 12]"
    ),
    click.option("--batch-size", type=int, help="Images per batch. [default: 32]"),
    click.option(
        "--learning-rate",
        type=float,
        help="Peak learning rate. [default: 5e-4; for embedded data 5e-3]",
    ),
    click.option(
        "--augmentation",
        metavar="PRESET",
        help="Augmentation preset: one of the package, or an [augmentation.NAME] table of the settings file. [default: light]",
    ),
    click.option(
        "--pretrained/--no-pretrained",
        default=None,
        help="Start from timm's pretrained weights, or from random weights. [default: pretrained; for embedded data random]",
    ),
    click.option(
        "--weights",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Start from this checkpoint file.",
    ),
]
_RUN = [
    click.option(
        "--run", "run_path", metavar="DIR", help="Run folder. [default: checkpoints/NAME-OF-DATA]"
    ),
    click.option("--seed", type=int, help="Random seed. [default: 0]"),
    click.option(
        "--tuned/--no-tuned",
        "use_tuned",
        default=None,
        help="Use the values that `tune` found in this run. [default: --tuned]",
    ),
    click.option("--device", help="Device: auto, cpu, cuda, cuda:1, mps. [default: auto]"),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        help="Number format during training. Stored predictions are always computed in fp32. [default: auto]",
    ),
]


def experiment_options(command: Command) -> Command:
    """Pass an `experiment: Experiment` to the command, made from the settings file and these options."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in _KEYS}
        from ensemble_kit.experiment import load_experiment

        experiment = load_experiment(_nested(flags), file=kwargs.pop("config"))
        return command(*args, experiment=experiment, **kwargs)

    options = [*_DATA, *_SPLIT, *_IMAGES, *_MEMBERS_AND_RECIPE, *_RUN]
    return with_options(wrapped, options)  # type: ignore[return-value]


def _nested(flags: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in flags.items():
        *tables, key = _KEYS[name]
        place = out
        for table in tables:
            place = place.setdefault(table, {})
        place[key] = value
    return out
