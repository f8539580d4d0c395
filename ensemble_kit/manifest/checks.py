"""What a manifest's table must hold: its columns, ids, labels, groups, splits and paths.

Checks; changes nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.formulas import unguarded
from ensemble_kit.manifest.columns import known_columns
from ensemble_kit.tables import UserTable, read_table

REQUIRED = ("sample_id", "path", "label", "group", "split")
SPLITS = ("train", "test")


def table_with(path: str | os.PathLike[str], *columns: str, what: str) -> UserTable:
    """A user's table that has these columns; their names are compared as `known_columns` does.

    Raises
    ------
    DataError
        No table, or a column is missing: `what` says what the table is called then.
    """
    read = read_table(path)
    found = {name: known_columns(read.frame.columns, (name,)) for name in columns}
    names = {own[0]: name for name, own in found.items() if own and name not in own}
    table = read.frame.rename(columns=names).map(unguarded)  # as tables of runs are written
    refuse_missing(table, columns, what, f"in '{path}' are")
    return dataclasses.replace(read, frame=table)


def refuse_missing(
    table: pd.DataFrame, columns: Sequence[str], what: str, where: str = "found:"
) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise DataError(
            f"{what} has the columns {', '.join(columns)}",
            f"missing: {', '.join(missing)}; {where} {first_few(table.columns, 12)}",
            did_you_mean(missing[0], map(str, table.columns)),
        )


def require_columns(table: pd.DataFrame) -> None:
    refuse_missing(table, REQUIRED, "A manifest")
    if not len(table):
        raise DataError(
            "A manifest has at least one image", "got none", "Check the folder or the table"
        )


def check_rows(
    table: pd.DataFrame, class_names: tuple[str, ...], absent: Sequence[str] = ()
) -> None:
    ids = table["sample_id"]
    if ids.duplicated().any():
        twice = ids[ids.duplicated()].unique()
        raise DataError(
            "Every sample id stands for one image",
            f"{len(twice)} ids stand more than once (first: {first_few(twice, 3)})",
            "Rename those files or drop the repeated rows",
        )
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        raise DataError(
            "A classifier needs at least two different classes",
            f"got {list(class_names)} over {len(table)} images",
            "Check the folder names or the label column",
        )
    counts = table["label"].value_counts()
    unknown = [label for label in counts.index if label not in class_names]
    if unknown:
        raise DataError(
            f"Every label is one of {', '.join(class_names)}",
            f"{counts[unknown].sum()} images have others: {first_few(map(repr, unknown))}",
            did_you_mean(unknown[0], class_names),
        )
    empty = [name for name in class_names if name not in (*counts.index, *absent)]
    if empty:
        have = first_few(f"{n}: {c}" for n, c in counts.items())
        raise DataError(
            "Every class has at least one image",
            f"{first_few(map(repr, empty))} has none ({have})",
            "Add its images, or remove the class",
        )
    _check_groups(table)
    _check_paths(table["path"])


def _check_groups(table: pd.DataFrame) -> None:
    blank = table["group"].str.strip().isin(["", "nan", "None"])
    if blank.any():
        raise DataError(
            "Every image belongs to a group (its patient)",
            f"{blank.sum()} of {len(table)} have none (first: {first_few(table['sample_id'][blank], 3)})",
            "Fill the group column, or leave the whole column out so that each image stands for itself",
        )
    odd = ~table["split"].isin(SPLITS)
    if odd.any():
        raise DataError(
            "A split is 'train' or 'test'",
            f"{odd.sum()} rows say {first_few(table['split'][odd].unique())}",
            "Use those two words; validation images join 'train', since folds are made from it",
        )


def check_positive(positive: str, class_names: Sequence[str]) -> None:
    if positive and positive not in class_names:
        raise DataError(
            f"The positive class '{positive}' is none of the classes",
            f"the classes are {first_few(map(repr, class_names))}",
            did_you_mean(positive, class_names),
        )


def check_straddling(table: pd.DataFrame) -> None:
    straddling = groups_on_both_sides(table)
    if straddling:
        raise DataError(
            f"{len(straddling)} groups (patients) stand on both sides of the test split",
            f"images of {first_few(straddling)} are in train and in test",
            "To draw a test part of whole groups: --test-part drawn. To keep this split knowingly, "
            "with a caveat beside every result: --split-by image",
        )


def groups_on_both_sides(table: pd.DataFrame) -> list[str]:
    """Names of the groups that have images in train and in test, sorted."""
    sides = table.groupby("group")["split"].nunique()
    return sorted(str(name) for name in sides.index[sides > 1])


def _check_paths(paths: pd.Series) -> None:
    for path in paths[paths.str.startswith("/") | paths.str.contains("..", regex=False)]:
        if path.startswith("/") or ".." in Path(path).parts:
            raise DataError(
                "Image paths stay inside the data folder",
                f"got '{path}'",
                "Give paths relative to that folder",
            )
