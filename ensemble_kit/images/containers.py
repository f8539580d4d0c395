"""Reads images that are stored inside one file: `sklearn-digits#17`, `breastmnist.npz#train_images/17`."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path

import numpy as np

from ensemble_kit.archives import read_array
from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError
from ensemble_kit.manifest.layouts.digits import CONTAINER as DIGITS

_READING = threading.Lock()


def split_reference(path: str) -> tuple[str, str] | None:
    """Container and place of a reference such as `breastmnist.npz#train_images/17`; None for a file.

    A `#` in the name of a plain file has no meaning.

    Examples
    --------
    >>> split_reference("sklearn-digits#17"), split_reference("a#1.png")
    (('sklearn-digits', '17'), None)
    """
    container, mark, place = path.rpartition("#")
    if mark and (container == DIGITS or container.lower().endswith(".npz")):
        return container, place
    return None


def read_contained(root: Path, container: str, place: str) -> Array:
    """The stored uint8 pixels of one image, shape (height, width) or (height, width, channels).

    Raises
    ------
    DataError
        The file, array or index does not exist, or the array holds no 8-bit images.
    """
    if container == DIGITS:
        array, index = _digits(), place
    else:
        key, _, index = place.rpartition("/")
        file = root / container
        array = _npz_array(os.fspath(file), key, _modified(file))
    if not index.isdecimal() or int(index) >= len(array):
        raise DataError(
            f"'{container}' has no image '{place}'",
            f"its images go from 0 to {len(array) - 1}",
            "Read the manifest again",
        )
    return array[int(index)]


@functools.lru_cache(maxsize=1)
def _digits() -> Array:
    from sklearn.datasets import load_digits

    # Stored as 0 .. 16; multiplied by 255 / 16.
    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        raise DataError(
            f"'{file}' does not exist", "the images are read from this file", "Check the path"
        ) from error


def _npz_array(file: str, key: str, modified: int) -> Array:
    # One thread reads; the others wait for its result.
    with _READING:
        return _read_once(file, key, modified)


@functools.lru_cache(maxsize=3)
def _read_once(file: str, key: str, modified: int) -> Array:
    del modified  # Only part of the cache's key: a replaced file is read again.
    return load_npz(file, key)


def load_npz(file: str | os.PathLike[str], key: str) -> Array:
    """The uint8 image array called `key` of an `.npz` file; no code in it is run.

    Raises
    ------
    DataError
        The array does not exist, is not uint8, is damaged, or is too large when unpacked.
    EnvironmentFault
        The array does not fit into the free memory.
    """
    array = read_array(file, key)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(
            f"The array '{key}' of '{os.fspath(file)}' is {array.dtype} {array.shape}",
            "image arrays are uint8 of shape (n, height, width[, channels])",
            "Convert it",
        )
    return array
