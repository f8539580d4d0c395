"""A perceptual hash that finds turned, mirrored and re-encoded copies of an image.

It finds copies of whole images, not overlapping fields.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from ensemble_kit.images.strips import strips

SIDE = 64
_LOW = 8
_CHUNK = 256
# Of 63 bits, unrelated images differ in 31 +- 4. Candidates are then compared by thumbnails.
MAX_BITS = 12
MIN_CORRELATION = 0.90
# Round cells on white correlate by their outline. A copy also has the same fine structure.
MIN_DETAIL = 0.70


def thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Grey 64 x 64 picture of an image, zero mean and unit norm; a blank image gives zeros."""
    small = Image.fromarray(_grey(image)).resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32)
    values = values - values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm > SIDE else np.zeros_like(values)


def _grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Luma as Pillow computes it, shape (height, width)."""
    out = np.empty(image.shape[:2], dtype=np.uint8)
    for rows in strips(*image.shape[:2]):
        out[rows] = np.asarray(Image.fromarray(image[rows]).convert("L"))
    return out


def dct_signs(thumb: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Signs of the 63 lowest frequencies in each of the eight flips and turns, shape (8, 63).

    A mirrored image has the same cosine coefficients with every other sign changed; a transposed
    image has them transposed. So one transform gives all eight exactly.
    """
    low = dctn(thumb, norm="ortho")[:_LOW, :_LOW]
    odd = np.where(np.arange(_LOW) % 2, -1, 1)
    views = []
    for base in (low, low.T):
        for rows in (1, odd[:, None]):
            for columns in (1, odd[None, :]):
                views.append((base * rows * columns > 0).ravel()[1:])
    return np.array(views)


def symmetries(thumb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The thumbnail in the same eight flips and turns, shape (8, 64, 64)."""
    turned = []
    for base in (thumb, thumb.T):
        for rows in (base, base[::-1]):
            turned += [rows, rows[:, ::-1]]
    return np.stack(turned)


def near_pairs(
    signs: npt.NDArray[np.bool_], thumbs: npt.NDArray[np.float32]
) -> list[tuple[int, int, float]]:
    """Pairs of images that are nearly equal after a flip or turn.

    Parameters
    ----------
    signs : array of bool, shape (n_samples, 8, 63)
    thumbs : array of float32, shape (n_samples, 64, 64)

    Returns
    -------
    list of (first, second, correlation of the thumbnails)
        `first < second`, sorted.
    """
    if not len(signs):
        return []
    plus = np.where(signs, 1, -1).astype(np.float32)
    blank = np.asarray(~thumbs.any(axis=(1, 2)))
    found = []
    for start in range(0, len(plus), _CHUNK):
        # Equal signs minus unequal ones, for each symmetry of every later image: one matrix product.
        agree = np.einsum(
            "if,jpf->ijp", plus[start : start + _CHUNK, 0], plus[start:], optimize=True
        )
        for i, j in np.argwhere(agree.max(axis=2) >= 63 - 2 * MAX_BITS) + start:
            if i < j and not (blank[i] or blank[j]):
                alike, detail = similarity(thumbs[i], thumbs[j])
                if alike >= MIN_CORRELATION and detail >= MIN_DETAIL:
                    found.append((int(i), int(j), alike))
    return found


def similarity(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Highest correlation of two thumbnails over all flips and turns, and that of their fine structure."""
    turned = symmetries(b)
    each = (turned * a).sum(axis=(1, 2))
    best = turned[int(each.argmax())]
    fine_a, fine_b = (x - gaussian_filter(x, 1.5) for x in (a, best))
    norm = float(np.linalg.norm(fine_a) * np.linalg.norm(fine_b))
    return float(each.max()), float((fine_a * fine_b).sum()) / norm if norm else 0.0


def clusters(n: int, pairs: list[tuple[int, int, float]]) -> npt.NDArray[np.int64]:
    """A number per image, equal for images that are connected by pairs; shape (n,)."""
    parent = np.arange(n)

    def top(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for a, b, _ in pairs:
        parent[max(top(a), top(b))] = min(top(a), top(b))
    return np.array([top(i) for i in range(n)], dtype=np.int64)
