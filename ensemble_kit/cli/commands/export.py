"""`ensemble-kit export`: a run as a bundle that predicts without the run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import best_method_option, default_run, json_option
from ensemble_kit.cli.output.text import print_json, printable
from ensemble_kit.errors import counted

if TYPE_CHECKING:
    from ensemble_kit.export.bundle import Exported
    from ensemble_kit.export.distillation import Student
    from ensemble_kit.export.wsinfer import Patch


@click.command("export")
@click.argument("places", nargs=-1, required=True, metavar="[RUN] OUT")
@best_method_option
@click.option(
    "--folds",
    type=click.Choice(["all", "best", "soup"]),
    help="Networks. all: of all folds. best: the best fold of each member. soup: the mean weights of "
    "the folds. [default: all; best with --distill]",
)
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["bundle", "onnx", "openvino", "mlflow", "wsinfer"]),
    default="bundle",
    show_default=True,
    help="onnx, openvino: a bundle with one graph from pixels to probabilities. mlflow: a pyfunc model folder. "
    "wsinfer: a model folder for whole slides in WSInfer and QuPath.",
)
@click.option(
    "--um-per-pixel", type=float, metavar="UM",
    help="wsinfer: micrometres per pixel of the training images.",
)  # fmt: skip
@click.option(
    "--patch-size", type=int, metavar="PIXELS",
    help="wsinfer: side of a patch. [default: side of the training images]",
)  # fmt: skip
@click.option(
    "--distill", metavar="NETWORK[:KEY=VALUE...]",
    help="Train one small network on the ensemble's out-of-fold predictions, and export it. Its recipe is "
    "that of the first member, changed by KEY=VALUE.",
)  # fmt: skip
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Device of --distill: auto, cpu, cuda, cuda:0 or mps.",
)
@json_option
def export(
    places: tuple[str, ...],
    method: str | None,
    folds: str | None,
    fmt: str,
    um_per_pixel: float | None,
    patch_size: int | None,
    distill: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Write the ensemble of a run as a bundle that predicts without the run.

    RUN is a run folder [default: from the settings file, else the latest in checkpoints/].
    OUT is a new folder, or a .zip.

    The bundle holds the networks, the combiner, thresholds, prediction sets, a model card and eight
    small images with their predictions. It holds no code and no pickle. Open it with
    `ensemble-kit predict IMAGES --run OUT`.
    """
    from ensemble_kit.errors import UsageError

    if len(places) > 2:
        raise UsageError(
            f"'{places[2]}' is one argument too many",
            "export takes a run folder and an output path",
            "Use: ensemble-kit export RUN OUT",
        )
    *named, out = places
    run = named[0] if named else str(default_run())
    patch = _patch(fmt, um_per_pixel, patch_size)
    _refuse_output(run, Path(out), fmt, patch)
    source = _Source(run, method, folds or "all")
    if distill is not None:
        student = _trained(run, distill, method, device)
        source = _Source(student.run.path.as_posix(), student.name, folds or "best", student)
    if fmt == "mlflow":
        _write_mlflow(source, Path(out), as_json)
        return
    if patch is not None:
        _write_wsinfer(source, Path(out), patch, as_json)
        return
    done = source.written(Path(out), None if fmt == "bundle" else fmt)
    if as_json:
        print_json(_as_json(done))
        return
    for line in _lines(done):
        click.echo(printable(line))


@dataclasses.dataclass(frozen=True)
class _Source:
    """The exported ensemble."""

    run: str
    method: str | None
    folds: str
    student: Student | None = None

    def written(self, out: Path, graph: str | None = None) -> Exported:
        from ensemble_kit.export.bundle import export_bundle

        return export_bundle(
            self.run, out, method=self.method, folds=self.folds, graph=graph, student=self.student
        )


def _trained(run: str, distill: str, method: str | None, device: str) -> Student:
    """Train the small network; progress is printed on standard error."""
    from rich.console import Console

    from ensemble_kit.cli.output.progress import ProgressPrinter
    from ensemble_kit.export.distillation import train_student
    from ensemble_kit.run import Run

    opened = Run(run)
    n_folds = opened.folds().n_splits
    console = Console(highlight=False, stderr=True)
    with ProgressPrinter({}, {distill: n_folds}, estimates=False, console=console) as printer:
        return train_student(opened, distill, method=method, device=device, listener=printer)


def _refuse_output(run: str, out: Path, fmt: str, patch: Patch | None) -> None:
    """Refuse an unsuitable output path before anything is trained."""
    if fmt == "mlflow":
        from ensemble_kit.export.mlflow_folder import refuse_mlflow

        refuse_mlflow(out)
    elif patch is not None:
        from ensemble_kit.export.wsinfer import refuse_wsinfer
        from ensemble_kit.run import Run

        refuse_wsinfer(Run(run), out, patch)
    else:
        from ensemble_kit.export.bundle_place import refuse_other

        refuse_other(out)


def _patch(fmt: str, um_per_pixel: float | None, patch_size: int | None) -> Patch | None:
    """The patch of WSInfer; None for other formats."""
    from ensemble_kit.errors import UsageError
    from ensemble_kit.export.wsinfer import Patch

    if fmt != "wsinfer":
        if um_per_pixel is not None or patch_size is not None:
            raise UsageError(
                f"--um-per-pixel or --patch-size was given with --format {fmt}",
                "they are for --format wsinfer",
                "Remove them, or use --format wsinfer",
            )
        return None
    if um_per_pixel is None:
        raise UsageError(
            "--format wsinfer needs the size of a pixel",
            "no --um-per-pixel was given",
            "Give the micrometres per pixel of the training images, e.g. --um-per-pixel 0.5",
        )
    return Patch(um_per_pixel, patch_size)


@contextlib.contextmanager
def _bundle_of(source: _Source, out: Path) -> Iterator[tuple[Path, Exported]]:
    """A bundle in a temporary folder beside `out`."""
    import tempfile

    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".bundle-") as scratch:
        bundle = Path(scratch) / "bundle"
        yield bundle, source.written(bundle)


def _write_wsinfer(source: _Source, out: Path, patch: Patch, as_json: bool) -> None:
    from ensemble_kit.export.wsinfer import write_wsinfer
    from ensemble_kit.run import Run

    with _bundle_of(source, out) as (bundle, done):
        model = write_wsinfer(Run(source.run), bundle, out, patch)
    differences = dict(model.differences)
    if as_json:
        about = {
            "written": out.as_posix(),
            "config": dict(model.config),
            "graph_differences": differences,
        }
        print_json({**_as_json(done), **about})
        return
    side, um = model.config["patch_size_pixels"], model.config["spacing_um_px"]
    for line in (
        f"{out.as_posix()}: a WSInfer model of {done.method}, {counted(done.choice.n_networks, 'network')}. "
        f"Patches: {side} x {side} pixels of {um:g} micrometres.",
        *_choice_lines(done),
        f"TorchScript against PyTorch on {counted(model.n_compared, 'image')}: the largest difference of a probability "
        f"is {differences['torchscript']:.2g} for the same tiles, and "
        f"{differences['torchscript_from_pixels']:.2g} for whole patches.",
        *(f"Note: {note}" for note in model.notes),
        f"Next: wsinfer run --config {out.as_posix()}/config.json --model-path "
        f"{out.as_posix()}/torchscript_model.pt, or open the folder as a local model in QuPath",
    ):
        click.echo(printable(line))


def _write_mlflow(source: _Source, out: Path, as_json: bool) -> None:
    from ensemble_kit.export.mlflow_folder import write_mlflow

    with _bundle_of(source, out) as (bundle, done):
        difference = write_mlflow(bundle, out)
    if as_json:
        about = {"written": out.as_posix(), "mlflow_difference": difference}
        print_json({**_as_json(done), **about})
        return
    for line in (
        f"{out.as_posix()}: an MLflow model of {done.method}, {counted(done.choice.n_networks, 'network')}.",
        *_choice_lines(done),
        f"Opened by MLflow: the largest difference of a probability is {difference:.2g}.",
        f"Next: mlflow models serve -m {out.as_posix()} --env-manager local",
    ):
        click.echo(printable(line))


def _choice_lines(done: Exported) -> list[str]:
    """The effect of the choice of folds, and of the small network."""
    from ensemble_kit.export.distillation import distilled_words
    from ensemble_kit.export.fold_choice import choice_words

    of_student = [] if done.distilled is None else distilled_words(done.distilled)
    return [*choice_words(done.choice), *of_student]


def _as_json(done: Exported) -> dict[str, object]:
    from ensemble_kit.export.distillation import distilled_json
    from ensemble_kit.export.fold_choice import choice_json

    return {
        "written": done.path.as_posix(),
        "n_bytes": done.n_bytes,
        "method": done.method,
        "folds": choice_json(done.choice),
        "distilled": distilled_json(done.distilled),
        "golden_difference": done.golden_difference,
        "graph_differences": dict(done.graph_differences),
    }


def _lines(done: Exported) -> list[str]:
    place = Path(done.path).as_posix()
    return [
        f"{place}: {done.method}, {counted(done.choice.n_networks, 'network')}, {done.n_bytes / 2**20:.1f} MiB.",
        *_choice_lines(done),
        "Opened again: the stored images get the same probabilities (largest difference "
        f"{done.golden_difference:.2g}).",
        *(
            f"Graph against PyTorch, {name.replace('_', ' ')}: largest difference {value:.2g}."
            for name, value in done.graph_differences.items()
        ),
        f"Next: ensemble-kit predict IMAGES --run {place}",
    ]
