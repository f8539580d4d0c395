"""Reads and checks the user's own split: a table `sample_id, split[, fold]`."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.errors import DataError, counted, did_you_mean, first_few
from ensemble_kit.folds.table import Folds, whole_folds
from ensemble_kit.manifest.folders.split_words import split_of_rows, validation_note
from ensemble_kit.manifest.image_files import posix
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.tables import read_table


def read_splits(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    by: str = "group",
    left_out: Manifest | None = None,
) -> tuple[Manifest, Folds | None]:
    """The user's split of a manifest, and the folds if the table has them.

    Parameters
    ----------
    path : path
        A CSV with `sample_id` (or `path`) and `split` (`train` or `test`; `validation`, `val` and
        `valid` count as `train`, because the folds are made from them), and optionally `fold`
        (0, 1, ... or 1, 2, ...; empty for test rows).
    by : {"group", "image"}
        `image` allows groups on both sides. If folds are given, the caveat is shown only if a group
        is on both sides.
    left_out : Manifest or None
        Images of the data that were skipped: their rows are ignored, with a note.

    Returns
    -------
    manifest : Manifest
        Rows in the same order, with the given split.
    folds : Folds or None

    Raises
    ------
    DataError
        A column is missing, an image has no split or does not exist, or a group is on both sides
        or in two folds.
    """
    rows, notes = _rows(path)
    manifest = manifest.with_notes(*notes)
    key = str(rows.index.name)
    if left_out is not None:
        gone = rows.index.isin(left_out.table[key])
        if gone.any():
            manifest = manifest.with_notes(
                f"{counted(int(gone.sum()), 'row')} of '{path}' {'is' if gone.sum() == 1 else 'are'} ignored: their images were skipped."
            )
        rows = rows[~gone]
    wanted = manifest.table[key]
    missing, unknown = sorted(set(wanted) - set(rows.index)), sorted(set(rows.index) - set(wanted))
    if missing or unknown:
        raise DataError(
            f"The table of splits does not match the data: {counted(len(missing), 'image', 'has')} no row "
            f"({first_few(missing, 3)}), and {counted(len(unknown), 'row')} {'names' if len(unknown) == 1 else 'name'} no image ({first_few(unknown, 3)})",
            "it needs exactly one row for each image",
            f"Give each image one row by its {key}",
        )
    rows = rows.loc[wanted]
    named = dataclasses.replace(
        manifest, table=manifest.table.assign(split=rows["split"].to_numpy()), split_by=by
    )
    if "fold" not in rows:
        return named, None
    fold, caveats = whole_folds(rows["fold"][_is_train(rows)], path)
    by = by if _splits_a_group(named, fold) else "group"
    named = dataclasses.replace(named, split_by=by)
    folds = _given_folds(path, fold, named, by)
    return named, dataclasses.replace(folds, notes=caveats)


def n_given_folds(path: str | os.PathLike[str]) -> int | None:
    """The number of folds in a table of splits; None without a column `fold`.

    Raises
    ------
    DataError
        The table cannot be read, as in `read_splits`.
    """
    rows, _ = _rows(path)
    if "fold" not in rows:
        return None
    return len(np.unique(whole_folds(rows["fold"][_is_train(rows)], path)[0]))


def _rows(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table by its `sample_id` (or `path`), with splits `train` or `test`, and notes."""
    read = read_table(path)
    table = read.frame
    key = "sample_id" if "sample_id" in table else "path"
    for column in (key, "split"):
        if column not in table:
            raise DataError(
                f"'{path}' has the columns {first_few(table.columns, 12)}",
                "a table of splits has the columns sample_id (or path), split and, if you like, fold",
                did_you_mean(column, map(str, table.columns)),
            )
    written = table["split"].tolist()
    table = table.assign(split=split_of_rows(read))
    if key == "path":
        table[key] = table[key].map(posix)
    rows = table.set_index(key)
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()]
        raise DataError(
            f"'{path}' has more than one row for {first_few(twice, 3)}",
            "each image needs exactly one row",
            "Keep one row of each image",
        )
    return rows, (*read.notes, *validation_note(written))


def _is_train(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return (rows["split"] == "train").to_numpy()


def _splits_a_group(manifest: Manifest, fold: npt.NDArray[np.int64]) -> bool:
    """Whether a group is on both sides or in two folds; `fold` is that of the training rows."""
    place = np.full(len(manifest), -1)
    place[_is_train(manifest.table)] = fold
    return bool((pd.Series(place).groupby(manifest.groups).nunique() > 1).any())


def _given_folds(path: object, fold: npt.NDArray[np.int64], manifest: Manifest, by: str) -> Folds:
    part = manifest.part("train")
    folds = Folds(part.sample_ids, fold, by)
    folds.of(part)
    for k in range(folds.n_splits):
        untrained = set(part.table["label"]) - set(part.table["label"][fold != k])
        if untrained:
            raise DataError(
                f"Without fold {k} of '{path}' there is no training image of class {first_few(sorted(untrained))}",
                "each class must be in at least two folds",
                "Assign images of that class to another fold too, or remove the column fold",
            )
    return folds
