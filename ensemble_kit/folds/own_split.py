"""Uses the split of the data: their validation images as the test part, or no test part."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.errors import DataError, UsageError, counted, first_few
from ensemble_kit.folds.group_counts import check_by
from ensemble_kit.manifest.folders.words import part_word
from ensemble_kit.manifest.table import Manifest


def validation_as_test(manifest: Manifest, *, by: str = "group") -> Manifest:
    """`manifest` with its validation images as the test part.

    Parameters
    ----------
    manifest : Manifest
        Has a column `part`, which is `val`, `valid` or `validation` for validation images.
    by : {"group", "image"}
        `image` allows groups in validation and in training.

    Raises
    ------
    DataError
        There are no validation images, or one of their groups is in training.
    UsageError
        The data already have a test part.
    """
    check_by(by)
    is_valid = _is_validation(manifest)
    if not is_valid.any():
        raise DataError(
            f"The data have the parts {first_few(map(repr, _parts(manifest).unique()))}",
            "--test-part valid needs validation images",
            "Leave out --test-part",
        )
    n_test = len(manifest.part("test"))
    if n_test:
        raise UsageError(
            f"The data also have a test part of {counted(n_test, 'image')}",
            "with --test-part valid, these images would become training images",
            "Leave out --test-part, or take the test images out of the data",
        )
    split = np.where(is_valid, "test", "train")
    notes = tuple(note for note in manifest.notes if "validation images are used" not in note)
    return dataclasses.replace(
        manifest, table=manifest.table.assign(split=split), notes=notes, split_by=by
    )


def validation_note(manifest: Manifest) -> tuple[str, ...]:
    """A note that validation images may be drawn into the test part; empty without such images."""
    n = int(_is_validation(manifest).sum())
    if not n:
        return ()
    return (
        f"A random test part is drawn, also from {n} validation images. To use these as the test part: "
        "--test-part valid.",
    )


def _parts(manifest: Manifest) -> pd.Series:
    return manifest.table.get("part", manifest.table["split"]).astype(str)


def _is_validation(manifest: Manifest) -> npt.NDArray[np.bool_]:
    parts = _parts(manifest)
    words = {part: part_word(part) for part in parts.unique()}
    valid = {part for part, word in words.items() if word and word[0].startswith("val")}
    return parts.isin(valid).to_numpy()


def without_split(manifest: Manifest) -> Manifest:
    """`manifest` with all images in training, so that a test part can be drawn from all."""
    n_test = len(manifest.part("test"))
    drawn = manifest.with_columns(split="train")
    if not n_test:
        return drawn
    return drawn.with_notes(
        f"The test part of the data ({counted(n_test, 'image')}) is replaced by a random one (test_part = drawn)."
    )
