"""An image that arrived as bytes becomes a `Source`; it is decoded by the rules of training.

The bytes lie in a file of our own: a name that the client gave is never used.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ensemble_kit.images.decode import look_into
from ensemble_kit.inference.sources import Source, file_source
from ensemble_kit.serve.refusals import RefusedError


@contextlib.contextmanager
def received(images: Sequence[bytes], max_pixels: int) -> Iterator[list[Source]]:
    """Sources of some images, while the context is open.

    Raises
    ------
    RefusedError
        No bytes, or too many pixels by an image's header.
    """
    with tempfile.TemporaryDirectory(prefix="ensemble-kit-") as folder:
        root = Path(folder)
        for i, content in enumerate(images):
            if not content:
                raise RefusedError(
                    400, "The request has no image: its body is empty. Send a PNG, JPEG or TIFF."
                )
            (root / f"image-{i}").write_bytes(content)
            _check_pixels(root / f"image-{i}", max_pixels)
        yield [file_source(root, f"image-{i}", name=f"image-{i}") for i in range(len(images))]


def _check_pixels(file: Path, max_pixels: int) -> None:
    try:
        width, height = look_into(file, _size)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return  # decoding says what is wrong with it
    except Image.DecompressionBombError:
        width = height = max_pixels
    if width * height > max_pixels:
        raise RefusedError(
            413,
            f"The image is too large: at most {max_pixels / 1e6:.4g} megapixels are predicted. "
            "Cut it into tiles first.",
        )


def _size(image: Image.Image) -> tuple[int, int]:
    return image.size
