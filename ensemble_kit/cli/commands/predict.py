"""`ensemble-kit predict`: predict new images with the ensemble of a run or of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import (
    best_method_option,
    device_option,
    json_option,
    run_option,
)
from ensemble_kit.cli.output.text import print_json, printable
from ensemble_kit.errors import counted

if TYPE_CHECKING:
    from ensemble_kit.inference.ensemble import Ensemble
    from ensemble_kit.inference.find_images import FoundImages
    from ensemble_kit.run import Run

OUT = "predictions.csv"


@click.command("predict")
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@run_option
@best_method_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The table to write. [default: {OUT}; a single image is only printed]",
)
@json_option
@click.option("--group-column", metavar="NAME", help="Column of patients in the table of images.")
@click.option(
    "--group-pattern",
    metavar="REGEX",
    help="Regular expression for the path. Its first group is the patient.",
)
@click.option(
    "--image-root",
    type=click.Path(path_type=Path),
    help="The folder of the images of a table. [default: the folder of the table]",
)
@click.option(
    "--geojson",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Also write SLIDE.geojson for QuPath. File names must contain the position: 'SLIDE [x=0,y=0,w=512,h=512].png'.",
)
@click.option(
    "--on-bad-image",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="Unreadable images: skip (list them in the column error), or stop.",
)
@device_option
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="auto, torch, onnxruntime or openvino. The last two need a bundle with a graph.",
)
def predict(
    images: tuple[str, ...],
    run: Run,
    method: str | None,
    out: Path | None,
    as_json: bool,
    group_column: str | None,
    group_pattern: str | None,
    image_root: Path | None,
    geojson: Path | None,
    on_bad_image: str,
    device: str,
    backend: str,
) -> None:
    """Predict new images with the ensemble of a run or of a bundle.

    IMAGES are files, folders, globs, a CSV of paths, or a MedMNIST .npz. The predictions of one image
    are printed. Those of several are written to a table. The same command continues after a stop.

    Each image gets its class, all probabilities, the vote of each member and the uncertainty.
    Prediction sets and decisions are added if conformal and operating-point were run before.
    """
    from ensemble_kit.inference.find_images import find_sources

    found = find_sources(
        images, group_column=group_column, group_pattern=group_pattern, image_root=image_root
    )
    if out is not None:
        _refuse_input(out, found, images)
    if geojson is not None:
        from ensemble_kit.inference.qupath import check_names

        check_names([one.name for one in found.sources])
    from ensemble_kit.inference.ensemble import load_ensemble

    ensemble = load_ensemble(run.path, method=method, device=device, backend=backend)
    fails = on_bad_image == "fail"
    if out is None and geojson is None and (found.is_single or as_json):
        _print_only(ensemble, run, found, as_json=as_json, fail=fails)
    else:
        _write(ensemble, run, found, out or Path(OUT), geojson, as_json=as_json, fail=fails)


def _print_only(
    ensemble: Ensemble, run: Run, found: FoundImages, *, as_json: bool, fail: bool
) -> None:
    from ensemble_kit.cli.output.predict import print_one, stream_json

    if as_json:
        stream_json(ensemble, run, found, fail=fail)
    else:
        print_one(ensemble, run, found)


def _write(
    ensemble: Ensemble,
    run: Run,
    found: FoundImages,
    out: Path,
    geojson: Path | None,
    *,
    as_json: bool,
    fail: bool,
) -> None:
    """Write the table and the GeoJSON files, and print what was written."""
    from ensemble_kit.cli.output.predict import bar, print_written, written_json
    from ensemble_kit.inference.predict_files import predict_files
    from ensemble_kit.inference.qupath import write_geojson

    with bar(quiet=as_json) as progress:
        done = predict_files(
            ensemble, found.sources, out, on_bad_image="fail" if fail else "skip", progress=progress
        )
    slides = None if geojson is None else write_geojson(ensemble, done.path, geojson)
    if as_json:
        print_json(written_json(ensemble, run, done))
        return
    print_written(ensemble, run, found.notes, done)
    if slides is not None and geojson is not None:
        click.echo(
            printable(f"For QuPath: {counted(len(slides), 'GeoJSON file')} in {geojson.as_posix()}")
        )


def _refuse_input(out: Path, found: FoundImages, images: tuple[str, ...]) -> None:
    """Refuse to overwrite an input image."""
    from ensemble_kit.errors import UsageError

    named = {Path(name).resolve() for name in (*images, *(one.name for one in found.sources))}
    if out.resolve() in named:
        raise UsageError(
            printable(f"'{out}' is one of the images"),
            "--out would replace it",
            "Name another file",
        )
