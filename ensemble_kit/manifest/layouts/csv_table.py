"""Reads a table of images: a CSV with a path or id, a label, and optionally a group and a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ensemble_kit.errors import DataError, counted, did_you_mean, first_few
from ensemble_kit.manifest.columns import GROUP_WORDS, GROUPS, LABELS, PATHS, known_columns
from ensemble_kit.manifest.folders.split_words import split_of_rows, validation_note
from ensemble_kit.manifest.image_files import find_images, images_beside
from ensemble_kit.manifest.layouts.class_folders import NO_PATIENTS, is_her2
from ensemble_kit.manifest.names import in_natural_order, known_groups, refuse_near_equal
from ensemble_kit.manifest.table import NO_GROUPS, Manifest
from ensemble_kit.tables import UserTable, read_table


def read_csv_table(
    path: str | os.PathLike[str],
    *,
    image_root: str | os.PathLike[str] | None = None,
    image_suffix: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    split_by: str = "group",
) -> Manifest:
    """A manifest from a table `path,label,group[,split]` or `id,label`.

    Parameters
    ----------
    path : path
        The table. All its columns are copied. The ids of the images are the column `sample_id`, or
        their paths. A column `split` has train, val or test.
    image_root : path or None
        The folder of the images; the folder of the table by default. An image that is not at its
        path is searched there by its name, with or without extension.
    image_suffix : str or None
        Added to the names of the table, e.g. `.tif`.
    path_column, label_column, group_column : str or None
        Columns to use; by default the first known one (path, file, id, ...; label, class,
        ...; group, patient, ...). Without a group column each image is its own group, with a
        caveat.
    split_by : {"group", "image"}
        `image` allows groups in train and in test, with a caveat.

    Raises
    ------
    DataError
        A missing column or file, a name of several files, an empty label, classes whose names are
        nearly equal, an unknown patient, a path that leaves `image_root`, an unknown split.
    """
    read = read_table(path)
    frame = read.frame
    home = Path(image_root) if image_root is not None else Path(path).parent
    names = _column(read, "path", path_column, PATHS)
    labels = _column(read, "label", label_column, LABELS)
    group = _group_column(read, group_column)
    _refuse_blank(read, labels)
    found = find_images(home, frame[names], frame[labels], suffix=image_suffix, table=str(path))
    table = frame.assign(path=found, label=frame[labels])
    if "sample_id" not in frame:
        table["sample_id"] = table["path"]
    table["group"] = table["sample_id"]
    if group:
        where = f"column '{group}' of '{path}'"
        table["group"] = known_groups(frame[group], table["sample_id"], where=where)
    if "split" in frame and "part" not in frame:
        table["part"] = frame["split"]
    table["split"] = split_of_rows(read) if "split" in frame else "train"
    class_names = in_natural_order(table["label"])
    refuse_near_equal(class_names, str(path))
    notes = (
        *(() if group else (_no_groups(frame.columns),)),
        *read.notes,
        *_ignored_labels(read, labels, label_column),
        *(validation_note(frame["split"].tolist()) if "split" in frame else ()),
        *images_beside(home, found, Path(path).name),
        *_other_folders(found, table["label"].tolist()),
    )
    return Manifest(
        table,
        class_names,
        root=home,
        ordinal=is_her2(class_names),
        group_kind=group or NO_GROUPS,
        name=home.resolve().name,
        split_by=split_by,
        notes=notes,
        layout=_layout(names, labels, group, found),
    )


def looks_like_table(path: Path) -> bool:
    """Whether a CSV has known columns for images and labels."""
    try:
        read = read_table(path)
    except DataError:
        return False
    return bool(known_columns(read.frame, PATHS)) and bool(known_columns(read.frame, LABELS))


def _column(read: UserTable, what: str, chosen: str | None, known: tuple[str, ...]) -> str:
    candidates = [chosen] if chosen else known_columns(read.frame, known)
    if candidates and candidates[0] in read.frame:
        return candidates[0]
    columns = [str(c) for c in read.frame.columns]
    raise DataError(
        f"'{read.path}' has no column "
        + (f"'{chosen}'" if chosen else f"for the {what} ({', '.join(known)})"),
        f"its columns are {first_few(columns, 12)}",
        f"{did_you_mean(chosen or what, columns)} (choose it: --{what}-column)",
    )


def _group_column(read: UserTable, chosen: str | None) -> str | None:
    if chosen:
        return _column(read, "group", chosen, GROUPS)
    return next(iter(known_columns(read.frame, GROUPS)), None)


def _no_groups(columns: Sequence[object]) -> str:
    """A caveat that no group is known, with the columns that may hold the groups."""
    like = [c for c in map(str, columns) if any(w in c.lower() for w in GROUP_WORDS)]
    if not like:
        return NO_PATIENTS
    return f"{NO_PATIENTS} Does column {first_few(like)} contain them? Use --group-column."


def _layout(names: str, labels: str, group: str | None, found: list[str]) -> str:
    """The columns that are used and the place of the images, for the plan."""
    patients = f"column '{group}'" if group else "not known (to set them: --group-column)"
    return (
        f"a table; images: column '{names}' (first: {found[0]}); labels: column '{labels}'; "
        f"patients: {patients}"
    )


def _refuse_blank(read: UserTable, column: str) -> None:
    blank = read.frame[column] == ""
    if blank.any():
        raise DataError(
            f"Column '{column}' of '{read.path}' is empty in {counted(int(blank.sum()), 'row')} ({read.where(blank)})",
            "each image needs a label",
            "Fill in the labels",
        )


def _ignored_labels(read: UserTable, used: str, chosen: str | None) -> tuple[str, ...]:
    others = [name for name in known_columns(read.frame, LABELS) if name != used]
    if chosen or not others:
        return ()
    return (
        f"The labels are from column '{used}'; column {first_few(map(repr, others))} is not "
        "used. To change this: --label-column.",
    )


def _other_folders(paths: list[str], labels: list[str]) -> tuple[str, ...]:
    """A note on images in the folder of another class than their label."""
    folders = [path.split("/")[:-1] for path in paths]
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1 and set(level) <= set(labels):
            break
    else:
        return ()
    wrong = [
        f"'{path}' is labelled '{label}'"
        for path, folder, label in zip(paths, level, labels, strict=True)
        if folder != label
    ]
    if not wrong:
        return ()
    return (
        f"{len(wrong)} of {len(paths)} images are in the folder of another class than their "
        f"label ({first_few(wrong, 2)}). The labels of the table are used.",
    )
