"""What a user asks of an explanation of many images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class ExplainOptions:
    """What is made for each image.

    Parameters
    ----------
    maps : tuple of str
        Methods of making maps: see `methods.METHODS`.
    class_name : str, optional
        What the maps are about; by default the predicted class of each image.
    faithfulness : bool
        Deletion and insertion curves, and the check with shuffled weights.
    masks : path, optional
        Folder of masks of what should matter, each with the file name of its image.
    stain : {"haematoxylin", "eosin", "dab"}, optional
        Also predict each image with less and more of it.
    geojson : bool
        The hottest regions as polygons for QuPath.
    """

    maps: tuple[str, ...] = ("gradcam",)
    class_name: str | None = None
    faithfulness: bool = False
    masks: Path | None = None
    stain: str | None = None
    geojson: bool = False

    def plan(self) -> dict[str, Any]:
        """All that decides the files of one image."""
        masks = None if self.masks is None else self.masks.absolute().as_posix()
        return {**dataclasses.asdict(self), "maps": list(self.maps), "masks": masks}
