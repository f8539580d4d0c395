"""Attribution maps of each member and the ensemble, on one grid.

Images are loaded and laid out in the same way as in `Ensemble.predict`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, EnsembleKitError, UsageError, did_you_mean
from ensemble_kit.explanation.combiner_slope import combiner_slope, refuse_features
from ensemble_kit.explanation.fuse import disagreement
from ensemble_kit.explanation.fused_maps import fused_maps
from ensemble_kit.explanation.member_pass import member_pass
from ensemble_kit.explanation.methods import check_method
from ensemble_kit.images.digests import refuse_faults
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec, recipes, tile_shape
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.image_predictions import ImagePredictions, joined
from ensemble_kit.inference.sources import Source, as_sources
from ensemble_kit.inference.tile_blocks import TileBlock, tile_block
from ensemble_kit.predictions.method_predictions import ABSTAINED

# Number of images explained at once. Their autograd graphs are in memory together.
BLOCK = 16
# Largest side of maps and smallest side of pictures, in pixels.
LARGEST, PICTURE = 224, 384


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of images. Axis 0 is always the images.

    Parameters
    ----------
    predictions : ImagePredictions
    method : str
        The method of making maps.
    explained : array of int64, shape (n_images,)
        The explained class.
    maps : array of float32, shape (n_images, n_members, height, width)
        Evidence for the class in each member, at least 0. The mean over the image is in units of the
        logit, and does not depend on the resolution of the member's own map.
    ensemble : array of float32, shape (n_images, height, width)
        Evidence of the members, weighted by the combiner's derivative, at least 0.
    signed : array of float32, shape (n_images, n_members + 1, height, width)
        Signed maps of the members, then of the ensemble. Evidence against the class is negative.
    disagreement : array of float32, shape (n_images, height, width)
        Standard deviation of the members' relative maps, 0 to .5.
    directions : array of float64, shape (n_images, n_members, n_classes)
        The derivative of the ensemble's score with respect to each logit.
    replaced : array of bool, shape (n_images,)
        True if the combiner has no derivative. The members then have equal weights.
    cells : mapping of member to (rows, columns)
        The resolution of each member's own map, before resampling to the grid.
    pictures : array of uint8, shape (n_images, height, width, 3)
        The images as laid out for the networks, in a size for display.
    """

    predictions: ImagePredictions
    method: str
    explained: npt.NDArray[np.int64]
    maps: Array
    ensemble: Array
    signed: Array
    disagreement: Array
    directions: Array
    replaced: npt.NDArray[np.bool_]
    cells: Mapping[str, tuple[int, int]]
    pictures: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.explained)

    @property
    def class_names(self) -> npt.NDArray[np.str_]:
        """The explained class of each image."""
        return np.asarray(np.array(self.predictions.class_names)[self.explained])


@dataclasses.dataclass(frozen=True, eq=False)
class BlockExplanation:
    """A block of images: maps and tiles of readable images, the errors of the others.

    Parameters
    ----------
    sources : sequence of Source
    tiles : mapping of TileSpec to Tiles
        Inputs of the networks, rows in the order of `good`.
    by_method : mapping of method to Explanation
        Explanations of `sources[i] for i in good`. Empty if no image can be read.
    """

    sources: Sequence[Source]
    tiles: Mapping[TileSpec, Tiles]
    by_method: Mapping[str, Explanation]
    good: npt.NDArray[np.int64]
    faults: Mapping[int, EnsembleKitError]


def explain(
    ensemble: Ensemble, images: Any, method: str = "gradcam", *, class_name: str | None = None
) -> Explanation:
    """Attribution maps of each member and the ensemble.

    Parameters
    ----------
    ensemble : Ensemble
        From `ek.load_ensemble`.
    images : path, array, or sequence of them
        See `Ensemble.predict_all`.
    method : {"gradcam", "layercam", "gradientshap", "integrated-gradients", "occlusion", "shap"}
    class_name : str, optional
        The explained class. Default: the ensemble's predicted class of each image.

    Returns
    -------
    Explanation
        `maps` (n_images, n_members, height, width), `ensemble` and `disagreement`.

    Raises
    ------
    UsageError
        The method or class is unknown.
    DataError
        Images cannot be read, or the method does not support a network.
    EnvironmentFault
        The method is "shap" and the package shap is not installed.
    """
    return explain_sources(ensemble, as_sources(images), method, class_name=class_name)


def explain_sources(
    ensemble: Ensemble, sources: Sequence[Source], method: str, *, class_name: str | None = None
) -> Explanation:
    """The same as `explain`, for images with their own reader (`Source.read`)."""
    if not sources:
        raise DataError(
            "No images were given", "at least one image is needed", "Name image files or a folder"
        )
    blocks = list(explain_blocks(ensemble, sources, (method,), class_name=class_name))
    faults = [error for block in blocks for error in block.faults.values()]
    refuse_faults(dict(enumerate(faults)), len(sources))
    return _joined([block.by_method[method] for block in blocks])


def explain_blocks(
    ensemble: Ensemble,
    sources: Sequence[Source],
    methods: Sequence[str] = ("gradcam",),
    *,
    class_name: str | None = None,
) -> Iterator[BlockExplanation]:
    """The same as `explain`, block by block in constant memory. Unreadable images are in `faults`."""
    methods = [check_method(one) for one in methods]
    refuse_features(ensemble.stored.combiner)
    if not ensemble.members:
        raise UsageError(
            f"The backend '{ensemble.backend}' has no gradients",
            "maps need the backend 'torch'",
            "Open the run, or the bundle with backend='torch' (--backend torch)",
        )
    wanted = None if class_name is None else _class_index(ensemble, class_name)
    layout = _Layout.of(ensemble)
    for start in range(0, len(sources), BLOCK):
        some = sources[start : start + BLOCK]
        with ensemble.lock:
            made = tile_block(ensemble.manifest, some, [*layout.specs, layout.picture])
            found = {
                one: _explain_tiles(ensemble, made, some, one, wanted, layout)
                for one in methods
                if len(made.good)
            }
        tiles = {spec: one for spec, one in made.tiles.items() if spec in layout.specs}
        yield BlockExplanation(some, tiles, found, made.good, made.faults)


@dataclasses.dataclass(frozen=True, eq=False)
class _Layout:
    """The tiles of the networks, the tile for display, and the grid of all maps."""

    specs: Sequence[TileSpec]
    picture: TileSpec
    grid: tuple[int, int]

    @staticmethod
    def of(ensemble: Ensemble) -> _Layout:
        specs = [spec for member in ensemble.members for spec in member.specs]
        manifest = ensemble.manifest
        joins = {
            recipes(manifest.take([0]), stain=one.stain, stain_norm=one.stain_norm)[0].join
            for one in specs
        }
        # Joined pairs have different shapes in these layouts.
        if len(joins) > 1 and joins & {"side", "stack"}:
            raise DataError(
                f"The members join pairs in different ways: {', '.join(sorted(joins))}",
                "their maps have no common grid",
                "Explain one member: --method MEMBER",
            )
        largest = max(specs, key=lambda one: one.image_size)
        side = min(largest.image_size, LARGEST)
        height, width, _ = tile_shape(manifest, dataclasses.replace(largest, image_size=side))
        picture = dataclasses.replace(largest, image_size=max(largest.image_size, PICTURE))
        return _Layout(specs, picture, (height, width))


def _explain_tiles(
    ensemble: Ensemble,
    made: TileBlock,
    sources: Sequence[Source],
    method: str,
    wanted: int | None,
    layout: _Layout,
) -> Explanation:
    passes = [member_pass(method, member, made.tiles) for member in ensemble.members]
    logits = np.stack([one.logits for one in passes], axis=1)
    predictions = ensemble.predictions_of(logits, [sources[i] for i in made.good])
    explained = _explained(predictions, wanted)
    slope = combiner_slope(ensemble.stored.combiner, logits, explained)
    fused = fused_maps(passes, explained, slope.directions, layout.grid)
    return Explanation(
        predictions=predictions,
        method=method,
        explained=explained,
        maps=fused.maps,
        ensemble=np.maximum(fused.signed[:, -1], 0.0),
        signed=fused.signed,
        disagreement=disagreement(fused.maps),
        directions=slope.directions,
        replaced=slope.replaced,
        cells=dict(zip(ensemble.member_names, fused.cells, strict=True)),
        pictures=_pictures(made.tiles[layout.picture]),
    )


def _explained(predictions: ImagePredictions, wanted: int | None) -> npt.NDArray[np.int64]:
    if wanted is not None:
        return np.full(len(predictions), wanted, dtype=np.int64)
    predicted = predictions.combined.predicted
    return np.where(predicted == ABSTAINED, predictions.proba.argmax(axis=1), predicted)


def _class_index(ensemble: Ensemble, name: str) -> int:
    if name not in ensemble.class_names:
        raise UsageError(
            f"Unknown class '{name}'",
            f"the classes are {', '.join(ensemble.class_names)}",
            did_you_mean(name, ensemble.class_names),
        )
    return ensemble.class_names.index(name)


def _pictures(tiles: Tiles) -> npt.NDArray[np.uint8]:
    """The pictures for display. For pairs in six channels: the first image."""
    return np.ascontiguousarray(tiles.pixels[..., :3])


def _joined(parts: Sequence[Explanation]) -> Explanation:
    first = parts[0]
    return Explanation(
        predictions=joined([one.predictions for one in parts]),
        method=first.method,
        explained=np.concatenate([one.explained for one in parts]),
        maps=np.concatenate([one.maps for one in parts]),
        ensemble=np.concatenate([one.ensemble for one in parts]),
        signed=np.concatenate([one.signed for one in parts]),
        disagreement=np.concatenate([one.disagreement for one in parts]),
        directions=np.concatenate([one.directions for one in parts]),
        replaced=np.concatenate([one.replaced for one in parts]),
        cells=first.cells,
        pictures=np.concatenate([one.pictures for one in parts]),
    )
