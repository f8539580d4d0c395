"""Builds the tile of one sample: a single image, one stain of a pair, or both stains joined."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.images.decode import read_image
from ensemble_kit.images.resize import resize
from ensemble_kit.images.stain_normalization import METHODS, normalise, refuse_ihc
from ensemble_kit.images.strips import strips
from ensemble_kit.manifest.table import Manifest

JOINS = ("none", "side", "stack", "channels")
COLORS = ("rgb", "grayscale")
STAINS = ("he", "ihc")


@dataclasses.dataclass(frozen=True)
class TileSpec:
    """The settings of a set of tiles.

    Parameters
    ----------
    image_size : int
        Pixels, square.
    stain : {"he", "ihc"}, optional
        Use one image of each pair. Default: as in the manifest.
    stain_norm : {"none", "macenko", "reinhard"}, optional
        Stain normalisation. Default: as in the manifest.
    """

    image_size: int
    stain: str | None = None
    stain_norm: str | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The images of one sample, and how they are joined.

    Parameters
    ----------
    path, pair_path : str
        Paths of the images; `pair_path` is empty for single images.
    join : {"none", "side", "stack", "channels"}
        `side`: left and right, twice as wide. `stack`: both squeezed to half the width, left and
        right in one square. `channels`: six channels.
    color : {"rgb", "grayscale"}
        Grayscale has three equal channels (ITU-R 601 luma), so that any network fits.
    stain_norm : {"none", "macenko", "reinhard"}
        See `ensemble_kit.images.stain_normalization`; applied first.
    """

    path: str
    pair_path: str = ""
    join: str = "none"
    color: str = "rgb"
    stain_norm: str = "none"

    def shape(self, image_size: int) -> tuple[int, int, int]:
        """Height, width and channels of the tile."""
        wide = 2 * image_size if self.join == "side" else image_size
        return image_size, wide, 6 if self.join == "channels" else 3


def recipes(
    manifest: Manifest, *, stain: str | None = None, stain_norm: str | None = None
) -> list[Recipe]:
    """One layout per row, from the columns `path` and, if present, `pair_path, join, color, stain_norm`.

    Parameters
    ----------
    stain : {"he", "ihc"}, optional
        Use only this image of each pair.
    stain_norm : {"none", "macenko", "reinhard"}, optional
        Replaces the value of the manifest.

    Raises
    ------
    DataError
        A value is unknown, rows are joined differently, a pair has no partner, one stain is chosen
        for single images, or IHC would be normalised.
    """
    table = manifest.table
    join = _single(manifest, "join", "none", JOINS)
    color = _single(manifest, "color", "rgb", COLORS)
    norm = stain_norm or _single(manifest, "stain_norm", "none", METHODS)
    pairs = (
        table["pair_path"].astype(str).tolist()
        if join != "none" and "pair_path" in table
        else [""] * len(table)
    )
    if join != "none" and not all(pairs):
        raise DataError(
            f"{pairs.count('')} of {len(table)} samples have no partner image",
            "both stains of each sample are needed to join them",
            "Fill the column pair_path",
        )
    paths = table["path"].tolist()
    if stain is not None:
        _refuse_no_pairs(manifest, join, stain)
        paths, pairs, join = (paths if stain == "he" else pairs), [""] * len(table), "none"
    if stain_norm is not None:
        refuse_ihc(manifest, norm, stain)
    return [Recipe(path, pair, join, color, norm) for path, pair in zip(paths, pairs, strict=True)]


def tile_shape(manifest: Manifest, spec: TileSpec) -> tuple[int, int, int]:
    """Height, width and channels of the tiles that `spec` gives, without building them.

    Raises
    ------
    DataError
        The manifest does not have these images.
    """
    first = manifest.take(np.arange(1))
    layout = recipes(first, stain=spec.stain, stain_norm=spec.stain_norm)[0]
    return layout.shape(spec.image_size)


def render(
    root: str | os.PathLike[str], tiles: Sequence[tuple[Recipe, int]], *, crop: str = "squash"
) -> list[npt.NDArray[np.uint8]]:
    """Tiles of one sample, one for each layout and size; every file is decoded once.

    Returns
    -------
    list of array of uint8, shape (height, width, channels)
        Each has `recipe.shape` and is resized from the original.
    """
    return laid_out(lambda path: read_image(root, path), tiles, crop=crop)


def laid_out(
    read: Callable[[str], npt.NDArray[np.uint8]],
    tiles: Sequence[tuple[Recipe, int]],
    *,
    crop: str = "squash",
) -> list[npt.NDArray[np.uint8]]:
    """Like `render`, with images that `read` returns for their path; each is read once."""
    decoded: dict[str, npt.NDArray[np.uint8]] = {}
    made: dict[tuple[str, str, str], npt.NDArray[np.uint8]] = {}

    def image(path: str, recipe: Recipe) -> npt.NDArray[np.uint8]:
        key = path, recipe.stain_norm, recipe.color
        if key not in made:
            if path not in decoded:
                decoded[path] = read(path)
            made[key] = colored(normalise(decoded[path], recipe.stain_norm), recipe.color)
        return made[key]

    out = []
    for recipe, size in tiles:
        paths = [recipe.path] if recipe.join == "none" else [recipe.path, recipe.pair_path]
        try:
            out.append(_joined([image(path, recipe) for path in paths], recipe.join, size, crop))
        except MemoryError as error:
            raise MemoryError(f"'{recipe.path}': {error or 'no memory is left'}") from error
    return out


def colored(image: npt.NDArray[np.uint8], color: str) -> npt.NDArray[np.uint8]:
    """`image` as it is, or as three equal channels of its luma."""
    if color == "rgb":
        return image
    out = np.empty_like(image)
    for rows in strips(*image.shape[:2]):
        luma = image[rows].astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        out[rows] = np.rint(luma).astype(np.uint8)[:, :, None]
    return out


def _joined(
    images: list[npt.NDArray[np.uint8]], join: str, size: int, crop: str
) -> npt.NDArray[np.uint8]:
    if join == "none":
        return resize(images[0], size, size, crop=crop)
    if join == "stack":
        halves = (size - size // 2, size // 2)
        squeezed = [resize(image, size, width) for image, width in zip(images, halves, strict=True)]
        return np.concatenate(squeezed, axis=1)
    full = [resize(image, size, size, crop=crop) for image in images]
    return np.concatenate(full, axis=1 if join == "side" else 2)


def _refuse_no_pairs(manifest: Manifest, join: str, stain: str) -> None:
    if stain not in STAINS:
        raise UsageError(
            f"Unknown stain '{stain}'",
            f"the stains of a pair are {' and '.join(STAINS)}",
            did_you_mean(stain, STAINS),
        )
    if join == "none":
        raise DataError(
            f"stain='{stain}' was given, but the samples of {manifest.name} are single images",
            "a stain can be chosen if samples are pairs of H&E and IHC",
            "Read the data with both stains (--stain both), or remove the member's stain",
        )


def _single(manifest: Manifest, column: str, default: str, known: tuple[str, ...]) -> str:
    words = (
        sorted(set(manifest.table[column].astype(str))) if column in manifest.table else [default]
    )
    if len(words) != 1 or words[0] not in known:
        raise DataError(
            f"The column '{column}' holds {', '.join(map(repr, words[:4]))}",
            f"it must hold one of {', '.join(known)}, the same in every row",
            did_you_mean(words[0] if words else "", known),
        )
    return words[0]
