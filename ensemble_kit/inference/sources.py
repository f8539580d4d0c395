"""One image to predict and its reader: a file, an entry of an array file, or an array.

Images are decoded in the same way as in training (`images.decode`).
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ensemble_kit.errors import UsageError
from ensemble_kit.files import digest_bytes
from ensemble_kit.images.containers import split_reference
from ensemble_kit.images.decode import as_rgb, read_content, read_image
from ensemble_kit.images.digests import digest_of

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One image, or a pair of H&E and IHC.

    Parameters
    ----------
    name : str
        The image's name in results.
    path, pair_path : str
        Arguments of `read`. `pair_path` is empty without a pair.
    read : callable
        Returns the pixels of a path: uint8, shape (height, width, 3).
    group : str
        The patient, or "".
    file_state : str
        Size and time of the file, to detect changes.
    digest : callable, optional
        Returns the digest of the files, as in a manifest.
    """

    name: str
    path: str
    read: Callable[[str], Pixels]
    pair_path: str = ""
    group: str = ""
    file_state: str = ""
    digest: Callable[[], str] | None = None


def file_source(root: Path, path: str, *, name: str, pair_path: str = "") -> Source:
    """The image at `root/path`, or an entry of an array file: `x.npz#images/3`."""
    reference = split_reference(path)
    files = [
        root / (reference[0] if reference else path),
        *([root / pair_path] if pair_path else []),
    ]
    return Source(
        name,
        path,
        lambda requested: read_image(root, requested),
        pair_path,
        file_state=" ".join(map(_file_state, files)),
        digest=lambda: digest_of(root, (path, pair_path) if pair_path else (path,)),
    )


def content_source(parts: Sequence[bytes | Pixels], *, name: str) -> Source:
    """An image, or a pair of H&E and IHC, in memory: contents of image files, or pixels."""
    by_path = dict(zip((name, f"{name}, IHC"), parts, strict=False))

    def read(path: str) -> Pixels:
        part = by_path[path]
        return read_content(part, path) if isinstance(part, bytes) else as_rgb(part, path)

    def digest() -> str:
        own = [digest_bytes(one) for one in parts if isinstance(one, bytes)]
        return own[0] if len(own) == 1 else digest_bytes("".join(own).encode())

    is_file = all(isinstance(one, bytes) for one in parts)
    path, *pair = by_path
    return Source(name, path, read, "".join(pair), digest=digest if is_file else None)


def png_content(pixels: Pixels) -> bytes:
    """The content of a PNG file with these pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _file_state(file: Path) -> str:
    try:
        about = file.stat()
    except (OSError, ValueError):
        return "missing"
    return f"{about.st_size}:{about.st_mtime_ns}"


def as_sources(images: Any) -> list[Source]:
    """Sources of paths and arrays.

    Parameters
    ----------
    images : path, array, or iterable of them
        Arrays are uint8, shape (height, width), (height, width, 3), or (n, height, width, 3) for n
        images. A tuple of two is a pair: H&E, then IHC.
    """
    if isinstance(images, str | os.PathLike) or (np.ndim(images) in (2, 3) and _is_array(images)):
        images = [images]
    elif not isinstance(images, Iterable):
        raise UsageError(
            f"The images have the type {type(images).__name__}",
            "a list of paths or arrays is needed",
            "Pass a list",
        )
    return [_as_source(i, one) for i, one in enumerate(images)]


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def _as_source(i: int, one: Any) -> Source:
    parts = one if isinstance(one, tuple) else (one,)
    if not 1 <= len(parts) <= 2:
        raise UsageError(
            f"An image has {len(parts)} parts",
            "an image is one picture, or a pair of H&E and IHC",
            "Pass a pair as (he, ihc)",
        )
    readers = {f"image {i}{' pair' * p}": _reader(part) for p, part in enumerate(parts)}
    path, *pair = readers
    first = parts[0]
    name = os.fspath(first) if isinstance(first, str | os.PathLike) else path
    digest = _digest_of_files(parts)
    beside = pair[0] if pair else ""
    return Source(
        str(name), path, lambda requested: readers[requested](requested), beside, digest=digest
    )


def _digest_of_files(parts: tuple[Any, ...]) -> Callable[[], str] | None:
    """The digest of one or two files. None if a part is an array."""
    if not all(isinstance(part, str | os.PathLike) for part in parts):
        return None
    files = [Path(part).absolute() for part in parts]
    root = Path(files[0].anchor)
    return lambda: digest_of(root, tuple(file.relative_to(root).as_posix() for file in files))


def _reader(part: Any) -> Callable[[str], Pixels]:
    if isinstance(part, str | os.PathLike):
        file = Path(part)
        return lambda _: read_image(file.parent, file.name)
    if not _is_array(part):
        raise UsageError(
            f"An image has the type {type(part).__name__}",
            "an image is a path or an array",
            "Pass np.asarray(image)",
        )
    pixels = np.asarray(part)
    return lambda requested: as_rgb(pixels, requested)
