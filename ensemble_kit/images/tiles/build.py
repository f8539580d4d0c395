"""Tiles: every image decoded and resized once, as one memory-mapped uint8 array on disk.

All members, folds and labels share this array.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, EnsembleKitError, UsageError
from ensemble_kit.files import digest_json
from ensemble_kit.images.digests import map_images, refuse_faults, with_digests
from ensemble_kit.images.resize import check_crop
from ensemble_kit.images.tiles.cache import (
    MAX_CACHE_BYTES,
    VERSION,
    NewTiles,
    make_folder,
    open_tiles,
    prune_cache,
    sweep,
)
from ensemble_kit.images.tiles.layout import Recipe, TileSpec, recipes, render
from ensemble_kit.locks import file_lock
from ensemble_kit.manifest.table import Manifest

_CHUNK = 256
# A layout per sample, and the size of its tile.
Plan = tuple[list[Recipe], int]


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
    """Decoded and resized images.

    Parameters
    ----------
    pixels : array of uint8, shape (n_samples, height, width, channels)
        Read-only, memory-mapped. Height and width are `image_size`; pairs joined side by side are
        twice as wide. Channels are 3, or 6 for pairs joined by channels.
    sample_ids : array of str, shape (n_samples,)
    digest : str
        SHA-256 of the inputs: file digests, size, crop, colour and joining rules.
    image_size : int
        Pixels.
    """

    pixels: npt.NDArray[np.uint8]
    sample_ids: npt.NDArray[np.str_]
    digest: str
    image_size: int

    def __len__(self) -> int:
        return len(self.sample_ids)

    def rows(self, sample_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Positions of `sample_ids` in `pixels`, shape (n,).

        Raises
        ------
        DataError
            An id has no tile.
        """
        where = {name: i for i, name in enumerate(self.sample_ids.tolist())}
        wanted = np.asarray(sample_ids).tolist()
        missing = [name for name in wanted if name not in where]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(wanted)} samples have no tile (first: {missing[0]})",
                "each sample needs one",
                "Build the tiles from the same manifest: build_tiles(manifest, image_size)",
            )
        return np.array([where[name] for name in wanted], dtype=np.int64)


def build_tiles(
    manifest: Manifest,
    image_size: int,
    *,
    cache_dir: str | os.PathLike[str],
    stain: str | None = None,
    stain_norm: str | None = None,
    crop: str = "squash",
    progress: Callable[[int, int], None] | None = None,
    max_cache_bytes: int = MAX_CACHE_BYTES,
) -> Tiles:
    """The tiles of `manifest`, decoded or taken from `cache_dir`.

    Each image is decoded whole and resized once, antialiased bicubic. The cache is keyed by the
    files' digests, size, crop and colour rules, so changed data get new tiles. It is checked by its
    own digest when it is opened, and built again if damaged. If two processes need the same tiles,
    one builds them and the other waits.

    Parameters
    ----------
    manifest : Manifest
    image_size : int
        Pixels, square.
    cache_dir : path
    stain, stain_norm : str, optional
        See `ensemble_kit.images.tiles.layout.TileSpec`.
    crop : {"squash", "center", "pad"}
        See `ensemble_kit.images.resize.resize`.
    progress : callable or None
        Called with (images done, total number of images).
    max_cache_bytes : int
        The least recently used other caches are deleted beyond this.

    Returns
    -------
    Tiles
        Rows in the manifest's order.

    Raises
    ------
    DataError
        Images are unreadable; the message names all of them.
    EnvironmentFault
        There is not enough disk space.
    """
    spec = TileSpec(image_size, stain, stain_norm)
    return build_tile_sets(
        manifest,
        [spec],
        cache_dir=cache_dir,
        crop=crop,
        progress=progress,
        max_cache_bytes=max_cache_bytes,
    )[spec]


def build_tile_sets(
    manifest: Manifest,
    specs: Sequence[TileSpec],
    *,
    cache_dir: str | os.PathLike[str],
    crop: str = "squash",
    progress: Callable[[int, int], None] | None = None,
    max_cache_bytes: int = MAX_CACHE_BYTES,
) -> dict[TileSpec, Tiles]:
    """Several sets of tiles: each image is decoded once and resized from the original.

    Parameters as for `build_tiles`; each set is equal to that of `build_tiles`.
    """
    check_crop(crop)
    wanted = sorted(set(specs), key=lambda s: -s.image_size)
    if not wanted or wanted[-1].image_size < 8:
        raise UsageError(
            f"Image size {[s.image_size for s in specs]} is too small",
            "tiles need at least 8 pixels per side",
            "Use e.g. --image-size 224",
        )
    if "sha256" not in manifest.table:
        manifest = with_digests(manifest)
    made = {
        spec: recipes(manifest, stain=spec.stain, stain_norm=spec.stain_norm) for spec in wanted
    }
    folder = Path(cache_dir)
    keys = {spec: _key(manifest, made[spec], spec, crop) for spec in wanted}
    needed = {key: spec for spec, key in keys.items()}
    make_folder(folder)
    with file_lock(folder / f"{digest_json(sorted(needed))[:20]}.lock"):
        found = {key: open_tiles(folder, key) for key in needed}
        missing = {key: spec for key, spec in needed.items() if found[key] is None}
        if missing:
            plans = {key: (made[spec], spec.image_size) for key, spec in missing.items()}
            _build(manifest, plans, folder, crop, progress)
            found.update({key: open_tiles(folder, key) for key in missing})
    prune_cache(folder, max_bytes=max_cache_bytes, keep=set(needed))
    opened = {
        key: Tiles(*stored, key, needed[key].image_size)
        for key, stored in found.items()
        if stored is not None
    }
    return {spec: opened[key] for spec, key in keys.items()}


def _key(manifest: Manifest, made: list[Recipe], spec: TileSpec, crop: str) -> str:
    rows = [
        [i, sha, *dataclasses.astuple(recipe)[2:]]
        for i, sha, recipe in zip(
            manifest.table["sample_id"], manifest.table["sha256"], made, strict=True
        )
    ]
    # The digest of a pair covers both files, so the stain must be part of the key.
    stain = {"stain": spec.stain} if spec.stain else {}
    return digest_json(
        {"version": VERSION, "rows": rows, "image_size": spec.image_size, "crop": crop, **stain}
    )


def _build(
    manifest: Manifest,
    plans: dict[str, Plan],
    folder: Path,
    crop: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    sweep(folder)
    new: dict[str, NewTiles] = {}
    try:
        for key, (made, size) in plans.items():
            new[key] = NewTiles(folder, key, (len(made), *made[0].shape(size)))
        _fill(manifest.root, plans, new, crop, progress)
        for tiles in new.values():
            tiles.publish(manifest.table["sample_id"].tolist())
    finally:
        for tiles in new.values():
            tiles.discard()


def _fill(
    root: Path,
    plans: dict[str, Plan],
    new: dict[str, NewTiles],
    crop: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    faults: dict[int, EnsembleKitError] = {}
    samples = [
        [(recipe, size) for recipe, (_, size) in zip(row, plans.values(), strict=True)]
        for row in zip(*(made for made, _ in plans.values()), strict=True)
    ]
    for start in range(0, len(samples), _CHUNK):

        def decode(tiles: list[tuple[Recipe, int]]) -> list[npt.NDArray[np.uint8]]:
            return render(root, tiles, crop=crop)

        def count(done: int, _: int, before: int = start) -> None:
            if progress is not None:
                progress(before + done, len(samples))

        images, failed = map_images(decode, samples[start : start + _CHUNK], progress=count)
        faults.update({start + i: error for i, error in failed.items()})
        for rendered in images if not faults else ():
            for tiles, tile in zip(new.values(), rendered or (), strict=True):
                tiles.append(tile)
    refuse_faults(faults, len(samples))
