"""Checks the table of a manifest: columns, ids, labels, groups, splits and paths."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ensemble_kit.errors import DataError, UsageError, counted, did_you_mean, first_few
from ensemble_kit.formulas import unguarded
from ensemble_kit.manifest.columns import known_columns
from ensemble_kit.tables import UserTable, read_table

REQUIRED = ("sample_id", "path", "label", "group", "split")
SPLITS = ("train", "test")


def table_with(path: str | os.PathLike[str], *columns: str, what: str) -> UserTable:
    """A user's table with these columns; their names are compared as in `known_columns`.

    Raises
    ------
    DataError
        The file is not a table, or a column is missing. `what` names the table in the message.
    """
    read = read_table(path)
    found = {name: known_columns(read.frame.columns, (name,)) for name in columns}
    names = {own[0]: name for name, own in found.items() if own and name not in own}
    table = read.frame.rename(columns=names).map(
        unguarded
    )  # tables of runs are written by this package
    refuse_missing(table, columns, what, f"in '{path}' are")
    return dataclasses.replace(read, frame=table)


def refuse_missing(
    table: pd.DataFrame, columns: Sequence[str], what: str, where: str = "found:"
) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise DataError(
            f"{what} has no column {', '.join(missing)}; {where} {first_few(table.columns, 12)}",
            f"it needs the columns {', '.join(columns)}",
            did_you_mean(missing[0], map(str, table.columns)),
        )


def require_columns(table: pd.DataFrame) -> None:
    refuse_missing(table, REQUIRED, "A manifest")
    if not len(table):
        raise DataError(
            "No images were found",
            "a manifest needs at least one image",
            "Check the folder or the table",
        )


def check_rows(
    table: pd.DataFrame, class_names: tuple[str, ...], absent: Sequence[str] = ()
) -> None:
    ids = table["sample_id"]
    if ids.duplicated().any():
        twice = ids[ids.duplicated()].unique()
        raise DataError(
            f"{len(twice)} sample ids occur more than once (first: {first_few(twice, 3)})",
            "each sample id names one image",
            "Rename those files, or remove the repeated rows",
        )
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        raise DataError(
            f"The data have the classes {list(class_names)} ({len(table)} images)",
            "a data set needs at least two different classes",
            "Check the folder names or the label column",
        )
    counts = table["label"].value_counts()
    unknown = [label for label in counts.index if label not in class_names]
    if unknown:
        raise DataError(
            f"{counted(int(counts[unknown].sum()), 'image', 'has')} unknown labels: {first_few(map(repr, unknown))}",
            f"the classes are {', '.join(class_names)}",
            did_you_mean(unknown[0], class_names),
        )
    empty = [name for name in class_names if name not in (*counts.index, *absent)]
    if empty:
        have = first_few(f"{n}: {c}" for n, c in counts.items())
        raise DataError(
            f"There are no images of class {first_few(map(repr, empty))} ({have})",
            "each class needs at least one image",
            "Add its images, or remove the class",
        )
    _check_groups(table)
    _check_paths(table["path"])


def _check_groups(table: pd.DataFrame) -> None:
    blank = table["group"].str.strip().isin(["", "nan", "None"])
    if blank.any():
        raise DataError(
            f"{blank.sum()} of {len(table)} images have no group, i.e. no patient (first: {first_few(table['sample_id'][blank], 3)})",
            "if groups are given, each image needs one",
            "Fill in the group column. Or remove the whole column: each image is then its own group",
        )
    odd = ~table["split"].isin(SPLITS)
    if odd.any():
        raise DataError(
            f"{odd.sum()} rows have the split {first_few(table['split'][odd].unique())}",
            "a split is 'train' or 'test'",
            "Use these two words. Validation images are 'train': the folds are made from them",
        )


def check_choice(option: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not in `known`.

    Raises
    ------
    UsageError
        The value is unknown.
    """
    if value not in known:
        raise UsageError(
            f"Unknown value '{value}' for {option}",
            f"the values are {', '.join(known)}",
            did_you_mean(value, known),
        )


def check_positive(positive: str, class_names: Sequence[str]) -> None:
    if positive and positive not in class_names:
        raise DataError(
            f"Unknown positive class '{positive}'",
            f"the classes are {first_few(map(repr, class_names))}",
            did_you_mean(positive, class_names),
        )


def check_straddling(table: pd.DataFrame) -> None:
    straddling = groups_on_both_sides(table)
    if straddling:
        raise DataError(
            f"{counted(len(straddling), 'group')} (patients) {'is' if len(straddling) == 1 else 'are'} on both sides of the test split: {first_few(straddling)}",
            "all images of a group must be on one side",
            "To draw a new test part of whole groups: --test-part drawn. To keep this split, "
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
                f"'{path}' is outside the data folder",
                "images must be inside it",
                "Give paths relative to the data folder",
            )
