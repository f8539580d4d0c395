"""Which images first weights have seen before, and in what colours, where a fold's own record tells.

Reads records and tables; knows no network. A file that was copied away from its record tells nothing.
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
    """Caveats of metrics on rows that an initial checkpoint was trained on; empty without such rows.

    Parameters
    ----------
    weights : path, optional
        First weights: of interest is a file in a fold's folder, or in one of its further weights.
    manifest, folds, fold
        Of the job that starts from them: its rows of `fold` and its test rows are kept out.
    """
    record = _record_beside(weights) if weights else None
    if weights is None or record is None:
        return []
    what = f"its first weights ('{weights}') were trained on images"
    source = _source(_folder_of(weights), record, manifest, folds)
    if source is None:
        return [f"{what} that their run does not tell any more: they may be among those kept out."]
    there, folded = source
    train = there.part("train")
    seen = _images(train.take(~np.isin(folded.of(train), folds_in(record["fold"]))), manifest)
    ours = manifest.part("train")
    held_out = ours.take(np.isin(folds.of(ours), folds_in(fold)))
    parts = (("out-of-fold", held_out), ("test", manifest.part("test")))
    return [
        f"{what} that are kept out here, so its {name} metrics are optimistic."
        for name, part in parts
        if seen & _images(part, there)
    ]


def in_another_color(weights: Path | None, color: str) -> list[str]:
    """Caveats of initial checkpoints that were trained in another colour space than `color`; may be empty."""
    record = _record_beside(weights) if weights else None
    theirs = record["made_of"]["member"].get("color", "rgb") if record else color
    if theirs == color:
        return []
    return [
        f"its first weights ('{weights}') were trained on images in {theirs}, and it sees {color}: "
        "what they know of colours does not hold here."
    ]


def _folder_of(weights: Path) -> Path:
    """The fold's folder; further weights lie one below it."""
    here = weights.resolve().parent
    return here if (here / RECORD).is_file() else here.parent


def _record_beside(weights: Path) -> dict[str, Any] | None:
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
    """The data that the weights' own run was made of."""
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
    """What a part's images are known by in both manifests: their bytes, else their names."""
    by_bytes = "sha256" in part.table and "sha256" in other.table
    return set(part.table["sha256"] if by_bytes else part.sample_ids.tolist())
