"""Resizes one decoded image to a tile: antialiased bicubic.

Training, prediction and export use this function.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from ensemble_kit.errors import UsageError, did_you_mean

CROPS = ("squash", "center", "pad")


def resize(
    image: npt.NDArray[np.uint8], height: int, width: int, *, crop: str = "squash"
) -> npt.NDArray[np.uint8]:
    """`image` at `height` x `width` pixels.

    Parameters
    ----------
    image : array of uint8, shape (any, any, 3)
    height, width : int
    crop : {"squash", "center", "pad"}
        `squash` scales both sides separately. `center` first cuts the largest centred part with
        the aspect ratio of the result. `pad` shows the whole image on white.

    Returns
    -------
    array of uint8, shape (height, width, 3)
        Bicubic, antialiased when it gets smaller (Pillow's filter).

    Examples
    --------
    >>> resize(np.zeros((46, 70, 3), np.uint8), 32, 32).shape
    (32, 32, 3)
    """
    check_crop(crop)
    if image.shape[:2] == (height, width):
        return np.array(image)
    whole = Image.fromarray(image)
    if crop == "pad":
        return _padded(whole, height, width)
    box = _centre(whole.width, whole.height, height, width) if crop == "center" else None
    return np.array(whole.resize((width, height), Image.Resampling.BICUBIC, box=box))


def check_crop(crop: str) -> None:
    """Raise a `UsageError` for a crop rule that is not in `CROPS`."""
    if crop not in CROPS:
        raise UsageError(
            f"Unknown crop '{crop}'",
            f"the kinds of crop are {', '.join(CROPS)}",
            did_you_mean(crop, CROPS),
        )


def _centre(have_w: int, have_h: int, height: int, width: int) -> tuple[float, float, float, float]:
    scale = min(have_w / width, have_h / height)
    w, h = scale * width, scale * height
    return ((have_w - w) / 2, (have_h - h) / 2, (have_w + w) / 2, (have_h + h) / 2)


def _padded(whole: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    scale = min(width / whole.width, height / whole.height)
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(
        whole.resize(size, Image.Resampling.BICUBIC),
        ((width - size[0]) // 2, (height - size[1]) // 2),
    )
    return np.array(canvas)
