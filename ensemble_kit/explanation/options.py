"""Options of an explanation of many images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class ExplainOptions:
    """The outputs for each image.

    Parameters
    ----------
    maps : tuple of str
        Methods of making maps: see `methods.METHODS`.
    class_name : str, optional
        The explained class. Default: the predicted class of each image.
    faithfulness : bool
        Compute deletion and insertion curves, and the check with shuffled weights.
    masks : path, optional
        Folder of masks of the relevant regions, each with the file name of its image.
    stain : {"haematoxylin", "eosin", "dab"}, optional
        Also predict each image with less and more of this stain.
    geojson : bool
        Write the regions of highest evidence as polygons for QuPath.
    """

    maps: tuple[str, ...] = ("gradcam",)
    class_name: str | None = None
    faithfulness: bool = False
    masks: Path | None = None
    stain: str | None = None
    geojson: bool = False

    def plan(self) -> dict[str, Any]:
        """The options that the files of one image depend on, as JSON values."""
        masks = None if self.masks is None else self.masks.absolute().as_posix()
        return {**dataclasses.asdict(self), "maps": list(self.maps), "masks": masks}
