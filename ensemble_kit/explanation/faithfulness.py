"""Faithfulness of a map: deletion and insertion curves of the ensemble's probability.

Deletion covers the most important pixels with white, insertion uncovers them on white. Baselines are
a random map and a spot in the centre.

References
----------
Petsiuk, V., Das, A., & Saenko, K. (2018). RISE. BMVC.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.explanation.fuse import on_grid
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.seeding import generator

# Proportions of changed pixels.
SHARES = np.linspace(0.0, 1.0, 11)
RANDOM, CENTRE, ENSEMBLE = "random map", "centre", "ensemble"
# Cells per side of a random map, as in Grad-CAM at 224 pixels.
RANDOM_CELLS = 7


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """The probability of the explained class while pixels are deleted or inserted by one map.

    Parameters
    ----------
    deletion, insertion : array, shape (len(SHARES),)
    """

    deletion: Array
    insertion: Array


def area(curve: Array) -> float:
    """The area under a curve over `SHARES`, by trapezoids, 0 to 1.

    A faithful map has a small deletion area and a large insertion area.
    """
    return float(np.trapezoid(curve, SHARES))


def with_baselines(maps: Mapping[str, Array], seed_name: str) -> dict[str, Array]:
    """Maps (height, width) by name, with a random map and a spot in the centre added.

    Parameters
    ----------
    seed_name : str
        The image's name. The same image gets the same random map.
    """
    height, width = next(iter(maps.values())).shape
    cells = generator(0, "random-map", seed_name).random((1, RANDOM_CELLS, RANDOM_CELLS))
    y, x = np.mgrid[0:height, 0:width]
    distance = ((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2
    return {**maps, RANDOM: on_grid(cells, (height, width))[0], CENTRE: np.exp(-distance / 0.1)}


def curves(
    ensemble: Ensemble,
    tiles: Mapping[TileSpec, Tiles],
    maps: Mapping[str, Array],
    explained: int,
    *,
    seed_name: str = "",
) -> dict[str, Curves]:
    """Deletion and insertion curves of one image, for each of several maps.

    All steps go through the networks in one batch.

    Parameters
    ----------
    tiles : mapping of TileSpec to Tiles
        Tiles of the image, one row each.
    maps : mapping of name to array, shape (height, width)
    explained : int
        The class of the probability.
    """
    names = list(maps)
    ranks = {name: _ranks(maps[name], f"{seed_name}/{name}") for name in names}
    inner = SHARES[1:-1]
    wanted = [
        (name, kind, s) for name in names for kind in ("deletion", "insertion") for s in inner
    ]
    # All curves start and end at the image and the white image, which are predicted once.
    whole = np.zeros_like(next(iter(ranks.values())), dtype=np.bool_)
    covered = [whole, ~whole, *(_covered(ranks[name], kind, s) for name, kind, s in wanted)]
    rows = {spec: _with_white(one, covered) for spec, one in tiles.items()}
    proba = ensemble.stored.combine(ensemble.member_logits(rows)).proba[:, explained]
    image, white = proba[:2]
    steps = proba[2:].reshape(len(names), 2, len(inner))
    return {
        name: Curves(np.r_[image, falling, white], np.r_[white, rising, image])
        for name, (falling, rising) in zip(names, steps, strict=True)
    }


def _ranks(found: Array, seed_name: str) -> npt.NDArray[np.float64]:
    """Proportion of pixels that are more important than each pixel. Ties are in random order."""
    flat = np.asarray(found, dtype=np.float64).ravel()
    chance = generator(0, "ties", seed_name).random(len(flat))
    ranks = np.empty(len(flat))
    ranks[np.lexsort((chance, -flat))] = np.arange(len(flat)) / len(flat)
    return ranks.reshape(found.shape)


def _covered(ranks: Array, kind: str, share: float) -> npt.NDArray[np.bool_]:
    return ranks < share if kind == "deletion" else ranks >= share


def _with_white(tiles: Tiles, covered: list[npt.NDArray[np.bool_]]) -> Tiles:
    """A copy of the image for each mask, white inside the mask."""
    pixels = tiles.pixels[0]
    height, width = pixels.shape[:2]
    out = np.repeat(pixels[None], len(covered), axis=0)
    for row, mask in zip(out, covered, strict=True):
        rows = np.arange(height) * mask.shape[0] // height
        columns = np.arange(width) * mask.shape[1] // width
        row[mask[rows[:, None], columns[None]]] = 255
    ids = np.array([str(i) for i in range(len(out))])
    return Tiles(out, ids, "", tiles.image_size)
