"""`ensemble-kit data`: check a data set, show its images, or make a synthetic one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.options.experiment import READER_FLAGS, metavar_of
from ensemble_kit.cli.options.shared import Names, json_option
from ensemble_kit.cli.output.text import columns, print_json, print_text, printable
from ensemble_kit.errors import UsageError, command, counted

if TYPE_CHECKING:
    import pandas as pd

    from ensemble_kit.audit.findings import Audit
    from ensemble_kit.manifest.table import Manifest

_MARK = {"error": "ERROR", "warning": "warning", "note": "note"}


@click.group("data")
def data() -> None:
    """Check a data set, show its images, or make a synthetic one."""


def reader_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Pass `options` to the command: the options of the data reader."""
    flags = {
        "magnification": "BreakHis: one or more of 40,100,200,400. [default: all]",
        **READER_FLAGS,
    }

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in flags}
        return command(*args, options={k: v for k, v in given.items() if v is not None}, **kwargs)

    for name, text in reversed(flags.items()):
        flag = f"--{name.replace('_', '-')}"
        wrapped = click.option(flag, name, metavar=metavar_of(name), help=text)(wrapped)
    return wrapped


class _PathCommand(click.Command):
    """A command that takes PATH without a flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Explain --data, which other commands have."""
        if "--data" in args:
            raise UsageError(
                "--data was given",
                f"data {ctx.info_name} takes the path without a flag",
                f"Use {command('data', ctx.info_name or '', *(a for a in args if a != '--data'))}",
            )
        return super().parse_args(ctx, args)


@data.command("check", cls=_PathCommand)
@click.argument("path", type=click.Path(path_type=Path))
@reader_options
@click.option(
    "--leak/--no-leak", default=True, help="Measure how well colour alone predicts the label."
)
@json_option
def check(path: Path, options: dict[str, Any], leak: bool, as_json: bool) -> None:
    """Check PATH (a data set or a run) for errors that would make results wrong.

    Finds duplicates, leakage between train and test, unreadable images and class problems. Every
    image is decoded. The exit code is 3 if there are errors.
    """
    from ensemble_kit.audit.check import check_data
    from ensemble_kit.audit.open import open_data

    manifest, findings = open_data(path, **options)
    audit = check_data(manifest, leak=leak, before=findings)
    if as_json:
        print_json(audit.to_json())
    else:
        print_audit(audit)
        if not audit.n_errors and not (path / "run.json").is_file():
            again = command("train-members", "--data", path, *_flags(options), "--dry-run")
            click.echo(printable(f"Next: {again} (prints the plan)"))
    raise SystemExit(audit.exit_code)


def _flags(options: dict[str, Any]) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items())
    return [word for pair in pairs for word in pair]


@data.command("phantom")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", default=40, show_default=True, help="Number of patients.")
@click.option(
    "--images-per-patient", default=6, show_default=True, help="Pairs of images per patient."
)
@click.option("--image-size", default=128, show_default=True, help="Height and width in pixels.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
def phantom(out: Path, patients: int, images_per_patient: int, image_size: int, seed: int) -> None:
    """Write synthetic HER2 tissue to OUT: paired H&E and IHC in the layout of BCI, with masks."""
    from ensemble_kit.manifest.layouts.bci import read_bci
    from ensemble_kit.manifest.phantom.write import write_phantom

    write_phantom(
        out,
        n_patients=patients,
        images_per_patient=images_per_patient,
        image_size=image_size,
        seed=seed,
    )
    manifest = read_bci(out)
    click.echo(
        f"Written: {printable(out.as_posix())}. All images are synthetic: no patients, no diagnoses."
    )
    click.echo(counts(manifest))
    click.echo(f"Next: {printable(command('data', 'check', out.as_posix()))}")


@data.command("show", cls=_PathCommand)
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@reader_options
@click.option(
    "--augment",
    metavar="PRESET",
    help="Show the effect of this augmentation: a preset, or one of the settings file.",
)
@click.option(
    "--members",
    type=Names(),
    help="Show the input of these members, e.g. resnet18,resnet18:color=hed.",
)
@click.option("--rows", default=5, show_default=True, help="Number of images with --augment.")
@click.option("--columns", "n_columns", default=8, show_default=True, help="Pictures per row.")
@click.option("--tile", default=128, show_default=True, help="Size of one picture in pixels.")
@click.option("--seed", default=0, show_default=True, help="Random seed of the choice of images.")
def show(
    path: Path,
    out: Path,
    options: dict[str, Any],
    augment: str | None,
    members: tuple[str, ...] | None,
    rows: int,
    n_columns: int,
    tile: int,
    seed: int,
) -> None:
    """Write a contact sheet of the images in PATH to the file OUT (PNG): one row per class.

    With --augment: one row per image, with random augmentations. With --members: one row per member,
    with its input.
    """
    from ensemble_kit.atomic_write import atomic_write
    from ensemble_kit.experiment import load_experiment
    from ensemble_kit.images.augmentation.presets import preset
    from ensemble_kit.images.tiles.contact_sheet import augmentation_sheet, class_sheet, input_sheet
    from ensemble_kit.manifest.layouts.detect import read_manifest

    manifest = read_manifest(path, **options)
    if members is not None:
        from ensemble_kit.members.spec_string import make_members

        inputs = {
            m.name: (dataclasses.replace(m.tile_spec, image_size=m.image_size or tile), m.color)
            for m in make_members(members)
        }
        sheet = input_sheet(manifest, inputs, n_columns=n_columns, tile=tile, seed=seed)
    elif augment is None:
        sheet = class_sheet(manifest, n_columns=n_columns, tile=tile, seed=seed)
    else:
        augmentation = preset(augment, load_experiment().augmentation)
        sheet = augmentation_sheet(
            manifest, augmentation, n_rows=rows, n_columns=n_columns, tile=tile, seed=seed
        )
    from PIL import Image

    atomic_write(out, lambda file: Image.fromarray(sheet).save(file, "PNG"))
    click.echo(f"{printable(out.as_posix())} ({sheet.shape[1]} x {sheet.shape[0]} pixels)")


def counts(manifest: Manifest) -> str:
    """Images and groups per split and class, as text columns."""
    from ensemble_kit.audit.check import count_table

    return _aligned(count_table(manifest))


def _aligned(table: pd.DataFrame) -> str:
    rows = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    numbers = table.columns.isin(table.select_dtypes("number").columns)
    return columns(rows, right=numbers.nonzero()[0].tolist())


def print_audit(audit: Audit) -> None:
    """Counts, findings and colour leakage as text."""
    click.echo(
        printable(
            f"{audit.name}: {counted(audit.n_images, 'image')}"
            + f", {counted(audit.n_groups, audit.group_kind)}" * (audit.group_kind != "image")
        )
    )
    table = audit.counts.rename(columns={"groups": f"{audit.group_kind}s"})
    if audit.group_kind == "image":
        table = table.iloc[:, :-1]
    if is_whole := set(table["split"]) == {"train"}:
        table = table.drop(columns="split")
    click.echo(_aligned(table))
    if is_whole:
        print_text(
            "The data have no test part: train-members holds out a random one, by default 20 %."
        )
    click.echo("")
    for finding in audit.findings:
        print_text(f"{_MARK[finding.severity]}: {finding.message} [{finding.kind}]")
        for example in finding.examples:
            print_text(f"    {example}")
    if audit.leak is not None:
        leak = audit.leak
        print_text(
            f"Balanced accuracy of a linear model on colour alone: {leak.by_group:.3f} with a split by "
            f"{audit.group_kind} ({min(leak.by_group_seeds):.3f} to {max(leak.by_group_seeds):.3f} over "
            f"{len(leak.by_group_seeds)} random splits), {leak.by_image:.3f} with a split by image, "
            f"{leak.chance:.3f} by chance. With a split by {audit.group_kind}, "
            f"only values above {leak.by_group:.3f} can show that a network uses morphology."
        )
    n_warnings = sum(f.severity == "warning" for f in audit.findings)
    click.echo(
        f"{counted(audit.n_errors, 'error')}, {counted(n_warnings, 'warning')}"
        + (". Results from these data would be wrong: correct them first" if audit.n_errors else "")
    )
