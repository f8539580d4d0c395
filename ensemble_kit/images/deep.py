"""Images of more than 8 bits a channel: which files hold them, and whether their white is known.

Reads headers and the extreme values; a 16-bit file of a 10-, 12- or 14-bit camera is refused, since
its picture would come out nearly black.
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
    """Whether a file that is open, but not yet decoded, stores more than 8 bits a channel.

    Pillow gives 16-bit colour as 8-bit, so its mode does not tell.
    """
    if image.format == "TIFF":
        return max(_tag(image, _BITS_PER_SAMPLE, (8,))) > 8
    arguments = str(_first_tile(image).args) if _first_tile(image) else ""
    # Other maxima of a PPM than 65535 are stated by the file, and Pillow scales by them.
    wide = {"PNG": ";16", "PPM": "65535"}.get(image.format or "")
    return wide is not None and wide in arguments


def check_layout(image: Image.Image, path: str) -> None:
    """Refuse deep files that Pillow decodes to something else than their picture.

    Raises
    ------
    DataError
        A TIFF with uncompressed planes of 16 bits, or a 16-bit PNG with a transparent colour.
    """
    planes = image.format == "TIFF" and _tag(image, _PLANAR, 1) == 2
    if planes and _first_tile(image).codec_name == "raw":
        raise _unknown(path, "stores each 16-bit channel as an uncompressed plane")
    if "transparency" in image.info:
        raise _unknown(path, "has 16 bits a channel and a transparent colour")


def check_range(image: Image.Image, path: str) -> None:
    """Refuse 16-bit colour, already cut to its upper 8 bits, that does not use its range.

    Raises
    ------
    DataError
        The brightest value is below 16384, of the colours or of a transparency that is not 0.
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
        Values outside 0 .. 65535, or none of 16384 and above.
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
    """Whether a TIFF says that 0 is white; Pillow turns 8-bit grey around, but not 16-bit grey."""
    return image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1) == 0


def _first_tile(image: Any) -> Any:
    return next(iter(image.tile), None)


def _tag(image: Any, number: int, default: Any) -> Any:
    return image.tag_v2.get(number, default)


def _unknown(path: str, fault: str) -> DataError:
    return DataError(
        "It is not known which value is white in a 16-bit image",
        f"'{path}' {fault}",
        f"16-bit images are read if their brightest value is at least {MIN_BRIGHTEST} of 65535. "
        "Save the image with 8 bits a channel, scaled as you mean it",
    )
