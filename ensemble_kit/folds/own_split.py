"""The split that data bring: another part of it as the test part, or none of it.

Knows the columns `split` and `part` only; draws nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.folds.group_counts import check_by
from ensemble_kit.manifest.folders.words import part_word
from ensemble_kit.manifest.table import Manifest


def validation_as_test(manifest: Manifest, *, by: str = "group") -> Manifest:
    """`manifest` with its validation images as the test part.

    Parameters
    ----------
    manifest : Manifest
        With a column `part`: `val`, `valid` or `validation` where its validation images are.
    by : {"group", "image"}
        `image` allows groups in validation and in training.

    Raises
    ------
    DataError
        There are no validation images, or a group of theirs is in training.
    UsageError
        The data have a test part already.
    """
    check_by(by)
    is_valid = _is_validation(manifest)
    if not is_valid.any():
        raise DataError(
            "These data have no validation part to test on (--test-part valid)",
            f"their parts are {first_few(map(repr, _parts(manifest).unique()))}",
            "Leave it out",
        )
    n_test = len(manifest.part("test"))
    if n_test:
        raise UsageError(
            f"These data have a test part of {n_test} images",
            "--test-part valid would train on them",
            "Leave it out, or take the test images out of the data",
        )
    split = np.where(is_valid, "test", "train")
    notes = tuple(note for note in manifest.notes if "validation images joined" not in note)
    return dataclasses.replace(
        manifest, table=manifest.table.assign(split=split), notes=notes, split_by=by
    )


def validation_question(manifest: Manifest) -> tuple[str, ...]:
    """What is said where a test part is drawn although there are validation images."""
    n = int(_is_validation(manifest).sum())
    if not n:
        return ()
    return (
        f"A test part is drawn, in part from {n} validation images. If these are your test part: "
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
    """`manifest` with every image in training, so that a test part can be drawn from all."""
    n_test = len(manifest.part("test"))
    drawn = manifest.with_columns(split="train")
    if not n_test:
        return drawn
    return drawn.with_notes(
        f"The data's own test part ({n_test} images) is replaced: test_part = drawn."
    )
