"""Reads every image once: file format, decoding faults, and fingerprints."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ensemble_kit.audit.color import color_features
from ensemble_kit.audit.fingerprint import dct_signs, thumbnail
from ensemble_kit.errors import DataError
from ensemble_kit.images.containers import split_reference
from ensemble_kit.images.decode import inside, look_into, read_image
from ensemble_kit.images.deep import is_deep
from ensemble_kit.images.digests import map_images
from ensemble_kit.manifest.table import Manifest

ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFacts:
    """The facts about one image.

    Parameters
    ----------
    sample_id, path : str
    kind : str
        Format and mode as stored, such as `PNG RGB`.
    width, height : int
        Pixels as stored; 0 if the header cannot be read.
    rules : tuple of str
        What decoding changes, for images that are not plain RGB.
    fault : str
        Why it cannot be used; empty if it can.
    pixels : str
        SHA-256 of the decoded pixels and their shape; empty if it cannot be decoded.
    signs : array of bool, shape (8, 63)
        Perceptual hash of all eight flips and turns.
    thumb : array of float32, shape (64, 64)
        Grey, zero mean, unit norm.
    colors : array of float32, shape (n_features,)
        See `ensemble_kit.audit.color.color_features`.
    """

    sample_id: str
    path: str
    kind: str
    width: int
    height: int
    rules: tuple[str, ...]
    fault: str
    pixels: str
    signs: npt.NDArray[np.bool_] | None
    thumb: npt.NDArray[np.float32] | None
    colors: npt.NDArray[np.float32] | None


def inspect_images(
    manifest: Manifest, *, progress: Callable[[int, int], None] | None = None
) -> list[ImageFacts]:
    """One `ImageFacts` per image, in the manifest's order; partners of pairs follow at the end."""
    rows = list(zip(manifest.table["sample_id"], manifest.table["path"], strict=True))
    if "pair_path" in manifest.table:
        rows += list(zip(manifest.table["sample_id"], manifest.table["pair_path"], strict=True))
    inspected, faults = map_images(
        lambda row: inspect_image(manifest.root, *row), rows, progress=progress
    )
    return [
        item or _unusable(manifest.root, *row, faults[i].problem)
        for i, (row, item) in enumerate(zip(rows, inspected, strict=True))
    ]


def inspect_image(root: Path, sample_id: str, path: str) -> ImageFacts:
    """Inspect one image; a fault is reported, not raised.

    Raises
    ------
    MemoryError
        The image does not fit into the memory.
    """
    kind, width, height, rules = _header(root, path)
    try:
        image = read_image(root, path)
    except DataError as error:
        return _unusable(root, sample_id, path, error.problem)
    thumb = thumbnail(image)
    return ImageFacts(
        sample_id,
        path,
        kind,
        width or image.shape[1],
        height or image.shape[0],
        rules,
        "",
        _digest(image),
        dct_signs(thumb),
        thumb,
        color_features(image),
    )


def _unusable(root: Path, sample_id: str, path: str, fault: str) -> ImageFacts:
    kind, width, height, _ = _header(root, path)
    named = fault if path in fault else f"'{path}': {fault}"
    return ImageFacts(sample_id, path, kind, width, height, (), named, "", None, None, None)


def _digest(image: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of the shape and the pixels, which are not copied."""
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _header(root: Path, path: str) -> tuple[str, int, int, tuple[str, ...]]:
    reference = split_reference(path)
    if reference is not None:
        return "array", 0, 0, ()
    try:
        file = inside(root, path)
        if not file.is_file():
            return "no file", 0, 0, ()
        with open(file, "rb") as raw:
            return look_into(raw, _format_and_rules)
    except Exception:  # A damaged header can raise anything; read_image reports the fault.
        return "unreadable", 0, 0, ()


def _format_and_rules(image: Image.Image) -> tuple[str, int, int, tuple[str, ...]]:
    # An MPO is a JPEG with more pictures after the first.
    kind = "JPEG" if image.format == "MPO" else image.format
    return f"{kind} {image.mode}", image.width, image.height, _rules(image)


def _rules(image: Image.Image) -> tuple[str, ...]:
    rules = []
    if image.mode.startswith("I"):
        rules.append("16-bit grey: divided by 257")
    elif is_deep(image):
        rules.append("16-bit colour: the upper 8 bits of each channel")
    elif image.mode == "CMYK":
        rules.append("CMYK: converted without a colour profile")
    elif image.mode in ("P", "PA"):
        rules.append("palette: its colours")
    elif image.mode in ("L", "1"):
        rules.append("grey: three equal channels")
    if image.format == "MPO":
        rules.append("a camera's JPEG with previews (MPO): the first picture")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rules.append("transparency: put on white")
    if image.getexif().get(ORIENTATION, 1) not in (0, 1):
        rules.append("EXIF orientation: turned upright")
    return tuple(rules)
