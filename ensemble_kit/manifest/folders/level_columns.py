"""Fills columns of a manifest from levels of folders: class, patient, part, split."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.manifest.folders.levels import PART, Levels
from ensemble_kit.manifest.folders.split_words import PARTS, validation_note
from ensemble_kit.manifest.folders.words import parts_of


def folders_of(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """The folders above each image, from the top."""
    return [tuple(path.split("/")[:-1]) for path in paths]


def names_at(paths: Sequence[str], levels: Levels, role: str) -> list[str]:
    """The folder of this role above each image.

    Raises
    ------
    DataError
        An image is above this level.
    """
    depth = levels.roles.index(role)
    rows = folders_of(paths)
    loose = [path for path, row in zip(paths, rows, strict=True) if len(row) <= depth]
    if loose:
        raise DataError(
            f"{len(loose)} of {len(paths)} images are above the folders "
            f"{first_few(map(repr, levels.names[depth]), 3)} (first: {first_few(loose, 3)})",
            "each image must be inside one of these folders",
            "Move them into one of these folders, or out of the data",
        )
    return [row[depth] for row in rows]


def without_unlabelled(paths: Sequence[str], levels: Levels) -> tuple[list[str], tuple[str, ...]]:
    """The paths outside folders of unlabelled images, and a note on the skipped ones."""
    if not levels.unlabelled:
        return list(paths), ()
    labelled = [
        path
        for path, row in zip(paths, folders_of(paths), strict=True)
        if not set(row) & set(levels.unlabelled)
    ]
    shown = first_few(map(repr, levels.unlabelled))
    return labelled, (
        f"{len(paths) - len(labelled)} images in {shown} were skipped: they have no label.",
    )


def add_parts(table: pd.DataFrame, levels: Levels) -> tuple[str, ...]:
    """Fill the columns `part` and `split` from folders that are parts of a split; return notes."""
    if PART not in levels.roles:
        return ()
    table["part"] = names_at(table["path"].tolist(), levels, PART)
    words = parts_of(levels.names[levels.roles.index(PART)])
    table["split"] = [PARTS[words[name]] for name in table["part"]]
    return validation_note([words[name] for name in table["part"]])


def refuse_untrained(table: pd.DataFrame) -> None:
    """Refuse classes that have test images only.

    Raises
    ------
    DataError
        A class has no training images.
    """
    trained = set(table["label"][table["split"] == "train"])
    if unknown := sorted(set(table["label"]) - trained):
        raise DataError(
            f"train/ has no images of class {first_few(map(repr, unknown))}",
            "each class of the test part needs training images",
            did_you_mean(unknown[0], trained),
        )
