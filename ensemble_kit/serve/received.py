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
def received(images: Sequence[Sequence[bytes]], max_pixels: int) -> Iterator[list[Source]]:
    """Sources of some images, while the context is open; a pair is two: H&E, then IHC.

    Raises
    ------
    RefusedError
        No bytes, or too many pixels by an image's header.
    """
    with tempfile.TemporaryDirectory(prefix="ensemble-kit-") as folder:
        root = Path(folder)
        yield [_source(root, i, parts, max_pixels) for i, parts in enumerate(images)]


def _source(root: Path, i: int, parts: Sequence[bytes], max_pixels: int) -> Source:
    names = [f"image-{i}{end}" for end in ("", "-pair")[: len(parts)]]
    for name, content in zip(names, parts, strict=True):
        if not content:
            raise RefusedError(
                400, "The request has no image: its body is empty. Send a PNG, JPEG or TIFF."
            )
        (root / name).write_bytes(content)
        _check_pixels(root / name, max_pixels)
    return file_source(root, names[0], name=names[0], pair_path="".join(names[1:]))


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
