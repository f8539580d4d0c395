"""Reads class folders, with parts of a split, patients or magnifications above or below them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.manifest.folders.level_columns import (
    add_parts,
    folders_of,
    names_at,
    refuse_untrained,
    without_unlabelled,
)
from ensemble_kit.manifest.folders.level_refusals import choose_class
from ensemble_kit.manifest.folders.levels import (
    CLASS,
    MAGNIFICATION,
    OTHER,
    PART,
    PATIENT,
    Levels,
    recognise_levels,
)
from ensemble_kit.manifest.folders.masks import without_masks
from ensemble_kit.manifest.folders.walk import ImageTree, image_tree
from ensemble_kit.manifest.folders.words import is_patient, parts_of
from ensemble_kit.manifest.names import in_natural_order, known_groups, refuse_near_equal
from ensemble_kit.manifest.patterns import found_by
from ensemble_kit.manifest.table import NO_GROUPS, Manifest
from ensemble_kit.tables import SUFFIXES

HER2_SCORES = ("0", "1+", "2+", "3+")
NO_PATIENTS = (
    "No patients are known: each image is its own group, so metrics may be too optimistic."
)


def read_folders(
    root: str | os.PathLike[str],
    *,
    label_pattern: str | None = None,
    group_pattern: str | None = None,
    split_by: str = "group",
) -> Manifest:
    """A manifest of `CLASS/image`, `{train,valid,test}/CLASS/image` or `PATIENT/CLASS/image`.

    Parameters
    ----------
    root : path
        Folders may be nested below the class. Masks beside images are skipped with a note.
    label_pattern : str or None
        A regular expression whose first group is the class, searched in each path relative to
        `root`: `r"^[^/]+/([^/]+)/"` is the second level of folders. Without it the levels are
        recognised by the names of their folders.
    group_pattern : str or None
        A regular expression whose first group is the patient: `r"(P\\d+)"`. Without it patients
        are known only if their folders are above the classes. Else each image is its own group,
        with a caveat.
    split_by : {"group", "image"}
        `image` allows groups in train and in test, with a caveat.

    Returns
    -------
    Manifest
        `sample_id` is the path. Validation images are used for training, because the folds are made
        from them; the column `part` has their part. `layout` names the role of each level.

    Raises
    ------
    UsageError
        A pattern is not a regular expression, or has no group.
    DataError
        There is no class folder, an empty one, or two with nearly equal names; a class is not in
        train/; a pattern does not match a path; or folders are not classes.
    """
    tree = image_tree(root)
    paths, mask_notes = without_masks(tree.paths)
    levels = (
        _pattern_levels(paths) if label_pattern else recognise_levels(folders_of(paths), str(root))
    )
    paths, unlabelled_notes = without_unlabelled(paths, levels)
    table = pd.DataFrame({"sample_id": paths, "path": paths})
    if label_pattern:
        table["label"] = found_by(label_pattern, paths, option="label_pattern", what="class")
        class_names = in_natural_order(table["label"])
    else:
        _refuse_loose(tree, paths, levels, root)
        table["label"] = names_at(paths, levels, CLASS)
        class_names = _class_names(tree, table["label"].tolist(), levels)
    refuse_near_equal(class_names, str(root))
    table["split"] = "train"
    part_notes = add_parts(table, levels)
    refuse_untrained(table)
    group_kind = _add_groups(table, paths, levels, group_pattern)
    if MAGNIFICATION in levels.roles:
        table["magnification"] = names_at(paths, levels, MAGNIFICATION)
    notes = (*tree.notes, *mask_notes, *unlabelled_notes, *part_notes)
    if group_kind == NO_GROUPS:
        notes = (*notes, NO_PATIENTS + _patients_below(levels))
    return Manifest(
        table,
        class_names,
        root=Path(root),
        ordinal=is_her2(class_names),
        group_kind=group_kind,
        name=Path(root).resolve().name,
        notes=notes,
        split_by=split_by,
        layout=_layout(levels, label_pattern, group_pattern, group_kind),
    )


def is_her2(class_names: tuple[str, ...]) -> bool:
    """Whether the classes are HER2 scores, which are ordinal.

    Examples
    --------
    >>> is_her2(("0", "1+", "2+", "3+")), is_her2(("0", "1"))
    (True, False)
    """
    return set(class_names) <= set(HER2_SCORES) and any("+" in name for name in class_names)


# -- levels --------------------------------------------------------------------------------


def _pattern_levels(paths: Sequence[str]) -> Levels:
    """The parts of a split, if all top folders are parts; the other levels are not needed."""
    tops = sorted({row[0] for row in folders_of(paths) if row})
    words = parts_of(tops)
    is_split = len(words) == len(tops) and any(w.startswith("train") for w in words.values())
    return Levels((PART,), (tuple(tops),)) if is_split else Levels()


# -- classes -------------------------------------------------------------------------------


def _refuse_loose(
    tree: ImageTree, paths: Sequence[str], levels: Levels, root: str | os.PathLike[str]
) -> None:
    if CLASS not in levels.roles:
        others = f" ({' '.join(tree.notes)})" if tree.notes else ""
        raise DataError(
            f"'{root}' has {len(paths)} images, but none in a class folder",
            f"images must be in one folder per class{others}",
            f"{_tables_in(Path(root))}Sort them into folders named after their classes, or write a "
            "table path,label,group",
        )


def _tables_in(root: Path) -> str:
    tables = sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not tables:
        return ""
    return f"If a table there names images and labels ({first_few(p.name for p in tables)}): --data {tables[0]}. "


def _class_names(tree: ImageTree, labels: Sequence[str], levels: Levels) -> tuple[str, ...]:
    """The classes, including empty folders, which are refused later by their name."""
    depth = levels.roles.index(CLASS)
    above = {name for names in levels.names[:depth] for name in names}
    empty = {
        row[depth]
        for row in (tuple(folder.split("/")) for folder in tree.folders)
        if len(row) == depth + 1 and above.issuperset(row[:depth])
    }
    masks = set(levels.unlabelled)
    return in_natural_order({*labels, *(empty - masks if PATIENT not in levels.roles else ())})


# -- patients ------------------------------------------------------------------------------


def _add_groups(
    table: pd.DataFrame, paths: Sequence[str], levels: Levels, pattern: str | None
) -> str:
    """Fill the column `group`; return the kind of group."""
    if pattern is not None:
        found = found_by(pattern, paths, option="group_pattern", what="patient")
        table["group"] = known_groups(found, paths, where=f"--group-pattern {pattern!r}")
        return "group"
    if PATIENT in levels.roles:
        folders = names_at(paths, levels, PATIENT)
        table["group"] = known_groups(folders, paths, where="the folder of the patient")
        return "patient"
    table["group"] = table["path"]
    return NO_GROUPS


def _patients_below(levels: Levels) -> str:
    """A hint, if the folders below the classes are named like patients."""
    depth = levels.depth(OTHER)
    if depth is None or not all(map(is_patient, levels.names[depth])):
        return ""
    pattern = choose_class(depth).replace("--label-pattern", "--group-pattern")
    return (
        f" Are the {len(levels.names[depth])} folders below the classes patients "
        f"({first_few(levels.names[depth], 2)})? Then add: {pattern}."
    )


def _layout(
    levels: Levels, label_pattern: str | None, group_pattern: str | None, group_kind: str
) -> str:
    shown = "classes: by label_pattern" if label_pattern else levels.sentence()
    if label_pattern and PART in levels.roles:
        shown = f"{levels.sentence()}; {shown}"
    unknown = "not known (to set them: --group-pattern)"
    patients = {NO_GROUPS: unknown, "patient": "their folders"}.get(group_kind)
    return f"{shown}; patients: {patients if group_pattern is None else 'by group_pattern'}"
