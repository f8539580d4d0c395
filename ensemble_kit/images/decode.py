"""Decodes one image file into uint8 RGB by explicit rules. Other kinds of files are refused.

The same rules apply in training, prediction and serving:

    L, 1-bit, YCbCr   as RGB; grey becomes three equal channels
    palette           its colours
    LA, RGBA, PA      on white
    CMYK              Pillow's conversion, without a colour profile
    16-bit grey       divided by 257 and rounded
    16-bit colour     the upper 8 bits of each channel
                      16-bit images whose brightest value is below 16384 (10, 12 or 14 bits in 16)
                      are refused: the value of white is unknown
    float, 32-bit     refused: the range is unknown
    several pictures  refused (animations, multi-page TIFF); a camera's JPEG with previews (MPO)
                      gives its first picture
    EXIF orientation  applied
    colour profiles   ignored
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ensemble_kit.errors import DataError
from ensemble_kit.images.containers import read_contained, split_reference
from ensemble_kit.images.deep import (
    check_layout,
    check_range,
    grey_to_8_bits,
    is_deep,
    white_is_zero,
)
from ensemble_kit.images.png_pixels import is_too_much_text, pixels_only
from ensemble_kit.images.strips import strips

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
MIN_SIDE = 8
MAX_PIXELS = 64_000_000
MAX_ASPECT = 20
_PLAIN = frozenset(("RGB", "L", "1", "YCbCr", "CMYK"))
_ALPHA = frozenset(("RGBA", "LA", "PA", "La", "RGBa"))
_GREY16 = frozenset(("I;16", "I;16B", "I;16L", "I;16N", "I"))
_DECODER_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_MAGIC = {b"II": "TIFF", b"MM": "TIFF", b"\xff\xd8": "JPEG", b"\x89PNG": "PNG"}
# Larger images are copied out of Pillow in strips.
_COPIED_AT_ONCE = 2**22
T = TypeVar("T")


def read_image(root: str | os.PathLike[str], path: str) -> npt.NDArray[np.uint8]:
    """The pixels of one image as RGB.

    Parameters
    ----------
    root : path
        The folder that `path` is relative to and may not leave. Links in it are followed.
    path : str
        As in a manifest: a file, or a reference into an array (`breastmnist.npz#train_images/17`).

    Returns
    -------
    array of uint8, shape (height, width, 3)

    Raises
    ------
    DataError
        The file is missing, damaged, cut off, too small, too large, or of another format or kind.
        The message names the path.

    Examples
    --------
    >>> read_image(".", "sklearn-digits#17").shape
    (8, 8, 3)
    """
    reference = split_reference(path)
    if reference is not None:
        return as_rgb(read_contained(Path(root), *reference), path)
    file = inside(root, path)
    _refuse_non_files(file, path)
    # Opened here: Pillow would map the file into memory, and a change of the file would be fatal.
    return _read(lambda: open(file, "rb"), path)


def read_content(content: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Like `read_image`, from the bytes of an image file; errors call it `name`."""
    _refuse_empty(len(content), name)
    return _read(lambda: io.BytesIO(content), name)


def _read(opened: Callable[[], BinaryIO], path: str) -> npt.NDArray[np.uint8]:
    try:
        with opened() as raw:
            return look_into(raw, lambda image: _decoded(image, path))
    except DataError:
        raise
    except MemoryError as error:
        raise _no_memory(path, error) from error
    except _DECODER_FAULTS as error:
        if "out of memory" in str(error):
            raise _no_memory(path, error) from error
        raise DataError(
            f"'{path}': {_reason(opened, error)}",
            "every image must be complete and readable",
            _REPLACE,
        ) from error


def look_into(raw: BinaryIO, see: Callable[[Image.Image], T]) -> T:
    """`see(image)` of an open image file; what Pillow raises is passed on."""
    try:
        return _seen(raw, see)
    except ValueError as error:
        if not is_too_much_text(error):
            raise
        return _seen(pixels_only(raw), see)


def _seen(raw: BinaryIO, see: Callable[[Image.Image], T]) -> T:
    with Image.open(raw, formats=FORMATS) as image:
        return see(image)


_REPLACE = "Replace the file, or take it out of the data"


def inside(root: str | os.PathLike[str], path: str) -> Path:
    """`root/path`, for paths inside `root`; links are followed.

    Raises
    ------
    DataError
        The path is absolute, or contains `..`.
    """
    if "\x00" in path or Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(
            f"'{path}' is outside the data folder '{root}'",
            "images must be inside it",
            "Copy the file into the data folder",
        )
    return Path(root) / path


def as_rgb(array: npt.NDArray[np.uint8], path: str) -> npt.NDArray[np.uint8]:
    """A stored array as (height, width, 3): grey becomes three equal channels."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.dtype != np.uint8:
        raise DataError(
            f"'{path}' has the shape {array.shape}",
            "stored images are grey or RGB with 8 bits per channel",
            "Convert the array",
        )
    check_size(array.shape[1], array.shape[0], path)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def check_size(width: int, height: int, path: str) -> None:
    """Refuse images that are too small or too large to be a picture of tissue.

    Raises
    ------
    DataError
        A side under 8 pixels, one side 20 times the other, or more than 64 megapixels.
    """
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(
            f"'{path}' is {width} x {height} pixels",
            f"sides must be at least {MIN_SIDE} pixels, with an aspect ratio of at most 1 : {MAX_ASPECT}",
            _REPLACE,
        )
    if width * height > MAX_PIXELS:
        raise DataError(
            f"'{path}' is {width} x {height} pixels: this image is too large",
            f"at most {MAX_PIXELS // 10**6} megapixels are read",
            "Cut it into tiles first",
        )


def _refuse_non_files(file: Path, path: str) -> None:
    try:
        about = file.stat()
    except OSError as error:
        raise DataError(
            f"'{path}': {error.strerror}",
            "each image of the manifest must exist and be readable",
            "Check the path",
        ) from error
    if not stat.S_ISREG(about.st_mode):
        raise DataError(
            f"'{path}' is not a regular file", "images are read from regular files only", _REPLACE
        )
    _refuse_empty(about.st_size, path)


def _refuse_empty(n_bytes: int, path: str) -> None:
    if n_bytes == 0:
        raise DataError(f"'{path}' is empty (0 bytes)", "an image must be complete", _REPLACE)


def _check_header(image: Image.Image, path: str) -> None:
    # Before pixels are decoded: a small file can declare an image of gigabytes.
    check_size(image.width, image.height, path)
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":
        raise DataError(
            f"'{path}' holds {n_frames} pictures",
            "an image file must hold one",
            "Save each picture as its own file",
        )


def _decoded(image: Image.Image, path: str) -> npt.NDArray[np.uint8]:
    _check_header(image, path)
    deep, inverted = is_deep(image), white_is_zero(image)
    if deep:
        check_layout(image, path)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _GREY16:
        image = grey_to_8_bits(image, path, white_is_zero=inverted)
    elif deep and image.mode in _PLAIN | _ALPHA:
        check_range(image, path)
    return _pixels(_to_rgb(image, path))


def _to_rgb(image: Image.Image, path: str) -> Image.Image:
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in _ALPHA or (image.mode in ("L", "RGB") and "transparency" in image.info):
        return _on_white(image)
    if image.mode not in _PLAIN:
        raise DataError(
            f"'{path}' has the mode {image.mode}, whose range of values is unknown",
            "images have 8 or 16 bits per channel",
            "Save the image as 8-bit RGB",
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An RGB image as a separate array, with little extra memory."""
    if image.width * image.height <= _COPIED_AT_ONCE:
        return np.array(image)
    out = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows in strips(image.height, image.width):
        out[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return out


def _on_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


def _no_memory(path: str, error: BaseException) -> MemoryError:
    return MemoryError(f"'{path}' cannot be decoded ({error or 'no memory is left'})")


def _reason(opened: Callable[[], BinaryIO], error: BaseException) -> str:
    with opened() as raw:
        head = raw.read(64).lstrip()
        name = os.fspath(getattr(raw, "name", "")) or "file"
    if head[:1] == b"<":
        return "it is a text (HTML or XML), not an image"
    known = next((name for start, name in _MAGIC.items() if head.startswith(start)), None)
    if isinstance(error, Image.UnidentifiedImageError) and known:
        return f"a {known} file that is damaged or of an unsupported kind"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)})"
    text = str(error).replace(name, "file") or type(error).__name__
    return text if len(text) < 200 else text[:200]
