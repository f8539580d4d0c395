"""Leakage from initial checkpoints: images and colour space that a checkpoint was trained on.

The record in the checkpoint's fold folder is read. A checkpoint without a record is not checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.folds import Folds
from ensemble_kit.folds.fold_key import LeftOut, folds_in
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.fold_files import RECORD, read_record
from ensemble_kit.run import Run


def seen_before(weights: Path | None, manifest: Manifest, folds: Folds, fold: LeftOut) -> list[str]:
    """Caveats about held-out rows that an initial checkpoint was trained on; empty without such rows.

    Parameters
    ----------
    weights : path, optional
        Initial checkpoint: a file in a fold's folder, or one of its extra checkpoints.
    manifest, folds, fold
        The data of the job. The rows of `fold` and the test rows are held out.
    """
    record = _record_of(weights) if weights else None
    if weights is None or record is None:
        return []
    what = f"its initial checkpoint ('{weights}') was trained on"
    source = _source(_folder_of(weights), record, manifest, folds)
    if source is None:
        return [f"{what} images that its run no longer lists; held-out images may be among them."]
    other, other_folds = source
    train = other.part("train")
    seen = _images(train.take(~np.isin(other_folds.of(train), folds_in(record["fold"]))), manifest)
    train = manifest.part("train")
    held_out = train.take(np.isin(folds.of(train), folds_in(fold)))
    parts = (("out-of-fold", held_out), ("test", manifest.part("test")))
    return [
        f"{what} images that are held out here, so its {name} metrics are optimistic."
        for name, part in parts
        if seen & _images(part, other)
    ]


def in_another_color(weights: Path | None, color: str) -> list[str]:
    """A caveat if the initial checkpoint was trained in a colour space other than `color`."""
    record = _record_of(weights) if weights else None
    trained_color = record["made_of"]["member"].get("color", "rgb") if record else color
    if trained_color == color:
        return []
    return [
        f"its initial checkpoint ('{weights}') was trained on images in {trained_color}, but its input is "
        f"{color}: learned colours do not transfer."
    ]


def _folder_of(weights: Path) -> Path:
    """The fold's folder; extra checkpoints are in its subfolders."""
    here = weights.resolve().parent
    return here if (here / RECORD).is_file() else here.parent


def _record_of(weights: Path) -> dict[str, Any] | None:
    folder = _folder_of(weights)
    try:
        record = read_record(folder)
    except EnsembleKitError:
        return None
    name = weights.resolve().relative_to(folder).as_posix()
    return record if record and name in record.get("files", {}) else None


def _source(
    folder: Path, record: dict[str, Any], manifest: Manifest, folds: Folds
) -> tuple[Manifest, Folds] | None:
    """The manifest and folds of the checkpoint's own run; None if they changed."""
    made_of = record["made_of"]
    if (made_of["manifest"], made_of["folds"]) == (manifest.digest, folds.digest):
        return manifest, folds
    run = Run(folder.parents[2])  # <run>/members/<member>/fold-<k>
    try:
        there, folded = run.manifest(), run.folds()
    except EnsembleKitError:
        return None
    same = (there.digest, folded.digest) == (made_of["manifest"], made_of["folds"])
    return (there, folded) if same else None


def _images(part: Manifest, other: Manifest) -> set[str]:
    """Keys of a part's images: digests if both manifests have them, else sample ids."""
    by_bytes = "sha256" in part.table and "sha256" in other.table
    return set(part.table["sha256"] if by_bytes else part.sample_ids.tolist())
