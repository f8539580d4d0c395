"""Reads class folders, with or without train/, valid/ and test/ above them.

Does not know patients, unless a pattern finds them in the paths; opens no image.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from ensemble_kit.errors import DataError, UsageError, did_you_mean, first_few
from ensemble_kit.manifest.split_words import PARTS
from ensemble_kit.manifest.table import NO_GROUPS, Manifest
from ensemble_kit.manifest.walk import list_images, natural_key

HER2_SCORES = ("0", "1+", "2+", "3+")


def read_folders(
    root: str | os.PathLike[str], *, group_pattern: str | None = None, split_by: str = "group"
) -> Manifest:
    """A manifest of `root/CLASS/image` or `root/{train,valid,test}/CLASS/image`.

    Parameters
    ----------
    root : path
        Folders may be nested below the class.
    group_pattern : str or None
        A regular expression whose first group is the patient, searched in each path relative to
        `root`: `r"(P\\d+)"`. Without it each image is its own group, and that is stamped.
    split_by : {"group", "image"}
        `image` allows groups in train and in test, stamped as such.

    Returns
    -------
    Manifest
        `sample_id` is the path. Validation images join training, since folds are made from it; the
        column `part` keeps where they stood.

    Raises
    ------
    UsageError
        A pattern that is no regular expression or has no group.
    DataError
        No class folder, an empty one, a class only outside train/, or a path without a patient.
    """
    top = Path(root)
    paths, notes = list_images(top)
    parted = has_parts(top)
    base = 1 if parted else 0
    _refuse_loose(paths, base, top)
    rows = [PurePosixPath(path).parts for path in paths]
    part = [PARTS[r[0].lower()] if parted else "train" for r in rows]
    table = pd.DataFrame({"sample_id": paths, "path": paths, "label": [r[base] for r in rows]})
    table["group"] = table["path"] if group_pattern is None else _groups(paths, group_pattern)
    table["split"] = part
    if parted:
        table["part"] = [r[0] for r in rows]
        notes = (*notes, *_validation_note(table))
    class_names = _class_names(top, table, parted)
    if group_pattern is None:
        notes = (
            *notes,
            "No patients are known: each image is its own group, so figures may be too good.",
        )
    return Manifest(
        table,
        class_names,
        root=top,
        ordinal=is_her2(class_names),
        group_kind=NO_GROUPS if group_pattern is None else "group",
        name=top.resolve().name,
        notes=notes,
        split_by=split_by,
    )


def has_parts(root: Path) -> bool:
    """Whether `root` holds train/ (and maybe valid/, test/) rather than classes."""
    folders = {entry.name.lower() for entry in _folders(root)}
    return (
        bool(folders) and "train" in {PARTS.get(name) for name in folders} and folders <= set(PARTS)
    )


def is_her2(class_names: tuple[str, ...]) -> bool:
    """Whether the classes are HER2 scores, whose order means something.

    Examples
    --------
    >>> is_her2(("0", "1+", "2+", "3+")), is_her2(("0", "1"))
    (True, False)
    """
    return set(class_names) <= set(HER2_SCORES) and any("+" in name for name in class_names)


def _folders(root: Path) -> list[Path]:
    return [
        e
        for e in root.iterdir()
        if e.is_dir() and not e.is_symlink() and not e.name.startswith(".")
    ]


def _refuse_loose(paths: list[str], base: int, root: Path) -> None:
    loose = [path for path in paths if len(PurePosixPath(path).parts) < base + 2]
    if not paths or len(loose) == len(paths):
        raise DataError(
            "Images stand in one folder per class",
            f"'{root}' holds {len(paths)} images, none of them in a class folder",
            "Sort them into folders named after their classes, or write a table path,label,group",
        )
    if loose:
        raise DataError(
            "Every image stands in a class folder",
            f"{len(loose)} of {len(paths)} do not (first: {first_few(loose, 3)})",
            "Move them into the folder of their class, or out of the data",
        )


def _groups(paths: list[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            "group_pattern is a regular expression", f"{pattern!r}: {error}", "Mend it"
        ) from error
    if compiled.groups < 1:
        raise UsageError(
            "group_pattern marks the patient by parentheses",
            f"got {pattern!r}",
            "Use e.g. '(P[0-9]+)'",
        )
    found = [compiled.search(path) for path in paths]
    without = [
        path for path, match in zip(paths, found, strict=True) if match is None or not match[1]
    ]
    if without:
        raise DataError(
            "Every image belongs to a group (its patient)",
            f"{len(without)} of {len(paths)} paths have none by {pattern!r} (first: {without[0]})",
            "Mend the pattern",
        )
    return [match[1] for match in found if match is not None]


def _class_names(root: Path, table: pd.DataFrame, parted: bool) -> tuple[str, ...]:
    tops = _folders(root) if parted else [root]
    counts = Counter(table["label"])
    for top in tops:
        for folder in _folders(top):
            if not parted or PARTS[top.name.lower()] == "train":
                counts.setdefault(folder.name, 0)
    trained = set(table["label"][table["split"] == "train"]) if parted else set(counts)
    strange = sorted(set(table["label"]) - trained)
    if strange:
        raise DataError(
            "Every class of the test part is trained",
            f"train/ has no images of {first_few(map(repr, strange))}",
            did_you_mean(strange[0], trained),
        )
    return tuple(sorted(counts, key=natural_key))


def _validation_note(table: pd.DataFrame) -> tuple[str, ...]:
    n = int(((table["split"] == "train") & table["part"].str.lower().str.startswith("val")).sum())
    return (f"{n} validation images joined training: folds are made from it.",) if n else ()
