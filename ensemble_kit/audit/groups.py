"""Infers groups for data without patients: near-duplicate images form one group.

The groups keep copies on one side of a split. The patients remain unknown, so there is a caveat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ensemble_kit.audit.fingerprint import clusters, near_pairs
from ensemble_kit.audit.inspect import inspect_images
from ensemble_kit.errors import DataError, counted
from ensemble_kit.manifest.checks import groups_on_both_sides
from ensemble_kit.manifest.table import Manifest

INFERRED = "inferred group"


def infer_groups(
    manifest: Manifest, *, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """`manifest` with a group for each set of near-duplicate images, with a caveat.

    Turned, mirrored and re-encoded copies are found. Overlapping or neighbouring fields of one slide
    are not found, so metrics may still be too optimistic.

    Parameters
    ----------
    manifest : Manifest
        Without known groups.
    progress : callable or None
        Called with (images done, total number of images).

    Returns
    -------
    Manifest
        `group_kind` is "inferred group". Its split is by image if inferred groups are on both sides.

    Raises
    ------
    DataError
        The groups are known, or an image cannot be read.
    """
    if manifest.has_groups:
        raise DataError(
            f"The images already have {manifest.n_groups} groups ({manifest.group_kind})",
            "groups are inferred only if none are known",
            "Use the known groups",
        )
    inspected = inspect_images(manifest, progress=progress)[: len(manifest)]
    bad = [one.fault for one in inspected if one.fault]
    if bad:
        raise DataError(
            f"{counted(len(bad), 'image')} cannot be read ({bad[0]})",
            "groups are inferred from all images",
            "Replace them",
        )
    signs = np.stack([one.signs for one in inspected if one.signs is not None])
    thumbs = np.stack([one.thumb for one in inspected if one.thumb is not None])
    number = clusters(len(inspected), near_pairs(signs, thumbs))
    names = manifest.sample_ids[number]
    note = (
        f"Groups are inferred: {len(manifest)} images form {counted(len(np.unique(names)), 'group')} of near-duplicates. "
        "The patients are not known, so metrics may be too optimistic."
    )
    grouped = manifest.table.assign(group=names)
    return dataclasses.replace(
        manifest,
        table=grouped,
        group_kind=INFERRED,
        notes=(*(n for n in manifest.notes if "its own group" not in n), note),
        split_by="image" if groups_on_both_sides(grouped) else manifest.split_by,
    )
