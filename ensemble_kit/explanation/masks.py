"""Maps compared with masks of the relevant regions: the pointing game, and the share on the mask.

References
----------
Zhang, J., et al. (2018). Top-down neural attention by excitation backprop. IJCV 126.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.images.decode import read_image
from ensemble_kit.manifest.folders.walk import list_images


@dataclasses.dataclass(frozen=True)
class OnMask:
    """One map compared with one mask.

    Parameters
    ----------
    hit : bool
        Whether the map's peak is on the mask.
    share : float
        Proportion of the map's evidence on the mask, 0 to 1.
    area : float
        Proportion of the image under the mask. It is the `share` of a uniform map.
    """

    hit: bool
    share: float
    area: float


class Masks:
    """Masks in a folder and its subfolders, found by the file name of their image.

    Parameters
    ----------
    folder : path
        Relevant regions are white in the masks.

    Raises
    ------
    DataError
        The folder has no image, or two images with the same name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = list_images(folder)[0] if folder.is_dir() else []
        if not paths:
            raise DataError(f"'{folder}' has no masks", "masks are images", "Check the path")
        self._by_stem = {Path(path).stem: path for path in paths}
        if len(self._by_stem) < len(paths):
            names = [Path(path).stem for path in paths]
            twice = sorted({n for n in names if names.count(n) > 1})
            raise DataError(
                f"{len(twice)} names of masks are used twice (first: {first_few(twice, 2)})",
                "each image has one mask of the same name",
                "Choose a folder with one set of masks",
            )

    def of(self, name: str, shape: tuple[int, int]) -> Array | None:
        """The covered proportion of each cell of a grid. None if there is no mask or it is black."""
        path = self._by_stem.get(Path(name).stem)
        if path is None:
            return None
        inside = (read_image(self.folder, path)[..., 0] > 127).astype(np.uint8) * 255
        if not inside.any():
            return None
        whole = Image.fromarray(inside)
        if inside.shape == shape:
            return inside / 255.0
        return np.asarray(whole.resize(shape[::-1], Image.Resampling.BOX)) / 255.0


def on_mask(found: Array, inside: Array) -> OnMask:
    """Compare a map (height, width) with the covered proportions of the same cells.

    The peak is a hit if more than half of its cell is on the mask; equal peaks are averaged. An empty
    map has no hit, and the share of a uniform map.

    Examples
    --------
    >>> on_mask(np.array([[3.0, 1.0]]), np.array([[1.0, 0.0]]))
    OnMask(hit=True, share=0.75, area=0.5)
    """
    area, total = float(inside.mean()), float(found.sum())
    if total <= 0:
        return OnMask(False, area, area)
    peaks = inside[found == found.max()]
    return OnMask(bool(peaks.mean() > 0.5), float((found * inside).sum() / total), area)
