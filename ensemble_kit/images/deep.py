"""Images with more than 8 bits per channel: which files have them, and which value is white.

16-bit files of a 10-, 12- or 14-bit camera are refused, because they would look nearly black.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ensemble_kit.errors import DataError
from ensemble_kit.images.strips import strips

# The brightest value of an image that uses more than 14 of its 16 bits reaches this.
MIN_BRIGHTEST = 16384
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284
_ALPHA = "Aa"


def is_deep(image: Image.Image) -> bool:
    """Whether an open file stores more than 8 bits per channel.

    Pillow gives 16-bit colour as 8-bit, so its mode is not enough.
    """
    if image.format == "TIFF":
        return max(_tag(image, _BITS_PER_SAMPLE, (8,))) > 8
    arguments = str(_first_tile(image).args) if _first_tile(image) else ""
    # A PPM states its maximum, and Pillow scales by it.
    wide = {"PNG": ";16", "PPM": "65535"}.get(image.format or "")
    return wide is not None and wide in arguments


def check_layout(image: Image.Image, path: str) -> None:
    """Refuse files with more than 8 bits that Pillow decodes wrongly.

    Raises
    ------
    DataError
        A TIFF with uncompressed planes of 16 bits, or a 16-bit PNG with a transparent colour.
    """
    planes = image.format == "TIFF" and _tag(image, _PLANAR, 1) == 2
    if planes and _first_tile(image).codec_name == "raw":
        raise _unknown(path, "stores each 16-bit channel as an uncompressed plane")
    if "transparency" in image.info:
        raise _unknown(path, "has 16 bits per channel and a transparent colour")


def check_range(image: Image.Image, path: str) -> None:
    """Refuse 16-bit colour (given as its upper 8 bits) that does not use its full range.

    Raises
    ------
    DataError
        The brightest value of the colours, or of a transparency that is not 0, is below 16384.
    """
    extremes: Any = image.getextrema()
    bands = dict(zip(image.getbands(), extremes, strict=True))
    colors = max(high for name, (_, high) in bands.items() if name not in _ALPHA)
    opaque = max((high for name, (_, high) in bands.items() if name in _ALPHA), default=255)
    least = MIN_BRIGHTEST // 256 + (image.format == "PPM")  # of a PPM Pillow rounds up
    for what, high in (("colours", colors), ("transparency", opaque or 255)):
        if high < least:
            raise _unknown(path, f"has {what} below {256 * (high + 1)} in 16 bits")


def grey_to_8_bits(image: Image.Image, path: str, *, white_is_zero: bool) -> Image.Image:
    """16-bit grey divided by 257 and rounded.

    Raises
    ------
    DataError
        Values outside 0 .. 65535, or a brightest value below 16384.
    """
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535 or high < MIN_BRIGHTEST:
        raise _unknown(path, f"has values {low} .. {high} in 16 bits or more")
    out = np.empty(values.shape, np.uint8)
    for rows in strips(*values.shape):
        some = values[rows].astype(np.float64)
        out[rows] = np.rint((65535 - some if white_is_zero else some) / 257)
    return Image.fromarray(out)


def white_is_zero(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF. Pillow inverts 8-bit grey, but not 16-bit grey."""
    return image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1) == 0


def _first_tile(image: Any) -> Any:
    return next(iter(image.tile), None)


def _tag(image: Any, number: int, default: Any) -> Any:
    return image.tag_v2.get(number, default)


def _unknown(path: str, fault: str) -> DataError:
    return DataError(
        f"'{path}' {fault}",
        f"a 16-bit image needs a brightest value of at least {MIN_BRIGHTEST} of 65535; otherwise the "
        "value of white is unknown",
        "Save the image with 8 bits per channel, with the contrast that you want",
    )
