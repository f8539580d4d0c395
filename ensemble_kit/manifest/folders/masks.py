"""Finds masks among images by their names: `x_mask.png` beside `x.png`, `masks/` beside `images/`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from ensemble_kit.errors import counted, first_few
from ensemble_kit.manifest.folders.words import IMAGES, MASKS, plain

_MASK_END = re.compile(
    r"(?P<image>.+?)[_\-. ]+(mask|seg|segmentation|annotation|gt|ground_?truth|label|labels)([_\- ]?\d+)?",
    re.IGNORECASE,
)


def mask_files(paths: Sequence[str]) -> set[str]:
    """Paths that are named after another image in the same folder, as masks are.

    Examples
    --------
    >>> sorted(mask_files(["a/1.png", "a/1_mask.png", "a/1_mask_1.png", "a/2_mask.png"]))
    ['a/1_mask.png', 'a/1_mask_1.png']
    """
    known = {path.rpartition(".")[0] for path in paths}
    found = set()
    for path in paths:
        folder, slash, name = path.rpartition("/")
        match = _MASK_END.fullmatch(name.rpartition(".")[0])
        if match and f"{folder}{slash}{match['image']}" in known:
            found.add(path)
    return found


def without_masks(paths: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The paths without masks, and a note on the skipped masks.

    Masks are files named after an image in the same folder, and files in a folder named `masks`
    beside a folder named `images`, or beside images.
    """
    masks = mask_files(paths) | _in_mask_folders(paths)
    if not masks:
        return list(paths), ()
    first = first_few([path for path in paths if path in masks], 2)
    note = f"{counted(len(masks), 'mask', 'was')} skipped, recognised by their names: {first}."
    return [path for path in paths if path not in masks], (note,)


def _in_mask_folders(paths: Sequence[str]) -> set[str]:
    with_images = {path.rpartition("/")[0] for path in paths}
    every = set(with_images)
    for folder in with_images:
        while folder:
            folder = folder.rpartition("/")[0]
            every.add(folder)
    beside: dict[str, set[str]] = defaultdict(set)
    for folder in every:
        parent, _, name = folder.rpartition("/")
        beside[parent].add(plain(name))
    masked = tuple(
        f"{folder}/"
        for folder in every
        if plain(folder.rpartition("/")[2]) in MASKS
        and _is_beside_images(folder.rpartition("/")[0], beside, with_images)
    )
    return {path for path in paths if path.startswith(masked)} if masked else set()


def _is_beside_images(parent: str, beside: dict[str, set[str]], with_images: set[str]) -> bool:
    return parent in with_images or bool(beside[parent] & IMAGES)
