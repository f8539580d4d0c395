"""An ensemble as a model of WSInfer, which QuPath runs on whole slides: TorchScript and `config.json`.

The files are compared with PyTorch on real images before the folder gets its name.
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
from ensemble_kit.export.pixel_graph import PixelGraph, resized
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
    "WSInfer reads TorchScript, which PyTorch has declared deprecated: a later version of PyTorch may "
    "not read this file. Keep the run, and export it again."
)
OUTPUT = (
    "The output is the logarithm of the ensemble's probabilities. The softmax of WSInfer gives the "
    "probabilities back."
)


@dataclasses.dataclass(frozen=True)
class Patch:
    """What WSInfer cuts out of a slide.

    Parameters
    ----------
    um_per_pixel : float
        Micrometres per pixel of the training images.
    pixels : int, optional
        Side of a patch; that of the training images by default, if they are square.
    """

    um_per_pixel: float
    pixels: int | None = None


@dataclasses.dataclass(frozen=True)
class WsinferModel:
    """What was written.

    Parameters
    ----------
    config : mapping
        The content of `config.json`.
    differences : mapping of str to float
        Largest difference of a probability from PyTorch, of the same tiles and of whole patches.
    n_compared : int
        Real images.
    notes : tuple of str
    """

    config: Mapping[str, Any]
    differences: Mapping[str, float]
    n_compared: int
    notes: tuple[str, ...]


class _Script(nn.Module):
    """From patches of 0 to 1, as WSInfer gives them, to the logarithm of the probabilities."""

    def __init__(self, graph: PixelGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, patches: Tensor) -> Tensor:
        images = torch.round(patches * 255)
        proba, _ = self.graph.of_images([images] * len(self.graph.specs))
        return proba.clamp(min=TINY).log()


def refuse_wsinfer(run: Run, out: Path, patch: Patch) -> None:
    """Refuse what cannot be written, before anything is computed.

    Raises
    ------
    UsageError
        A patch without a size, or one whose size is not known.
    DataError
        There is something else at `out`, or it is a zip archive.
    """
    if not patch.um_per_pixel > 0 or (patch.pixels is not None and patch.pixels < 1):
        raise UsageError(
            f"A patch of {patch.pixels} pixels with {patch.um_per_pixel:g} micrometres per pixel is not possible",
            "both values must be above 0",
            "Give the values of the training images, e.g. --um-per-pixel 0.5 --patch-size 224",
        )
    if out.suffix.lower() == ".zip" or (out.exists() and not (out / MODEL).is_file()):
        raise DataError(
            f"'{out}' cannot become a WSInfer model",
            "a WSInfer model is a new folder, or replaces a WSInfer model",
            "Name another folder",
        )
    if patch.pixels is None:
        _side_of(_images_of(run))


def write_wsinfer(run: Run, bundle: Path, out: Path, patch: Patch) -> WsinferModel:
    """Write the model folder of a bundle.

    Parameters
    ----------
    run : Run
        Its images are predicted by both.
    bundle : path
        A folder that `export_bundle` wrote of that run.

    Raises
    ------
    UsageError
        The ensemble cannot be a graph, or the size of a patch is not known.
    EnvironmentFault
        TorchScript gives other probabilities than PyTorch.
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
    """The ensemble as one TorchScript file; batch, height and width are free."""
    module = _Script(PixelGraph(ensemble, data)).eval()
    # Not the size of a tile: the trace must keep the resizing.
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
            "The TorchScript file does not give PyTorch's probabilities",
            f"the largest difference on {len(patches)} images is {by_tiles.max():.2g}; accepted is "
            f"{TOLERANCE:g}",
            "Nothing was written. Export with --format bundle, which predicts with PyTorch",
        )
    whole = np.abs(found - ensemble.predict_proba(list(patches)))
    return {"torchscript": float(by_tiles.max()), "torchscript_from_pixels": float(whole.max())}


def _of_same_tiles(ensemble: Ensemble, data: Mapping[str, str], patches: Pixels) -> Array:
    """Probabilities by `predict`, of tiles that the module's own resizing made."""
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
    """By version 1.0 of the schema of WSInfer's model zoo."""
    names = ensemble.class_names
    return {
        "spec_version": "1.0",
        "architecture": f"{ensemble.method} of {', '.join(ensemble.member_names)}",
        "num_classes": len(names),
        "class_names": list(names),
        "patch_size_pixels": side,
        "spacing_um_px": um_per_pixel,
        # Resizing to the networks' sizes and normalising are in the model.
        "transform": [{"name": "Resize", "arguments": {"size": side}}, {"name": "ToTensor"}],
    }


def _card(card: str, notes: Sequence[str]) -> str:
    """The bundle's card, which says how this folder is used in place of the bundle."""
    before, _, rest = card.partition(USE)
    after = rest.partition("\n## ")[2]
    bullets = "\n".join(f"- {note}" for note in notes)
    command = f"wsinfer run --config {CONFIG} --model-path {MODEL}"
    return (
        f"{before}{USE}\n\nWith WSInfer: `{command}` and its options. In QuPath: open this folder as a local "
        f"model in the WSInfer extension.\n\n{bullets}\n\n## {after}"
    )


def _patch(image: Pixels, side: int) -> Pixels:
    """As WSInfer resizes what it read from the slide."""
    return np.asarray(Image.fromarray(image).resize((side, side)))


def _shapes(images: Sequence[Pixels]) -> list[tuple[int, ...]]:
    return sorted({one.shape[1::-1] for one in images})


def _side_of(images: Sequence[Pixels]) -> int:
    shapes = _shapes(images)
    if len(shapes) > 1 or shapes[0][0] != shapes[0][1]:
        listed = ", ".join(f"{width} x {height}" for width, height in shapes[:3])
        raise UsageError(
            "The size of a patch is not known: the training images are not squares of one size",
            f"they are {listed} pixels",
            "Give it: --patch-size, in pixels of the training images",
        )
    return shapes[0][0]


def _notes(images: Sequence[Pixels]) -> list[str]:
    odd = [(w, h) for w, h in _shapes(images) if w != h]
    if not odd:
        return []
    return [
        f"Training images of e.g. {odd[0][0]} x {odd[0][1]} pixels were squeezed into squares. WSInfer's "
        "patches are squares that are not squeezed: the metrics of the run may not hold for them."
    ]


def _refuse_pairs(join: str) -> None:
    if join != "none":
        raise UsageError(
            f"The images are pairs of H&E and IHC, joined by '{join}'",
            "WSInfer reads one slide",
            "Export with --format bundle or --format onnx",
        )
