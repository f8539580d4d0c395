"""The cache of tiles on disk: opened with its digest checked, published whole, bounded, swept.

Does not decode; an array and its sample ids go in, the same come out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import EnsembleKitError, EnvironmentFault
from ensemble_kit.files import digest_file, read_json, write_json

# Raise it when decoding or resizing changes a single pixel: old caches are then left alone.
VERSION = 2
MAX_CACHE_BYTES = 64 * 2**30
_ABANDONED_SECONDS = 6 * 3600

Stored = tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]


def make_folder(folder: Path) -> None:
    """Create the cache folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            "Decoded images need a cache folder",
            f"'{folder}': {error.strerror}",
            "Choose another one",
        ) from error


def open_tiles(folder: Path, key: str) -> Stored | None:
    """The pixels (memory-mapped) and sample ids under `key`; None where absent or damaged."""
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
    return pixels, ids


def publish(array: Any, part: Path, target: Path, sample_ids: list[str], key: str) -> None:
    """Put a filled array in place; its record comes last, and makes it a cache."""
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
            "sample_ids": sample_ids,
        },
    )


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


def sweep(folder: Path) -> None:
    """Delete what killed builds left."""
    # By age, not by process: the folder may be shared between machines.
    for leftover in folder.glob(".tiles-*.part"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
            leftover.unlink(missing_ok=True)


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Refuse to start a build of `needed` bytes that cannot end."""
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize
    if needed > free - 64 * 2**20:
        raise EnvironmentFault(
            "Decoded images need room in the cache folder",
            f"{needed / 2**20:.0f} MiB are needed, {free / 2**20:.0f} MiB are free in '{folder}'",
            "Make room, choose another cache folder, or use a smaller --image-size",
        )
