"""Tiles: every image decoded and resized once, as one memory-mapped uint8 array on disk.

Does not know labels, folds or members; all of them share the array.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault, UsageError
from ensemble_kit.files import digest_file, digest_json, read_json, write_json
from ensemble_kit.images.digests import map_images, refuse_faults, with_digests
from ensemble_kit.images.join import Recipe, recipes, render
from ensemble_kit.images.resize import check_crop
from ensemble_kit.manifest.table import Manifest

# Raise it when decoding or resizing changes a single pixel: old caches are then left alone.
VERSION = 1
MAX_CACHE_BYTES = 64 * 2**30
_CHUNK = 256
_ABANDONED_SECONDS = 6 * 3600


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
    """Decoded and resized images.

    Parameters
    ----------
    pixels : array of uint8, shape (n_samples, height, width, channels)
        Read-only, memory-mapped. Height and width are `image_size`, but for pairs joined side by
        side, which are twice as wide. Channels are 3, or 6 for pairs kept apart.
    sample_ids : array of str, shape (n_samples,)
    digest : str
        SHA-256 of what went in: file digests, size, crop, colour and joining rules.
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
            Ids that have no tile.
        """
        where = {name: i for i, name in enumerate(self.sample_ids.tolist())}
        wanted = np.asarray(sample_ids).tolist()
        missing = [name for name in wanted if name not in where]
        if missing:
            raise DataError(
                "Every sample has a tile",
                f"{len(missing)} of {len(wanted)} have none (first: {missing[0]})",
                "Build the tiles from the same manifest: build_tiles(manifest, image_size)",
            )
        return np.array([where[name] for name in wanted], dtype=np.int64)


def build_tiles(
    manifest: Manifest,
    image_size: int,
    *,
    cache_dir: str | os.PathLike[str],
    crop: str = "squash",
    progress: Callable[[int, int], None] | None = None,
    max_cache_bytes: int = MAX_CACHE_BYTES,
) -> Tiles:
    """The tiles of `manifest`, decoded now or found in `cache_dir`.

    Each image is decoded whole and resized once, antialiased bicubic. The cache is keyed by the
    files' digests, size, crop and colour rules, so changed data never meets an old tile; it is
    checked by its own digest whenever it is opened, and built again if damaged. Of two processes
    that need the same tiles, one builds and the other waits.

    Parameters
    ----------
    manifest : Manifest
    image_size : int
        Pixels, square.
    cache_dir : path
    crop : {"squash", "center", "pad"}
        See `ensemble_kit.images.resize.resize`.
    progress : callable or None
        Called with (images done, images in all).
    max_cache_bytes : int
        The least recently used other caches are deleted beyond this.

    Returns
    -------
    Tiles
        Rows in the manifest's order.

    Raises
    ------
    DataError
        Unreadable images, all of them, by path.
    EnvironmentFault
        Not enough disk.
    """
    return build_tile_sets(
        manifest,
        [image_size],
        cache_dir=cache_dir,
        crop=crop,
        progress=progress,
        max_cache_bytes=max_cache_bytes,
    )[image_size]


def build_tile_sets(
    manifest: Manifest,
    image_sizes: Sequence[int],
    *,
    cache_dir: str | os.PathLike[str],
    crop: str = "squash",
    progress: Callable[[int, int], None] | None = None,
    max_cache_bytes: int = MAX_CACHE_BYTES,
) -> dict[int, Tiles]:
    """Tiles of several sizes from one decoding: each is resized from the original.

    Parameters as for `build_tiles`; each set equals what `build_tiles` gives for its size.
    """
    check_crop(crop)
    sizes = sorted(set(image_sizes), reverse=True)
    if not sizes or sizes[-1] < 8:
        raise UsageError(
            "Tiles have at least 8 pixels a side", f"got {image_sizes}", "Use e.g. --image-size 224"
        )
    if "sha256" not in manifest.table:
        manifest = with_digests(manifest)
    made = recipes(manifest)
    folder = Path(cache_dir)
    keys = {size: _key(manifest, made, size, crop) for size in sizes}
    _make_folder(folder)
    with FileLock(folder / f"{digest_json(sorted(keys.values()))[:20]}.lock"):
        found = {size: _open(folder, keys[size], size) for size in sizes}
        missing = [size for size in sizes if found[size] is None]
        if missing:
            _build(manifest, made, {size: keys[size] for size in missing}, folder, crop, progress)
            found.update({size: _open(folder, keys[size], size) for size in missing})
    prune_cache(folder, max_bytes=max_cache_bytes, keep=set(keys.values()))
    return {size: tiles for size, tiles in found.items() if tiles is not None}


def prune_cache(
    cache_dir: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_CACHE_BYTES,
    keep: set[str] | None = None,
) -> int:
    """Delete the least recently used tiles until `max_bytes` are left; bytes that were freed."""
    records = sorted(Path(cache_dir).glob("tiles-*.json"), key=lambda p: p.stat().st_mtime)
    sizes = {
        p: p.with_suffix(".npy").stat().st_size for p in records if p.with_suffix(".npy").exists()
    }
    excess, freed = sum(sizes.values()) - max_bytes, 0
    for record, size in sizes.items():
        if freed >= excess:
            break
        if record.stem.removeprefix("tiles-") not in (keep or set()):
            # The record goes first: without it the array is no cache.
            record.unlink(missing_ok=True)
            record.with_suffix(".npy").unlink(missing_ok=True)
            freed += size
    return freed


def _key(manifest: Manifest, made: list[Recipe], size: int, crop: str) -> str:
    rows = [
        [i, sha, *dataclasses.astuple(recipe)[2:]]
        for i, sha, recipe in zip(
            manifest.table["sample_id"], manifest.table["sha256"], made, strict=True
        )
    ]
    return digest_json({"version": VERSION, "rows": rows, "image_size": size, "crop": crop})


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            "Decoded images need a cache folder",
            f"'{folder}': {error.strerror}",
            "Choose another one",
        ) from error


def _open(folder: Path, key: str, size: int) -> Tiles | None:
    record = folder / f"tiles-{key}.json"
    if not record.exists():
        return None
    try:
        about = read_json(record)
        if digest_file(record.with_suffix(".npy")) != about["sha256"]:
            return None
        pixels = np.load(record.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        ids = np.array(about["sample_ids"], dtype=np.str_)
        now = time.time()
        os.utime(record, (now, now))
    except (EnsembleKitError, OSError, ValueError, KeyError, TypeError):
        return None
    return Tiles(pixels, ids, key, size)


def _build(
    manifest: Manifest,
    made: list[Recipe],
    keys: dict[int, str],
    folder: Path,
    crop: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    _sweep(folder)
    arrays: dict[int, Any] = {}
    part = {size: folder / f".tiles-{key}.{os.getpid()}.part" for size, key in keys.items()}
    try:
        for size in keys:
            shape = (len(made), *made[0].shape(size))
            _refuse_full_disk(folder, int(np.prod(shape)))
            arrays[size] = np.lib.format.open_memmap(
                part[size], mode="w+", dtype=np.uint8, shape=shape
            )
        _fill(manifest.root, made, arrays, crop, progress)
        for size, key in keys.items():
            _publish(arrays.pop(size), part[size], folder / f"tiles-{key}.npy", manifest, key)
    except OSError as error:
        raise EnvironmentFault(
            "Decoded images need room in the cache folder",
            f"'{folder}': {error.strerror}",
            "Make room, run again",
        ) from error
    finally:
        for leftover in part.values():
            leftover.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    # What a killed build left. By age, not by process: the folder may be shared between machines.
    for leftover in folder.glob(".tiles-*.part"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
            leftover.unlink(missing_ok=True)


def _fill(
    root: Path,
    made: list[Recipe],
    arrays: dict[int, Any],
    crop: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    faults: dict[int, DataError] = {}
    sizes = list(arrays)
    for start in range(0, len(made), _CHUNK):
        chunk = made[start : start + _CHUNK]

        def decode(recipe: Recipe) -> list[npt.NDArray[np.uint8]]:
            return render(root, recipe, sizes, crop=crop)

        def count(done: int, _: int, before: int = start) -> None:
            if progress is not None:
                progress(before + done, len(made))

        images, failed = map_images(decode, chunk, progress=count)
        faults.update({start + i: error for i, error in failed.items()})
        for i, rendered in enumerate(images):
            for size, tile in zip(sizes, rendered or (), strict=False):
                arrays[size][start + i] = tile
    refuse_faults(faults, len(made))


def _publish(array: Any, part: Path, target: Path, manifest: Manifest, key: str) -> None:
    array.flush()
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    digest = digest_file(part)
    part.replace(target)
    write_json(
        target.with_suffix(".json"),
        {
            "version": VERSION,
            "key": key,
            "sha256": digest,
            "shape": list(array.shape),
            "sample_ids": manifest.table["sample_id"].tolist(),
        },
    )


def _refuse_full_disk(folder: Path, needed: int) -> None:
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize
    if needed > free - 64 * 2**20:
        raise EnvironmentFault(
            "Decoded images need room in the cache folder",
            f"{needed / 2**20:.0f} MiB are needed, {free / 2**20:.0f} MiB are free in '{folder}'",
            "Make room, choose another cache folder, or use a smaller --image-size",
        )
