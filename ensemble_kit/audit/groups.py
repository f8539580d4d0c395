"""Groups for data that publish none: images whose tissue looks the same stand together.

A guess, stamped as one: it keeps copies on one side, it does not know patients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ensemble_kit.audit.fingerprint import clusters, near_pairs
from ensemble_kit.audit.inspect import look_at_images
from ensemble_kit.errors import DataError
from ensemble_kit.manifest.table import Manifest

INFERRED = "inferred group"


def infer_groups(
    manifest: Manifest, *, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """`manifest` with a group for each set of near-duplicate images, and a note that says so.

    Copies that are turned, mirrored or re-encoded are found; overlapping or neighbouring fields of
    one slide are not, so figures may still be too good.

    Parameters
    ----------
    manifest : Manifest
        Without known groups.
    progress : callable or None
        Called with (images done, images in all).

    Returns
    -------
    Manifest
        `group_kind` is "inferred group"; split by image where its own split straddles them.

    Raises
    ------
    DataError
        The groups are known, or an image cannot be read.
    """
    if manifest.has_groups:
        raise DataError(
            "Groups are inferred where none are known",
            f"these images have {manifest.n_groups} ({manifest.group_kind})",
            "Use them as they are",
        )
    looks = look_at_images(manifest, progress=progress)[: len(manifest)]
    bad = [look.fault for look in looks if look.fault]
    if bad:
        raise DataError(
            "Every image must be readable", f"{len(bad)} are not ({bad[0]})", "Replace them"
        )
    signs = np.stack([look.signs for look in looks if look.signs is not None])
    thumbs = np.stack([look.thumb for look in looks if look.thumb is not None])
    number = clusters(len(looks), near_pairs(signs, thumbs))
    names = manifest.sample_ids[number]
    note = (
        f"Groups are inferred: {len(manifest)} images that look alike form {len(np.unique(names))} groups. "
        "Who the patients are is not known, so figures may be too good."
    )
    grouped = manifest.table.assign(group=names)
    straddles = bool((grouped.groupby("group")["split"].nunique() > 1).any())
    return dataclasses.replace(
        manifest,
        table=grouped,
        group_kind=INFERRED,
        notes=(*(n for n in manifest.notes if "its own group" not in n), note),
        split_by="image" if straddles else manifest.split_by,
    )
