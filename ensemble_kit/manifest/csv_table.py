"""Reads a table of images: a CSV with a path, a label, and where known a group and a split.

Does not know how images are decoded; checks that every file is there and inside the folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.files import read_csv
from ensemble_kit.manifest.folder import is_her2
from ensemble_kit.manifest.split_words import PARTS
from ensemble_kit.manifest.table import NO_GROUPS, Manifest
from ensemble_kit.manifest.walk import natural_key

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "diagnosis", "score")
GROUP_COLUMNS = ("group", "patient", "patient_id", "case", "case_id", "slide", "slide_id")
GROUP_WORDS = ("group", "patient", "case", "slide", "subject", "donor")


def read_csv_table(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    class_names: Sequence[str] | None = None,
    split_by: str = "group",
) -> Manifest:
    """A manifest from a CSV `path,label,group[,split]`.

    Parameters
    ----------
    path : path
        The table. Further columns are kept; a column `sample_id` names the images, else their
        path does; a column `split` says train, valid or test.
    root : path or None
        The folder that paths are relative to; the table's own by default. Where `root/path` is
        not there, `root/label/path` is tried.
    path_column, label_column, group_column : str or None
        Which columns to use; by default the first known one (path, file, ...; label, class, ...;
        group, patient, ...). Without a group column each image is its own group, stamped.
    class_names : sequence of str or None
        The classes in their order; sorted (counting) by default.
    split_by : {"group", "image"}
        `image` allows groups in train and in test, stamped as such.

    Raises
    ------
    DataError
        A missing column or file, an empty label, a path that leaves `root`, an unknown split.
    """
    frame = read_csv(path)
    home = Path(root) if root is not None else Path(path).parent
    files = _column(frame, "path", path_column, PATH_COLUMNS, str(path))
    labels = _column(frame, "label", label_column, LABEL_COLUMNS, str(path))
    group = _group_name(frame, group_column, str(path))
    table = frame.rename(columns=str.strip)
    table = table.drop(columns=[c for c in ("path", "label", "group") if c in table])
    table["label"] = frame[labels].str.strip()
    _refuse_blank(table["label"], labels)
    table["path"] = _resolve(home, frame[files], table["label"])
    if "sample_id" not in table:
        table["sample_id"] = table["path"]
    table["group"] = frame[group] if group else table["sample_id"]
    table["split"] = _splits(table)
    known = (
        tuple(class_names)
        if class_names
        else tuple(sorted(table["label"].unique(), key=natural_key))
    )
    return Manifest(
        table,
        known,
        root=home,
        ordinal=is_her2(known),
        group_kind=group or NO_GROUPS,
        name=home.resolve().name,
        split_by=split_by,
        notes=() if group else (_no_groups(frame),),
    )


def looks_like_table(path: Path) -> bool:
    """Whether a CSV names images and labels under column names that are known."""
    try:
        columns = {c.strip() for c in read_csv(path).columns}
    except DataError:
        return False
    return bool(columns & set(PATH_COLUMNS)) and bool(columns & set(LABEL_COLUMNS))


def _column(
    frame: pd.DataFrame, what: str, chosen: str | None, known: tuple[str, ...], path: str
) -> str:
    candidates = [chosen] if chosen else [c for c in known if c in frame]
    if candidates and candidates[0] in frame:
        return str(candidates[0])
    raise DataError(
        f"The table has a column for the {what}: "
        + (f"'{chosen}'" if chosen else ", ".join(known)),
        f"'{path}' has the columns {first_few(frame.columns, 12)}",
        did_you_mean(chosen or what, map(str, frame.columns)) + f" (choose it: {what}_column)",
    )


def _group_name(frame: pd.DataFrame, chosen: str | None, path: str) -> str | None:
    if chosen:
        return _column(frame, "group", chosen, GROUP_COLUMNS, path)
    return next((c for c in GROUP_COLUMNS if c in frame), None)


def _no_groups(frame: pd.DataFrame) -> str:
    """What is said where no group is known, with the columns that sound as if they held them."""
    said = "No patients are known: each image is its own group, so figures may be too good."
    like = [c for c in map(str, frame.columns) if any(w in c.lower() for w in GROUP_WORDS)]
    if not like:
        return said
    return f"{said} Do they stand in column {first_few(like)}? Choose it: --group-column."


def _refuse_blank(labels: pd.Series, column: str) -> None:
    blank = labels == ""
    if blank.any():
        rows = first_few((int(i) + 2 for i in labels.index[blank]), 5)
        raise DataError(
            "Every image has a label",
            f"column '{column}' is empty in {blank.sum()} rows (lines {rows})",
            "Fill them",
        )


def _resolve(root: Path, paths: pd.Series, labels: pd.Series) -> list[str]:
    found: list[str] = []
    missing: list[str] = []
    for path, label in zip(paths, labels, strict=True):
        relative = _relative(root, path)
        if (
            "#" not in relative
            and not (root / relative).is_file()
            and (root / label / relative).is_file()
        ):
            relative = f"{label}/{relative}"
        elif "#" not in relative and not (root / relative).is_file():
            missing.append(path)
        found.append(relative)
    if missing:
        raise DataError(
            "Every image of the table is a file",
            f"{len(missing)} of {len(found)} are not there under '{root}' (first: {first_few(missing, 3)})",
            "Correct the paths, or name the folder they are relative to: root",
        )
    return found


def _relative(root: Path, path: str) -> str:
    inside = (
        Path(path).resolve().is_relative_to(root.resolve()) if Path(path).is_absolute() else True
    )
    if not inside or ".." in Path(path).parts or not path.strip():
        raise DataError(
            "Image paths stay inside the data folder",
            f"got '{path}'",
            "Give paths relative to that folder",
        )
    if Path(path).is_absolute():
        return Path(path).resolve().relative_to(root.resolve()).as_posix()
    return Path(path.replace("\\", "/") if "/" not in path else path).as_posix()


def _splits(table: pd.DataFrame) -> pd.Series | str:
    if "split" not in table:
        return "train"
    words = table["split"].str.strip().str.lower()
    odd = sorted(set(words) - set(PARTS))
    if odd:
        raise DataError(
            "A split is 'train', 'valid' or 'test'",
            f"{int(words.isin(odd).sum())} rows say {first_few(map(repr, odd))}",
            "Use those words, or leave the column out",
        )
    return words.map(PARTS)
