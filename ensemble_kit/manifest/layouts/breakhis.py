"""Reads BreakHis: images, folders, and the fields of the file names.

The official archive is read without changes. Copies in other folders are read too.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from ensemble_kit.errors import DataError, counted, first_few
from ensemble_kit.manifest.checks import check_choice
from ensemble_kit.manifest.folders.level_columns import (
    add_parts,
    folders_of,
    names_at,
    refuse_untrained,
    without_unlabelled,
)
from ensemble_kit.manifest.folders.levels import CLASS, Levels
from ensemble_kit.manifest.folders.masks import without_masks
from ensemble_kit.manifest.folders.walk import image_tree
from ensemble_kit.manifest.layouts.breakhis_folders import breakhis_folders
from ensemble_kit.manifest.layouts.breakhis_names import (
    BINARY,
    SUBTYPES,
    parse_magnifications,
    parse_name,
)
from ensemble_kit.manifest.layouts.class_folders import is_her2
from ensemble_kit.manifest.names import in_natural_order, refuse_near_equal
from ensemble_kit.manifest.table import Manifest

LABEL_BY = ("binary", "subtype", "folder")
GROUP_BY = ("patient", "slide")
_LABELS = {
    "binary": "file names (benign, malignant)",
    "subtype": "file names (subtypes)",
    "folder": "class folders (--label-by binary uses the file names: benign, malignant)",
}


def read_breakhis(
    root: str | os.PathLike[str],
    *,
    magnification: int | str | Sequence[int | str] | None = None,
    label_by: str | None = None,
    group_by: str = "patient",
    split_by: str = "group",
) -> Manifest:
    """A manifest of the BreakHis archive.

    The patient is the number in the file name: `22549AB`, `22549CD` and `22549G` are three slides
    of patient 22549, and `13412` is under two carcinomas. The archive's folders and most papers
    call the slide (`14-22549AB`) a patient. With slides, tissue of one person can be on both sides
    of a split, so `group_by="slide"` is not the default.

    Parameters
    ----------
    root : path
        `BreaKHis_v1`, a folder above it, its `histology_slides` or `breast` part, or any folder
        of files with the original names.
    magnification : int, sequence of int, or None
        40, 100, 200 and/or 400; all by default.
    label_by : {"binary", "subtype", "folder"} or None
        Two classes (benign, malignant), the eight subtypes (benign ones first), or the names of
        the topmost class folders. By default, a user's own class folders (low, mid, high)
        are the classes. Else the file names give the subtypes if there is one folder for each, or
        benign and malignant.
    group_by : {"patient", "slide"}
    split_by : {"group", "image"}
        `image` allows patients in train and in test, with a caveat.

    Returns
    -------
    Manifest
        `sample_id` is the file's stem; further columns `subtype`, `magnification`, `patient`,
        `slide`, and `part` where folders are parts of a split (train/, valid/, test/).

    Raises
    ------
    UsageError
        An unknown option value.
    DataError
        No such files, or none at this magnification; folders that are neither parts of a split
        nor classes; a patient in train and in test.

    References
    ----------
    Spanhol, Oliveira, Petitjean, Heutte: A dataset for breast cancer histopathological image
    classification. IEEE TBME 63(7):1455-1462, 2016.
    """
    if label_by is not None:
        check_choice("label_by", label_by, LABEL_BY)
    check_choice("group_by", group_by, GROUP_BY)
    wanted = parse_magnifications(magnification)
    archive = breast_folder(root)
    home = archive or Path(root)
    tree = image_tree(home)
    paths, mask_notes = without_masks(tree.paths)
    records, unnamed = _records(paths)
    if not records:
        raise DataError(
            f"None of {len(paths)} images under '{root}' has a BreakHis name",
            "BreakHis files are named like SOB_B_A-14-22549AB-40-001.png",
            "Give the unpacked BreaKHis_v1 folder",
        )
    named = [record["path"] for record in records]
    folders = breakhis_folders(folders_of(named), records, str(root), chosen=label_by is not None)
    labelled, unlabelled_notes = without_unlabelled(named, folders.levels)
    table = pd.DataFrame.from_records(records)
    table = table[table["path"].isin(labelled)].reset_index(drop=True)
    table["group"] = table[group_by]
    by = label_by or folders.label_by
    if by == "folder":
        _refuse_unnamed(unnamed)
    names = _label(table, by, folders.levels)
    part_notes = add_parts(table, folders.levels)
    table = _at_magnifications(table, wanted, str(root))
    refuse_untrained(table)
    shown = "as in the archive" if archive else folders.levels.sentence()
    notes = (*tree.notes, *mask_notes, *unlabelled_notes, *part_notes)
    return Manifest(
        table,
        _present(names, table),
        root=home,
        ordinal=is_her2(names),
        group_kind=group_by,
        name=_name(wanted),
        notes=(*notes, *_unnamed_note(unnamed)),
        split_by=split_by,
        positive="malignant" if "malignant" in _present(names, table) else "",
        layout=f"{shown}; labels: {_LABELS[by]}; patients: file names",
    )


def breast_folder(root: str | os.PathLike[str]) -> Path | None:
    """The archive's `breast` folder at or at most three folders below `root`, or None."""
    top = Path(root)
    candidates = [
        top,
        top / "breast",
        top / "histology_slides/breast",
        *_only(top.glob("*/histology_slides/breast")),
    ]
    for candidate in candidates:
        if any((candidate / name / "SOB").is_dir() for name in BINARY.values()):
            return candidate
    return None


def _only(candidates: Iterable[Path]) -> list[Path]:
    # Several archives side by side (train/, test/) are parts of one data set.
    found = list(candidates)
    return found if len(found) == 1 else []


def _label(table: pd.DataFrame, by: str, levels: Levels) -> tuple[str, ...]:
    """Fill the column `label`; the classes in their order."""
    if by == "binary":
        return tuple(BINARY.values())
    if by == "subtype":
        table["label"] = table["subtype"]
        return tuple(SUBTYPES.values())
    if CLASS not in levels.roles:
        raise DataError(
            f"--label-by folder: there are no class folders; {levels.sentence()}",
            "labels by folder need one folder per class",
            "Remove --label-by folder",
        )
    table["label"] = names_at(table["path"].tolist(), levels, CLASS)
    names = in_natural_order(table["label"])
    refuse_near_equal(names, "the data folder")
    return names


def _refuse_unnamed(unnamed: list[str]) -> None:
    if unnamed:
        raise DataError(
            f"{counted(len(unnamed), 'image')} in class folders {'has' if len(unnamed) == 1 else 'have'} no BreakHis name (first: {first_few(unnamed, 3)})",
            "their patients are therefore not known",
            "Move them out of the data, or write a table path,label,group of all images",
        )


def _unnamed_note(unnamed: list[str]) -> tuple[str, ...]:
    if not unnamed:
        return ()
    shown = first_few(unnamed, 3)
    return (
        f"{counted(len(unnamed), 'image')} without a BreakHis name {'was' if len(unnamed) == 1 else 'were'} skipped: {shown}.",
    )


def _records(paths: list[str]) -> tuple[list[dict[str, str]], list[str]]:
    records, unnamed = [], []
    for path in paths:
        stem = PurePosixPath(path).stem
        parts = parse_name(stem)
        if parts is None:
            unnamed.append(path)
        else:
            records.append(
                {
                    "sample_id": stem,
                    "path": path,
                    "label": "",
                    "group": "",
                    "split": "train",
                    **parts,
                }
            )
    return records, unnamed


def _at_magnifications(
    table: pd.DataFrame, wanted: tuple[int, ...] | None, root: str
) -> pd.DataFrame:
    if wanted is None:
        return table
    chosen = table[table["magnification"].isin(map(str, wanted))]
    if not len(chosen):
        have = Counter(table["magnification"])
        raise DataError(
            f"'{root}' has no images at {' or '.join(map(str, wanted))}X",
            "it has "
            + ", ".join(f"{n} at {m}X" for m, n in sorted(have.items(), key=lambda i: int(i[0]))),
            "Choose one of those",
        )
    return chosen


def _present(names: tuple[str, ...], table: pd.DataFrame) -> tuple[str, ...]:
    # The class order of the archive. A partial copy may lack subtypes.
    have = set(table["label"])
    return tuple(name for name in names if name in have)


def _name(wanted: tuple[int, ...] | None) -> str:
    return "BreakHis" + (" " + ", ".join(f"{m}X" for m in wanted) if wanted else "")
