"""Tiles of new images, in memory. Each image is decoded once for all members.

The tiles are laid out in the same way as in training (`images.tiles.layout`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.images.digests import map_images, refuse_lack_of_memory
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec, laid_out, recipes
from ensemble_kit.inference.sources import Source
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import CROP

# Number of images in memory at once. A killed prediction loses at most one block.
BLOCK = 64


@dataclasses.dataclass(frozen=True, eq=False)
class TileBlock:
    """Tiles of the readable images of a block.

    Parameters
    ----------
    good : array of int, shape (n_good,)
        Positions of the readable images in the block.
    tiles : mapping of TileSpec to Tiles
        Rows in the order of `good`.
    faults : mapping of position to error
    """

    good: npt.NDArray[np.int64]
    tiles: Mapping[TileSpec, Tiles]
    faults: Mapping[int, EnsembleKitError]


def tile_block(
    manifest: Manifest, sources: Sequence[Source], specs: Sequence[TileSpec]
) -> TileBlock:
    """Decode and lay out images with the settings of a run's data.

    Parameters
    ----------
    manifest : Manifest
        The run's manifest, with the settings of pairs, color and stain normalization.
    sources : sequence of Source
    specs : sequence of TileSpec
        Size and settings of each member's tiles.

    Raises
    ------
    DataError
        The run's samples are pairs and the images are not.
    EnvironmentFault
        An image does not fit into memory.
    """
    like = manifest.take(np.zeros(len(sources), dtype=np.int64)).with_columns(
        path=[one.path for one in sources], pair_path=[one.pair_path for one in sources]
    )
    wanted = list(dict.fromkeys(specs))
    plans = [recipes(like, stain=spec.stain, stain_norm=spec.stain_norm) for spec in wanted]
    sizes = [spec.image_size for spec in wanted]
    jobs = [
        (source, list(zip(row, sizes, strict=True)))
        for source, row in zip(sources, zip(*plans, strict=True), strict=True)
    ]
    rendered, faults = map_images(lambda one: laid_out(one[0].read, one[1], crop=CROP), jobs)
    refuse_lack_of_memory(faults)
    good = np.array([i for i in range(len(sources)) if i not in faults], dtype=np.int64)
    ids = np.array([str(i) for i in good], dtype=np.str_)
    readable = [one for one in rendered if one is not None]
    tiles = {
        spec: Tiles(np.stack([one[s] for one in readable]), ids, "", spec.image_size)
        for s, spec in enumerate(wanted)
        if readable
    }
    return TileBlock(good, tiles, faults)


def in_blocks(sources: Sequence[Source], start: int = 0) -> Iterator[Sequence[Source]]:
    """Blocks of sources from position `start`, a multiple of `BLOCK`."""
    for first in range(start, len(sources), BLOCK):
        yield sources[first : first + BLOCK]
