"""Skips unreadable images if the user asks for it, and names them in a caveat."""

from __future__ import annotations

import numpy as np

from ensemble_kit.errors import DataError, counted, first_few
from ensemble_kit.images.decode import read_image
from ensemble_kit.images.digests import map_images, refuse_lack_of_memory
from ensemble_kit.manifest.table import Manifest


def without_unreadable(manifest: Manifest, *, max_bad: int) -> Manifest:
    """`manifest` without unreadable images, and a caveat that names them.

    Every image is decoded in full, because a cut-off JPEG is recognised only then.

    Parameters
    ----------
    max_bad : int
        Largest number of unreadable images; more are an error.

    Raises
    ------
    EnvironmentFault
        An image does not fit into memory.
    DataError
        Too many images are unreadable, or a class would be left without images.
    """
    columns = [c for c in ("path", "pair_path") if c in manifest.table]
    rows = [
        [p for p in row if p] for row in manifest.table[columns].astype(str).itertuples(index=False)
    ]
    _, faults = map_images(lambda row: [read_image(manifest.root, p).shape for p in row], rows)
    refuse_lack_of_memory(faults)
    if not faults:
        return manifest
    bad = np.isin(np.arange(len(manifest)), list(faults))
    named = first_few(manifest.sample_ids[bad], max(max_bad, 5))
    if len(faults) > max_bad:
        raise DataError(
            f"{len(faults)} of {len(manifest)} images cannot be read: {named}",
            f"at most {max_bad} may be skipped",
            "Replace them, or allow more with --max-bad",
        )
    readable = manifest.take(~bad)
    missing = sorted(set(manifest.table["label"]) - set(readable.table["label"]))
    if missing:
        raise DataError(
            f"All images of class {first_few(missing)} are unreadable: {named}",
            "each class needs at least one image",
            "Replace them",
        )
    skipped = counted(len(faults), "unreadable image", "was")
    return readable.with_notes(f"{skipped} skipped: {named}.")
