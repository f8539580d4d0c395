"""Stain normalisation of H&E images (Macenko, Reinhard) to a fixed reference, when tiles are built.

It is off by default, and for H&E only: in IHC it would remove the brown stain, which is scored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.manifest.table import Manifest

METHODS = ("none", "macenko", "reinhard")
# Stain vectors (rows: haematoxylin, eosin) and 99th percentiles of their amounts, as published by
# Macenko et al., in natural-log density.
MACENKO_VECTORS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
_MACENKO_AMOUNTS = np.array([1.9705, 1.0308])
# Medians over 328 BreakHis images at 100X of the mean and spread of l, alpha, beta.
REINHARD_MEAN = np.array([-0.267, -0.019, 0.008])
REINHARD_SPREAD = np.array([0.114, 0.020, 0.005])
_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LAB = np.diag(1 / np.sqrt([3.0, 6.0, 2.0])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
_GLASS = 0.15
_MIN_TISSUE = 0.02


def with_stain_normalisation(manifest: Manifest, method: str) -> Manifest:
    """`manifest` with a column `stain_norm`, which is used when tiles are built.

    Parameters
    ----------
    manifest : Manifest
    method : {"none", "macenko", "reinhard"}

    Raises
    ------
    UsageError
        An unknown method.
    DataError
        The stain of the images in the manifest is IHC.
    """
    if method not in METHODS:
        raise UsageError(
            f"Unknown stain normalisation '{method}'",
            f"the methods are {', '.join(METHODS)}",
            did_you_mean(method, METHODS),
        )
    refuse_ihc(manifest, method)
    return manifest.with_columns(stain_norm=method)


def refuse_ihc(manifest: Manifest, method: str, stain: str | None = None) -> None:
    """Raise a `DataError` if IHC images would be normalised.

    `stain` is the stain in use; by default those of the manifest.
    """
    stains = set(manifest.table["stain"].astype(str)) if "stain" in manifest.table else set()
    used = {stain.upper()} if stain else stains
    if method != "none" and any("IHC" in one for one in used):
        raise DataError(
            f"Stain normalisation was set for images of stain {', '.join(sorted(used))}",
            "it is for H&E only; in IHC it would change the brown stain that is scored",
            "Use stain='he' (of one member: NAME:stain=he), or switch normalisation off",
        )


def normalise(image: npt.NDArray[np.uint8], method: str) -> npt.NDArray[np.uint8]:
    """An H&E image with the stain of the reference.

    Parameters
    ----------
    image : array of uint8, shape (height, width, 3)
    method : {"none", "macenko", "reinhard"}

    Returns
    -------
    array of uint8, same shape
        Unchanged if less than 2 % of it is tissue (Macenko).

    References
    ----------
    Macenko et al.: A method for normalizing histology slides for quantitative analysis. ISBI 2009.
    Reinhard et al.: Color transfer between images. IEEE CG&A 21(5):34-41, 2001.
    """
    if method == "none":
        return image
    return _macenko(image) if method == "macenko" else _reinhard(image)


def to_lab(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Reinhard's l, alpha, beta of every pixel, shape (n_pixels, 3)."""
    light = (image.reshape(-1, 3).astype(np.float64) + 1) / 256
    return np.log10(light @ _LMS.T) @ _LAB.T


def _reinhard(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    lab = to_lab(image)
    spread = np.maximum(lab.std(axis=0), 1e-3)
    moved = (lab - lab.mean(axis=0)) / spread * REINHARD_SPREAD + REINHARD_MEAN
    light = 10 ** (moved @ np.linalg.inv(_LAB).T) @ np.linalg.inv(_LMS).T
    return _to_bytes(light * 256 - 1, image.shape)


def _macenko(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    light = image.reshape(-1, 3).astype(np.float64) + 1
    # The glass of the slide is white; otherwise its tint would count as stain.
    white = np.maximum(np.percentile(light, 99, axis=0), 200)
    density = np.clip(-np.log(light / white), 0, None)
    tissue = density[(density > _GLASS).all(axis=1)]
    if len(tissue) < max(10, _MIN_TISSUE * len(density)):
        return image
    vectors = stain_vectors(tissue)
    amounts = density @ np.linalg.pinv(vectors)
    usual = np.maximum(np.percentile(amounts, 99, axis=0), 1e-3)
    again = (
        np.clip(amounts, 0, None) * np.clip(_MACENKO_AMOUNTS / usual, 0.5, 2)
    ) @ MACENKO_VECTORS
    return _to_bytes(256 * np.exp(-again) - 1, image.shape)


def stain_vectors(tissue: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The two extreme directions of the densities within their main plane, rows of unit length."""
    plane = np.linalg.eigh(np.cov(tissue.T))[1][:, 1:]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    along = tissue @ plane
    low, high = np.percentile(np.arctan2(along[:, 0], along[:, 1]), [1, 99])
    pair = np.array([plane @ (np.sin(angle), np.cos(angle)) for angle in (low, high)])
    # Haematoxylin absorbs more red light than eosin.
    return pair if pair[0, 0] > pair[1, 0] else pair[::-1]


def _to_bytes(values: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(shape)
