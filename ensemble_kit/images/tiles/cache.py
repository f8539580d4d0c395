"""The cache of tiles on disk: checked by digest, written as a whole, limited in size."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import EnsembleKitError, EnvironmentFault, disk_fault
from ensemble_kit.files import digest_file, read_json, write_json

# Increase it with every change of decoding or resizing: older caches are then not used.
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
            f"The cache folder '{folder}' cannot be used: {error.strerror}",
            "decoded images are stored there",
            "Set ENSEMBLE_KIT_CACHE to a folder with enough room",
        ) from error


def open_tiles(folder: Path, key: str) -> Stored | None:
    """The pixels (memory-mapped) and sample ids under `key`; None if absent or damaged."""
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


class NewTiles:
    """A set of tiles in the process of writing: space is reserved, then rows are written in order.

    Rows are written, not memory-mapped: a full disk then gives an OSError, while a memory map would
    end the process with a signal.

    Parameters
    ----------
    folder : Path
    key : str
    shape : tuple of int
        `(n_samples, height, width, channels)`.

    Raises
    ------
    EnvironmentFault
        The disk is too small for all rows.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...]) -> None:
        self.key, self.shape = key, shape
        self._target = folder / f"tiles-{key}.npy"
        self._part = folder / f".tiles-{key}.{os.getpid()}.part"
        self._n_bytes = math.prod(shape)
        refuse_full_disk(folder, self._n_bytes)
        self._file: BinaryIO | None = None
        with self._explained():
            self._file = self._part.open("wb")
            _reserve(self._file.fileno(), self._n_bytes)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, tile: npt.NDArray[np.uint8]) -> None:
        """Write the next row; `tile` has shape (height, width, channels)."""
        if tile.shape != self.shape[1:] or tile.dtype != np.uint8:
            raise ValueError(f"a tile of {tile.dtype} {tile.shape} among {self.shape[1:]}")
        with self._explained():
            self._open().write(np.ascontiguousarray(tile).data)

    def publish(self, sample_ids: list[str]) -> None:
        """Move the array into place; its record is written last and marks it as complete."""
        with self._explained():
            file = self._open()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            digest = digest_file(self._part)
            self._part.replace(self._target)
        write_json(
            self._target.with_suffix(".json"),
            {
                "version": VERSION,
                "key": self.key,
                "sha256": digest,
                "shape": list(self.shape),
                "sample_ids": sample_ids,
            },
        )

    def discard(self) -> None:
        """Remove an unfinished set of tiles."""
        if self._file is not None:
            # The disk is full, so buffered rows cannot be written either.
            with contextlib.suppress(OSError):
                self._file.close()
        self._part.unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fault = disk_fault(self._target, error, self._n_bytes)
            self.discard()
            raise fault from error


def _reserve(descriptor: int, n_bytes: int) -> None:
    """Reserve the blocks of a file on its disk, if the system can."""
    if n_bytes and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, n_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def prune_cache(
    cache_dir: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_CACHE_BYTES,
    keep: set[str] | None = None,
) -> int:
    """Delete the least recently used tiles until `max_bytes` are left; return the freed bytes."""
    records = sorted(Path(cache_dir).glob("tiles-*.json"), key=lambda p: p.stat().st_mtime)
    sizes = {
        p: p.with_suffix(".npy").stat().st_size for p in records if p.with_suffix(".npy").exists()
    }
    excess, freed = sum(sizes.values()) - max_bytes, 0
    for record, size in sizes.items():
        if freed >= excess:
            break
        if record.stem.removeprefix("tiles-") not in (keep or set()):
            # The record is deleted first: without it the array counts as incomplete.
            record.unlink(missing_ok=True)
            record.with_suffix(".npy").unlink(missing_ok=True)
            freed += size
    return freed


def sweep(folder: Path) -> None:
    """Delete files of builds that were killed."""
    # By age, not by process: the folder may be shared between machines.
    for leftover in folder.glob(".tiles-*.part"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
            leftover.unlink(missing_ok=True)


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Refuse a build of `needed` bytes if the disk has too little space."""
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize
    if needed > free - 64 * 2**20:
        raise EnvironmentFault(
            f"There is too little room in the cache folder '{folder}': {needed / 2**20:.0f} MiB are needed, {free / 2**20:.0f} MiB are free",
            "decoded images are stored there",
            "Make room, choose another cache folder, or use a smaller --image-size",
        )
