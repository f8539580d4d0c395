"""`ensemble-kit explain`: maps of members and of the ensemble, and tests of these maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.options.panels import EXPLAINING, PanelCommand
from ensemble_kit.cli.options.shared import (
    Names,
    best_method_option,
    device_option,
    json_option,
    run_option,
)
from ensemble_kit.cli.output.text import print_json
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.explanation.choose_images import ChosenImages
    from ensemble_kit.inference.ensemble import Ensemble
    from ensemble_kit.run import Run

DEFAULT = ("worst", 12)


def _number(flag: str, text: str) -> Any:
    return click.option(flag, type=click.IntRange(1), metavar="N", help=text)


@click.command("explain", cls=PanelCommand, panels=EXPLAINING)
@click.argument("images", nargs=-1, metavar="[IMAGES...]")
@run_option
@_number("--worst", "The N images whose true class has the lowest probability. [default: 12]")
@_number(
    "--disputed",
    "The N images on which the members' probabilities differ most (mutual information).",
)
@_number("--right", "The N correct predictions with the highest probability.")
@best_method_option
@click.option(
    "--maps",
    type=Names(),
    default="gradcam",
    show_default=True,
    help="One or more of gradcam, layercam, gradientshap, integrated-gradients, occlusion, shap.",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="The class that the maps explain. [default: the predicted class]",
)
@click.option(
    "--stain",
    type=click.Choice(["haematoxylin", "eosin", "dab"]),
    help="Also predict each image with 0 to 2 times this stain, and plot the probabilities.",
)
@click.option(
    "--geojson",
    is_flag=True,
    help="Also write the regions with the highest values as polygons for QuPath.",
)
@click.option(
    "--faithfulness",
    is_flag=True,
    help="Add deletion and insertion curves, and maps of networks with shuffled weights.",
)
@click.option(
    "--masks",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Masks of the relevant regions, with the file names of the images. Adds the share of each map on its mask.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder to write to. [default: explanations/KIND in the run folder, e.g. explanations/worst; with a bundle in the current folder]",
)
@json_option
@device_option
def explain(
    images: tuple[str, ...],
    run: Run,
    worst: int | None,
    disputed: int | None,
    right: int | None,
    method: str | None,
    maps: tuple[str, ...],
    class_name: str | None,
    stain: str | None,
    geojson: bool,
    faithfulness: bool,
    masks: Path | None,
    out: Path | None,
    as_json: bool,
    device: str,
) -> None:
    """Show which image regions the predictions of each member and of the ensemble depend on.

    IMAGES are files, folders, globs or a CSV of paths. Without IMAGES, images of the run are chosen
    by their stored predictions, from the test part if there is one.

    Each image gets a panel with the maps of each member and of the ensemble, and a map of the
    disagreement of the members. The same command continues after a stop.
    """
    from ensemble_kit.explanation.methods import check_method
    from ensemble_kit.explanation.options import ExplainOptions

    maps = tuple(dict.fromkeys(check_method(one) for one in maps))
    kind, n_images = _kind({"worst": worst, "disputed": disputed, "right": right}, images)
    folder = out or _home(run, images) / kind
    from ensemble_kit.inference.ensemble import load_ensemble

    ensemble = load_ensemble(run.path, method=method, device=device, backend="torch")
    chosen = _chosen(run, ensemble, images, kind, n_images)
    from ensemble_kit.cli.output.explain import print_explained
    from ensemble_kit.cli.output.predict import bar
    from ensemble_kit.explanation.write import write_explanations

    options = ExplainOptions(maps, class_name, faithfulness, masks, stain, geojson)
    with bar(quiet=as_json, done_word="explained") as progress:
        index = write_explanations(ensemble, chosen, folder, options, progress=progress)
    if as_json:
        print_json({"folder": folder.as_posix(), **index})
    else:
        print_explained(folder, index)


def _kind(requested: dict[str, int | None], images: tuple[str, ...]) -> tuple[str, int]:
    """The choice of images, and their number."""
    given = {kind: n for kind, n in requested.items() if n is not None}
    if len(given) + bool(images) > 1:
        raise UsageError(
            f"Several choices of images: {', '.join(['IMAGES'] * bool(images) + [f'--{k}' for k in given])}",
            "one call explains one choice",
            "Run the command once for each; each choice has its own folder",
        )
    if images:
        return "images", len(images)
    return next(iter(given.items()), DEFAULT)


def _home(run: Run, images: tuple[str, ...]) -> Path:
    """The default folder: in the run, or for a bundle in the current folder."""
    from ensemble_kit.inference.bundle_files import is_bundle

    if not is_bundle(run.path):
        return run.path / "explanations"
    if not images:
        raise UsageError(
            f"'{run.path}' is a bundle, and no IMAGES were given",
            "images can only be chosen from a run",
            "Give IMAGES",
        )
    return Path("explanations")


def _chosen(
    run: Run, ensemble: Ensemble, images: tuple[str, ...], kind: str, n_images: int
) -> ChosenImages:
    from ensemble_kit.explanation.choose_images import ChosenImages, choose_images

    if not images:
        return choose_images(run, ensemble, kind, n_images)
    from ensemble_kit.inference.find_images import find_sources

    found = find_sources(images)
    return ChosenImages(kind, found.sources, ("",) * len(found.sources), found.notes)
