"""The labels of imported predictions: a user's table, read as a manifest and folds.

Finds the columns by their names, and says which ones. Knows no member and no run.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import pandas as pd

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.files import read_csv
from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.folds.table import whole_folds
from ensemble_kit.manifest.columns import (
    FOLDS,
    GROUP_WORDS,
    GROUPS,
    IDS,
    LABELS,
    SPLITS,
    group_word,
    known_columns,
    plain_name,
)
from ensemble_kit.manifest.folder import PARTS
from ensemble_kit.manifest.table import NO_GROUPS, Manifest
from ensemble_kit.manifest.walk import natural_key

MOST_FOLDS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class LabelTable:
    """A table of labels, its columns found.

    Parameters
    ----------
    path : path
    frame : DataFrame
        Columns `sample_id, path, label, group, split`, and `fold` where the table has it.
    group_kind : str
        What a group is: `patient`, `slide`, ... or `image` where the table has no such column.
    said : tuple of str
        Which columns were used, one sentence each.
    notes : tuple of str
        Caveats that belong beside every result.
    """

    path: str | os.PathLike[str]
    frame: pd.DataFrame
    group_kind: str
    said: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def class_names(self) -> list[str]:
        """The classes among the labels; numbers are sorted as numbers."""
        return sorted(self.frame["label"].unique(), key=natural_key)


def read_labels(path: str | os.PathLike[str]) -> LabelTable:
    """A table with a column of image ids, one of labels, and if known of groups, folds and splits.

    Raises
    ------
    DataError
        No column of ids or labels, or an unknown word in the column of splits.
    """
    table = read_csv(path)
    named = _column(_without_repeated_groups(table), "image ids", IDS, path)
    label = _column(table.drop(columns=named), "labels", LABELS, path)
    groups = known_columns(table.columns, GROUPS)
    groups = [c for c in groups if c != named] or groups
    group = groups[0] if groups else named
    frame = pd.DataFrame(
        {
            "sample_id": table[named],
            "path": [f"imported-{i}" for i in range(len(table))],
            "label": table[label].str.strip(),
            "group": table[group],
            "split": _splits(table, path),
        }
    )
    if folds := known_columns(table.columns, FOLDS):
        frame["fold"] = table[folds[0]]
    used = {"Image ids": (named, "sample_id"), "Labels": (label, "label")}
    said = [
        f"{what} are column '{c}' of '{path}'." for what, (c, usual) in used.items() if c != usual
    ]
    if groups:
        said.append(f"Groups are column '{group}' of '{path}': {table[group].nunique()} values.")
    notes = _notes_on_groups(table, groups, path)
    kind = group_word(group) if groups else NO_GROUPS
    return LabelTable(path, frame, kind, (*said, *notes), notes)


def _without_repeated_groups(table: pd.DataFrame) -> pd.DataFrame:
    """A column such as `patient_id` names the images only where each value stands once."""
    return table.drop(columns=[c for c in known_columns(table, GROUPS) if not table[c].is_unique])


def _column(
    table: pd.DataFrame, what: str, known: Sequence[str], path: str | os.PathLike[str]
) -> str:
    found = known_columns(table.columns, known)
    if found:
        return found[0]
    raise DataError(
        f"'{path}' has no column of {what}: its columns are {first_few(table.columns, 12)}",
        f"known names are {first_few(known, 8)}",
        f"Rename that column to {known[0]}",
    )


def _notes_on_groups(
    table: pd.DataFrame, groups: Sequence[str], path: str | os.PathLike[str]
) -> tuple[str, ...]:
    """Caveats: no column of groups is known, or another column has larger groups."""
    if not groups:
        like = [c for c in map(str, table.columns) if any(w in plain_name(c) for w in GROUP_WORDS)]
        if not like:
            return ()
        return (
            f"Column {first_few(map(repr, like))} of '{path}' is not used as the group: if it "
            "names the patient, rename it to patient and import again.",
        )
    used = table[groups[0]]
    coarser = [
        c
        for c in groups[1:]
        if table[c].nunique() < used.nunique() and (table[c].groupby(used).nunique() == 1).all()
    ]
    if not coarser:
        return ()
    return (
        f"Groups are column '{groups[0]}' ({used.nunique()} values), although column "
        f"'{coarser[0]}' has larger ones ({table[coarser[0]].nunique()} values): rename it to "
        "group if intervals must be over those.",
    )


def _splits(table: pd.DataFrame, path: str | os.PathLike[str]) -> pd.Series | str:
    # Tables that `stack` wrote call the training rows "oof".
    parts = PARTS | {"oof": "train"}
    found = {c: table[c].str.strip().str.lower() for c in known_columns(table.columns, SPLITS)}
    known = [c for c, words in found.items() if words.isin(parts).all()]
    if not known and not any(plain_name(c) == "split" for c in found):
        return "train"
    column = (known or list(found))[0]
    words = found[column]
    odd = sorted(set(words) - set(parts))
    if odd:
        raise DataError(
            f"Column '{column}' of '{path}' has {int(words.isin(odd).sum())} rows with "
            f"{first_few(map(repr, odd))}",
            f"known words are {', '.join(parts)}",
            "Use those words, or remove the column",
        )
    return words.map(parts)


def manifest_of(
    labels: LabelTable, class_names: Sequence[str], *, ordinal: bool = False
) -> Manifest:
    """The manifest of a table of labels.

    Parameters
    ----------
    labels : LabelTable
    class_names : sequence of str
        The classes in their order. The labels may lack some: a caveat says so.
    ordinal : bool
        Whether that order means something: mildest first.
    """
    there = set(labels.frame["label"])
    absent = tuple(name for name in class_names if name not in there)
    notes = (
        f"No image is labelled {name!r}: metrics over classes leave this class out, and each image "
        "that is predicted as this class counts as an error."
        for name in absent
    )
    return Manifest(
        labels.frame.drop(columns="fold", errors="ignore"),
        tuple(class_names),
        ordinal=ordinal,
        group_kind=labels.group_kind,
        name="imported",
        notes=(*labels.notes, *notes),
        absent=absent,
    )


def folds_of(labels: LabelTable, manifest: Manifest, *, seed: int = 0) -> Folds:
    """The folds that a table of labels names; made for the combiners where it has none.

    Raises
    ------
    DataError
        No training rows, or folds that are no folds.
    """
    train = manifest.part("train")
    if not len(train):
        raise DataError(
            f"All {len(labels.frame)} rows of '{labels.path}' are of the split 'test'",
            "combiners are fitted to training rows and evaluated on them by cross-fitting",
            "Leave out the column split: rows that no member trained on are all out-of-fold",
        )
    if "fold" not in labels.frame:
        return _made_folds(manifest, train, seed)
    of_train = labels.frame["fold"][(manifest.table["split"] == "train").to_numpy()]
    numbers = whole_folds(of_train.set_axis(train.sample_ids), labels.path)
    advice = "Mend the column fold, or leave it out to have folds made"
    try:
        folds = Folds(train.sample_ids, numbers)
        folds.of(train)
    except DataError as error:
        raise DataError(error.law, error.got, advice) from error
    return folds


def _made_folds(manifest: Manifest, train: Manifest, seed: int) -> Folds:
    try:
        made = make_folds(manifest, max(2, min(MOST_FOLDS, train.n_groups)), seed=seed)
    except DataError as error:
        advice = "Add such groups, or give the folds of the members: a column fold"
        raise DataError(error.law, error.got, advice) from error
    note = "The folds were made for the combiners: those of the imported members are not known."
    return Folds(made.sample_ids, made.fold, made.split_by, (*made.notes, note))
