"""Columns of a manifest from levels of folders: the folder of a role above each image, parts and splits.

Decides no role; the levels come from `levels` or `breakhis_folders`.
"""

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
        An image that stands above this level.
    """
    depth = levels.roles.index(role)
    rows = folders_of(paths)
    loose = [path for path, row in zip(paths, rows, strict=True) if len(row) <= depth]
    if loose:
        raise DataError(
            f"{len(loose)} of {len(paths)} images stand above the folders "
            f"{first_few(map(repr, levels.names[depth]), 3)}",
            f"first: {first_few(loose, 3)}",
            "Move them into one of these folders, or out of the data",
        )
    return [row[depth] for row in rows]


def without_unlabelled(paths: Sequence[str], levels: Levels) -> tuple[list[str], tuple[str, ...]]:
    """The paths outside of folders without labels, and a note on those inside."""
    if not levels.unlabelled:
        return list(paths), ()
    kept = [
        path
        for path, row in zip(paths, folders_of(paths), strict=True)
        if not set(row) & set(levels.unlabelled)
    ]
    shown = first_few(map(repr, levels.unlabelled))
    return kept, (f"{len(paths) - len(kept)} images in {shown} passed over: they have no label.",)


def add_parts(table: pd.DataFrame, levels: Levels) -> tuple[str, ...]:
    """Fill the columns `part` and `split` where folders are parts of a split; notes on them."""
    if PART not in levels.roles:
        return ()
    table["part"] = names_at(table["path"].tolist(), levels, PART)
    words = parts_of(levels.names[levels.roles.index(PART)])
    table["split"] = [PARTS[words[name]] for name in table["part"]]
    return validation_note([words[name] for name in table["part"]])


def refuse_untrained(table: pd.DataFrame) -> None:
    """Refuse classes that have images for the test alone.

    Raises
    ------
    DataError
        There is such a class.
    """
    trained = set(table["label"][table["split"] == "train"])
    if strange := sorted(set(table["label"]) - trained):
        raise DataError(
            "Every class of the test part is trained",
            f"train/ has no images of {first_few(map(repr, strange))}",
            did_you_mean(strange[0], trained),
        )
