"""Images that arrived with a request become `Source`s; they are decoded by the rules of training.

Nothing is written to a named file, and a name that the client gave is never used.
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

# The bytes of an image file, or its pixels, uint8 (height, width, 3); two of a pair: H&E, then IHC.
Content = Sequence[bytes | Pixels]
PAIR = "pair"


async def image_of(request: Request) -> list[bytes]:
    """The image file that a request carries as its body or in a multipart form; two of a pair.

    Raises
    ------
    RefusedError
        400: a form that cannot be read, or has another number of images.
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
                    f"The form has {len(images)} images. Send one image as a file, and the IHC image "
                    f"of a pair as '{PAIR}'.",
                )
            return [await one.read() for one in images + pairs]
    except (MultiPartException, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", "")
        raise RefusedError(
            400, f"The form cannot be read: {reason} Send one image as a file."
        ) from error


def received(images: Sequence[Content], max_pixels: int) -> list[Source]:
    """Sources of some images.

    Raises
    ------
    RefusedError
        400: no bytes. 413: too many pixels by an image's header.
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
            400, "The request has no image: its body is empty. Send a PNG, JPEG or TIFF."
        )
    try:
        size = look_into(io.BytesIO(part), lambda image: image.size)
    except Image.DecompressionBombError as error:
        raise _too_large("far more", max_pixels) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        pass  # decoding says what is wrong with it
    else:
        _check_pixels(*size, max_pixels)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(f"{width} x {height} pixels", max_pixels)


def _too_large(size: str, max_pixels: int) -> RefusedError:
    return RefusedError(
        413,
        f"The image is too large: at most {max_pixels / 1e6:.4g} megapixels are read, and it has "
        f"{size}. Cut it into tiles first.",
    )
