"""An ensemble as a WSInfer model for whole slides in QuPath: TorchScript and `config.json`.

The model is compared with PyTorch on real images before it is written.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ensemble_kit.arrays import Array
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, EnvironmentFault, UsageError
from ensemble_kit.export.combiner_graph import TINY
from ensemble_kit.export.golden_images import candidates, data_root, sources_of
from ensemble_kit.export.graph_files import CLASSES
from ensemble_kit.export.pixel_graph import INSTEAD, PixelGraph, resized
from ensemble_kit.files import digest_bytes, write_bytes, write_json
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.inference.bundle_files import CARD, open_files
from ensemble_kit.inference.card_facts import data_settings_of
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.golden import TOLERANCE
from ensemble_kit.inference.open_bundle import open_bundle
from ensemble_kit.inference.sources import Pixels
from ensemble_kit.replaced import replaced_whole
from ensemble_kit.run import Run, versions

MODEL, CONFIG, RECORD = "torchscript_model.pt", "config.json", "ensemble-kit.json"
USE = "## How to use it"
DEPRECATED = (
    "WSInfer reads TorchScript, which is deprecated in PyTorch. A later version of PyTorch may not read "
    "this file. Keep the run, so that you can export it again."
)
OUTPUT = (
    "The output is the logarithm of the ensemble's probabilities. WSInfer's softmax turns it into "
    "probabilities."
)


@dataclasses.dataclass(frozen=True)
class Patch:
    """The patches that WSInfer cuts out of a slide.

    Parameters
    ----------
    um_per_pixel : float
        Micrometres per pixel of the training images.
    pixels : int, optional
        Side of a patch. Default: the side of the training images, if they are square.
    """

    um_per_pixel: float
    pixels: int | None = None


@dataclasses.dataclass(frozen=True)
class WsinferModel:
    """The written model.

    Parameters
    ----------
    config : mapping
        The content of `config.json`.
    differences : mapping of str to float
        Largest difference of a probability from PyTorch, for the same tiles and for whole patches.
    n_compared : int
        Number of compared images.
    notes : tuple of str
    """

    config: Mapping[str, Any]
    differences: Mapping[str, float]
    n_compared: int
    notes: tuple[str, ...]


class _Script(nn.Module):
    """A module from WSInfer's patches (0 to 1) to the logarithm of the probabilities."""

    def __init__(self, graph: PixelGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, patches: Tensor) -> Tensor:
        images = torch.round(patches * 255)
        proba, _ = self.graph.of_images([images] * len(self.graph.specs))
        return proba.clamp(min=TINY).log()


def refuse_wsinfer(run: Run, out: Path, patch: Patch) -> None:
    """Check the patch and the output path before the export.

    Raises
    ------
    UsageError
        A size of the patch is not positive, or it is unknown.
    DataError
        `out` exists and is not a WSInfer model, or it is a zip archive.
    """
    if not patch.um_per_pixel > 0 or (patch.pixels is not None and patch.pixels < 1):
        raise UsageError(
            f"The patch has {patch.pixels} pixels and {patch.um_per_pixel:g} micrometres per pixel",
            "both values must be above 0",
            "Use the values of the training images, e.g. --um-per-pixel 0.5 --patch-size 224",
        )
    if out.suffix.lower() == ".zip" or (out.exists() and not (out / MODEL).is_file()):
        raise DataError(
            f"'{out}' cannot become a WSInfer model",
            "the output must be a new folder or an older WSInfer model",
            "Choose another folder",
        )
    if patch.pixels is None:
        _side_of(_images_of(run))


def write_wsinfer(run: Run, bundle: Path, out: Path, patch: Patch) -> WsinferModel:
    """Write the model folder of a bundle.

    Parameters
    ----------
    run : Run
        The run with the images for the comparison.
    bundle : path
        A folder that `export_bundle` wrote from that run.

    Raises
    ------
    UsageError
        The ensemble cannot be exported as a graph, or the size of a patch is unknown.
    EnvironmentFault
        TorchScript does not reproduce PyTorch's probabilities.
    """
    ensemble = open_bundle(bundle, device="cpu", backend="torch")
    data = data_settings_of(ensemble.manifest)
    _refuse_pairs(data.get("join", "none"))
    images = _images_of(run)
    side = patch.pixels or _side_of(images)
    content = script_bytes(ensemble, data, side)
    differences = _compared(ensemble, data, content, [_patch(one, side) for one in images])
    config = _config(ensemble, patch.um_per_pixel, side)
    notes = (*_notes(images), *ensemble.notes, OUTPUT, DEPRECATED)
    with replaced_whole(out) as fresh:
        write_bytes(fresh / MODEL, content)
        write_json(fresh / CONFIG, config)
        with open_files(bundle) as files:
            write_bytes(fresh / CARD, _card(files.card, notes).encode("utf-8"))
        record = {
            "created_by": versions(),
            "method": ensemble.method,
            "members": list(ensemble.member_names),
            "made_of": dict(ensemble.stored.made_of),
            "files": {MODEL: {"sha256": digest_bytes(content), "bytes": len(content)}},
            "n_compared": len(images),
            "largest_difference": differences,
            "classes": CLASSES,
            "notes": list(notes),
        }
        write_checked(fresh / RECORD, record)
    return WsinferModel(config, differences, len(images), notes)


def _images_of(run: Run) -> list[Pixels]:
    manifest = data_root(run, run.manifest())
    return [one.read(one.path) for one in sources_of(candidates(manifest))]


def script_bytes(ensemble: Ensemble, data: Mapping[str, str], side: int) -> bytes:
    """The ensemble as one TorchScript file with dynamic batch, height and width."""
    module = _Script(PixelGraph(ensemble, data)).eval()
    # Not the size of a tile, so that the trace contains the resizing.
    example = torch.rand(2, 3, side + 3, side + 5)
    out = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(module, example, check_trace=False)
        torch.jit.save(traced, out)
    return out.getvalue()


def _compared(
    ensemble: Ensemble, data: Mapping[str, str], content: bytes, patches: Sequence[Pixels]
) -> dict[str, float]:
    stacked = np.stack(patches)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script: Any = torch.jit.load(io.BytesIO(content), map_location="cpu")
        given = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255
        found = np.concatenate([script(some).softmax(dim=1).numpy() for some in given.split(16)])
    by_tiles = np.abs(found - _of_same_tiles(ensemble, data, stacked))
    if not by_tiles.max() <= TOLERANCE:
        raise EnvironmentFault(
            "The TorchScript file does not reproduce PyTorch: the largest difference of a probability "
            f"on {len(patches)} images is {by_tiles.max():.2g}",
            f"at most {TOLERANCE:g} is accepted",
            f"No file was written. {INSTEAD}",
        )
    whole = np.abs(found - ensemble.predict_proba(list(patches)))
    return {"torchscript": float(by_tiles.max()), "torchscript_from_pixels": float(whole.max())}


def _of_same_tiles(ensemble: Ensemble, data: Mapping[str, str], patches: Pixels) -> Array:
    """PyTorch's probabilities of tiles that the module has resized."""
    graph = PixelGraph(ensemble, data)
    planar = graph.colored(torch.from_numpy(patches).permute(0, 3, 1, 2).float())
    ids = np.arange(len(patches)).astype(np.str_)
    tiles = {}
    for spec in ensemble.specs:
        pixels = resized(planar, spec.image_size, spec.image_size).permute(0, 2, 3, 1)
        own = np.ascontiguousarray(pixels.numpy().astype(np.uint8))
        tiles[spec] = Tiles(own, ids, "", spec.image_size)
    return ensemble.stored.combiner.combine(ensemble.member_logits(tiles)).proba


def _config(ensemble: Ensemble, um_per_pixel: float, side: int) -> dict[str, Any]:
    """The configuration in version 1.0 of the schema of WSInfer's model zoo."""
    names = ensemble.class_names
    return {
        "spec_version": "1.0",
        "architecture": f"{ensemble.method} of {', '.join(ensemble.member_names)}",
        "num_classes": len(names),
        "class_names": list(names),
        "patch_size_pixels": side,
        "spacing_um_px": um_per_pixel,
        # The model itself resizes to the networks' sizes and normalises.
        "transform": [{"name": "Resize", "arguments": {"size": side}}, {"name": "ToTensor"}],
    }


def _card(card: str, notes: Sequence[str]) -> str:
    """The bundle's model card, with the use of this folder instead of the bundle."""
    before, _, rest = card.partition(USE)
    after = rest.partition("\n## ")[2]
    bullets = "\n".join(f"- {note}" for note in notes)
    command = f"wsinfer run --config {CONFIG} --model-path {MODEL}"
    return (
        f"{before}{USE}\n\nWith WSInfer: `{command}` and its options. In QuPath: open this folder as a local "
        f"model in the WSInfer extension.\n\n{bullets}\n\n## {after}"
    )


def _patch(image: Pixels, side: int) -> Pixels:
    """Resize in the same way as WSInfer."""
    return np.asarray(Image.fromarray(image).resize((side, side)))


def _shapes(images: Sequence[Pixels]) -> list[tuple[int, ...]]:
    return sorted({one.shape[1::-1] for one in images})


def _side_of(images: Sequence[Pixels]) -> int:
    shapes = _shapes(images)
    if len(shapes) > 1 or shapes[0][0] != shapes[0][1]:
        listed = ", ".join(f"{width} x {height}" for width, height in shapes[:3])
        raise UsageError(
            f"The training images have {listed} pixels, so the size of a patch is unknown",
            "without --patch-size, all images must be squares of one size",
            "Set --patch-size, in pixels of the training images",
        )
    return shapes[0][0]


def _notes(images: Sequence[Pixels]) -> list[str]:
    odd = [(w, h) for w, h in _shapes(images) if w != h]
    if not odd:
        return []
    return [
        f"Training images of e.g. {odd[0][0]} x {odd[0][1]} pixels were squeezed into squares. WSInfer "
        "cuts square patches without squeezing. The metrics of the run may not be valid for them."
    ]


def _refuse_pairs(join: str) -> None:
    if join != "none":
        raise UsageError(
            f"The images are pairs of H&E and IHC, joined by '{join}'",
            "WSInfer needs single images",
            "Use --format bundle or --format onnx",
        )
