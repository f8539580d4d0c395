"""Contact sheets: the images of a data set, with augmentation or as a network's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from ensemble_kit.images.augmentation.augment import Augmentation, augment_batch
from ensemble_kit.images.augmentation.color_space import color_statistics
from ensemble_kit.images.tiles.layout import TileSpec, recipes, render
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.seeding import derive_seed, generator

Pixels = npt.NDArray[np.uint8]
GAP = 4
TEXT_HEIGHT = 16


def class_sheet(
    manifest: Manifest, *, n_columns: int = 8, tile: int = 128, seed: int = 0
) -> Pixels:
    """One row per class, with images of different groups if possible.

    Parameters
    ----------
    manifest : Manifest
    n_columns : int
        Images per class.
    tile : int
        Pixels.
    seed : int

    Returns
    -------
    array of uint8, shape (height, width, 3)
    """
    rng = generator(seed, "sheet")
    rows, titles = [], []
    for c, name in enumerate(manifest.class_names):
        picked = _spread(np.flatnonzero(manifest.labels == c), manifest.groups, n_columns, rng)
        rows.append([_picture(t) for t in _tiles(manifest, picked, tile)])
        titles.append(f"{name} ({int((manifest.labels == c).sum())} images)")
    return grid(rows, titles)


def augmentation_sheet(
    manifest: Manifest,
    augmentation: Augmentation,
    *,
    n_rows: int = 5,
    n_columns: int = 8,
    tile: int = 128,
    seed: int = 0,
) -> Pixels:
    """One row per image: the original, then random augmentations.

    Parameters as for `class_sheet`; `n_columns` counts the original too.
    """
    rng = generator(seed, "sheet")
    picked = _spread(np.arange(len(manifest)), manifest.groups, n_rows, rng)
    rows, titles = [], []
    for row, pixels in zip(picked, _tiles(manifest, picked, tile), strict=True):
        batch = torch.from_numpy(np.repeat(pixels[None], n_columns - 1, axis=0))
        draws = torch.Generator().manual_seed(derive_seed(seed, "sheet", int(row)))
        out = augment_batch(batch, augmentation, generator=draws, mean=[0.0] * 3, std=[1.0] * 3)
        made = (out.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
        rows.append([_picture(pixels), *(_picture(m) for m in made)])
        titles.append(f"{manifest.table['label'][row]}  {manifest.sample_ids[row]}")
    return grid(rows, titles)


def input_sheet(
    manifest: Manifest,
    inputs: Mapping[str, tuple[TileSpec, str]],
    *,
    n_columns: int = 8,
    tile: int = 128,
    seed: int = 0,
) -> Pixels:
    """One row per input, one column per image: the images as a network gets them.

    Parameters
    ----------
    inputs : mapping of title to (TileSpec, colour space)
        Channels of other colour spaces are shown as red, green and blue, from three standard
        deviations below their mean to three above it.
    """
    rng = generator(seed, "sheet")
    picked = _spread(np.arange(len(manifest)), manifest.groups, n_columns, rng)
    some = manifest.take(np.asarray(picked))
    rows = []
    for spec, color in inputs.values():
        plans = recipes(some, stain=spec.stain, stain_norm=spec.stain_norm)
        tiles = [render(some.root, [(p, spec.image_size)])[0] for p in plans]
        rows.append([_enlarged(_picture(_in_color(t, color)), tile) for t in tiles])
    return grid(rows, list(inputs))


def _in_color(tile: Pixels, color: str) -> Pixels:
    if color == "rgb":
        return tile
    batch = torch.from_numpy(tile[None].copy())
    mean, std = color_statistics(color, [0.5] * 3, [1 / 6] * 3)
    draws = torch.Generator()
    values = augment_batch(batch, None, generator=draws, mean=mean, std=std, color=color)[0]
    pixels = ((values / 6 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    if color == "grayscale":
        pixels = pixels.repeat_interleave(3, dim=0)
    return pixels.permute(1, 2, 0).numpy()


def _enlarged(picture: Pixels, height: int) -> Pixels:
    width = round(height * picture.shape[1] / picture.shape[0])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def grid(rows: Sequence[Sequence[Pixels]], titles: Sequence[str]) -> Pixels:
    """Rows of pictures of the same size, with a title above each row."""
    height, width = rows[0][0].shape[:2]
    n_columns = max(len(row) for row in rows)
    step = height + GAP + TEXT_HEIGHT
    canvas = Image.new("RGB", (GAP + n_columns * (width + GAP), GAP + len(rows) * step), "white")
    draw = ImageDraw.Draw(canvas)
    for r, (row, title) in enumerate(zip(rows, titles, strict=True)):
        draw.text((GAP, GAP + r * step), title, fill="black")
        for c, picture in enumerate(row):
            canvas.paste(
                Image.fromarray(picture), (GAP + c * (width + GAP), GAP + r * step + TEXT_HEIGHT)
            )
    return np.asarray(canvas)


def _picture(tile: Pixels) -> Pixels:
    """A tile as a picture: six channels become two pictures side by side."""
    return tile if tile.shape[2] == 3 else np.concatenate([tile[..., :3], tile[..., 3:]], axis=1)


def _spread(
    rows: npt.NDArray[np.int64], groups: npt.NDArray[np.str_], n: int, rng: np.random.Generator
) -> list[int]:
    """Up to `n` rows, of different groups as far as possible."""
    shuffled = rng.permutation(rows)
    seen: dict[str, int] = {}
    turn = []
    for row in shuffled.tolist():
        name = str(groups[row])
        turn.append((seen.get(name, 0), row))
        seen[name] = seen.get(name, 0) + 1
    turn.sort(key=lambda pair: pair[0])
    return [row for _, row in turn[:n]]


def _tiles(manifest: Manifest, rows: Sequence[int], tile: int) -> list[Pixels]:
    return [
        render(manifest.root, [(recipe, tile)])[0]
        for recipe in recipes(manifest.take(np.asarray(rows)))
    ]
