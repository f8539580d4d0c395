"""Images of a request as `Source`s. They are decoded in the same way as in training.

Images are never written to a named file. File names of the client are ignored.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from fastapi import Request
from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from ensemble_kit.images.decode import look_into
from ensemble_kit.inference.sources import Pixels, Source, content_source
from ensemble_kit.serve.refusals import RefusedError

# An image file, or pixels, uint8 (height, width, 3). Two elements are a pair: H&E, then IHC.
Content = Sequence[bytes | Pixels]
PAIR = "pair"


async def image_of(request: Request) -> list[bytes]:
    """The image file, or the two files of a pair, in the body or multipart form of a request.

    Raises
    ------
    RefusedError
        400: the form cannot be read, or has a wrong number of images.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return [await request.body()]
    try:
        async with request.form(max_files=2, max_fields=8) as form:
            files = [(k, one) for k, one in form.multi_items() if not isinstance(one, str)]
            images = [one for name, one in files if name != PAIR]
            pairs = [one for name, one in files if name == PAIR]
            if len(images) != 1:
                raise RefusedError(
                    400,
                    f"The form has {len(images)} images; one is needed. Send one image as a file, and "
                    f"the IHC image of a pair as '{PAIR}'.",
                )
            return [await one.read() for one in images + pairs]
    except (MultiPartException, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", "")
        raise RefusedError(
            400, f"The form cannot be read: {reason} Send one image as a file."
        ) from error


def received(images: Sequence[Content], max_pixels: int) -> list[Source]:
    """Sources of images.

    Raises
    ------
    RefusedError
        400: an image is empty. 413: an image's header says that it has too many pixels.
    """
    for content in images:
        for part in content:
            _check(part, max_pixels)
    n = len(images)
    return [
        content_source(one, name="the image" if n == 1 else f"image {i} of {n}")
        for i, one in enumerate(images, 1)
    ]


def _check(part: bytes | Pixels, max_pixels: int) -> None:
    if not isinstance(part, bytes):
        _check_pixels(part.shape[1], part.shape[0], max_pixels)
        return
    if not part:
        raise RefusedError(
            400, "The request body is empty; an image is needed. Send a PNG, JPEG or TIFF file."
        )
    try:
        size = look_into(io.BytesIO(part), lambda image: image.size)
    except Image.DecompressionBombError as error:
        raise _too_large("far too many pixels", max_pixels) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        pass  # decoding gives the error
    else:
        _check_pixels(*size, max_pixels)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(f"{width} x {height} pixels", max_pixels)


def _too_large(size: str, max_pixels: int) -> RefusedError:
    return RefusedError(
        413,
        f"The image has {size}; at most {max_pixels / 1e6:.4g} megapixels are allowed. "
        "Cut it into tiles first.",
    )
