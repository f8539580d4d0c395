"""Splits that the user gives: honoured as they are, checked, never made anew.

Knows one table: `sample_id, split[, fold]`.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pandas as pd

from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.files import read_csv
from ensemble_kit.folds.table import Folds
from ensemble_kit.manifest.table import Manifest


def read_splits(
    path: str | os.PathLike[str], manifest: Manifest, *, by: str = "group"
) -> tuple[Manifest, Folds | None]:
    """The user's split of a manifest, and his folds where the table has them.

    Parameters
    ----------
    path : path
        A CSV with `sample_id` (or `path`) and `split` (`train` or `test`; `validation`, `val` and
        `valid` count as `train`, since folds are made from it), and perhaps `fold` (0, 1, ...; empty
        for test rows).
    by : {"group", "image"}
        `image` allows groups on both sides, and is stamped.

    Returns
    -------
    manifest : Manifest
        Rows in their old order with the given split.
    folds : Folds or None

    Raises
    ------
    DataError
        Missing columns, images without a split or that are not there, or a group on both sides or
        in two folds.
    """
    table = read_csv(path)
    key = "sample_id" if "sample_id" in table else "path"
    for column in (key, "split"):
        if column not in table:
            raise DataError(
                "A table of splits has the columns sample_id (or path), split and perhaps fold",
                f"'{path}' has {first_few(table.columns, 12)}",
                did_you_mean(column, map(str, table.columns)),
            )
    rows = table.set_index(key)
    wanted = manifest.table[key]
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()]
        raise DataError(
            "Every image has one split",
            f"'{path}' names {first_few(twice, 3)} twice",
            "Keep one row",
        )
    missing, strange = sorted(set(wanted) - set(rows.index)), sorted(set(rows.index) - set(wanted))
    if missing or strange:
        raise DataError(
            "A table of splits names exactly the images of the data",
            f"{len(missing)} images have no row ({first_few(missing, 3)}), and {len(strange)} rows "
            f"name no image ({first_few(strange, 3)})",
            f"Give every image one row by its {key}",
        )
    rows = rows.loc[wanted]
    split = (
        rows["split"].str.lower().replace(dict.fromkeys(("validation", "val", "valid"), "train"))
    )
    named = dataclasses.replace(
        manifest, table=manifest.table.assign(split=split.to_numpy()), split_by=by
    )
    return named, _given_folds(path, rows, named, by)


def _given_folds(path: object, rows: pd.DataFrame, manifest: Manifest, by: str) -> Folds | None:
    if "fold" not in rows:
        return None
    training = (manifest.table["split"] == "train").to_numpy()
    try:
        fold = rows["fold"].to_numpy()[training].astype(np.int64)
    except ValueError as error:
        raise DataError(
            "Every training image has a fold, numbered 0, 1, ...",
            f"'{path}': {error}",
            "Fill the column, or leave it out",
        ) from error
    part = manifest.part("train")
    folds = Folds(part.sample_ids, fold, by)
    folds.of(part)
    for k in range(folds.n_splits):
        untrained = set(part.table["label"]) - set(part.table["label"][fold != k])
        if untrained:
            raise DataError(
                "Every class is in the training part of every fold",
                f"without fold {k} of '{path}' there is no image of {first_few(sorted(untrained))}",
                "Spread that class over two folds, or leave the fold column out",
            )
    return folds
