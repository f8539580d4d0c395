"""The labels of imported predictions: a user's table, read as a manifest and folds.

Columns are found by their names; messages name the columns that were used.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import pandas as pd

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.folds.table import whole_folds
from ensemble_kit.formulas import unguarded
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
from ensemble_kit.manifest.folders.split_words import PARTS, split_of_rows, validation_note
from ensemble_kit.manifest.names import in_natural_order, known_groups, near_equal
from ensemble_kit.manifest.table import NO_GROUPS, Manifest
from ensemble_kit.tables import UserTable, read_table

MOST_FOLDS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class LabelTable:
    """A table of labels.

    Parameters
    ----------
    path : path
    frame : DataFrame
        Columns `sample_id, path, label, group, split`, and `fold` if the table has it.
    group_kind : str
        `patient`, `slide`, ..., or `image` if there is no column of groups.
    messages : tuple of str
        Which columns were used, one sentence each.
    notes : tuple of str
        Caveats that are shown beside every result.
    """

    path: str | os.PathLike[str]
    frame: pd.DataFrame
    group_kind: str
    messages: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def class_names(self) -> list[str]:
        """The classes among the labels; numbers are sorted as numbers."""
        return list(in_natural_order(self.frame["label"]))


def read_labels(path: str | os.PathLike[str]) -> LabelTable:
    """Read a table of image ids and labels, and of groups, folds and splits if it has them.

    Raises
    ------
    DataError
        No column of ids or labels, or an unknown word in the column of splits.
    """
    read = read_table(path)
    table = read.frame.map(unguarded)  # as tables of runs are written
    named = _column(table, "image ids", IDS, path)
    label = _column(table, "labels", LABELS, path)
    groups = known_columns(table.columns, GROUPS)
    groups = [c for c in groups if c != named] or groups
    group = groups[0] if groups else named
    frame = pd.DataFrame(
        {
            "sample_id": table[named],
            "path": [f"imported-{i}" for i in range(len(table))],
            "label": table[label],
            "group": known_groups(table[group], table[named], where=f"column '{group}' of '{path}'")
            if groups
            else table[named],
        }
    )
    frame["split"], split_notes = _splits(read)
    if folds := known_columns(table.columns, FOLDS):
        frame["fold"] = table[folds[0]]
    used = {"Image ids": (named, "sample_id"), "Labels": (label, "label")}
    messages = [
        f"{what} are column '{c}' of '{path}'." for what, (c, usual) in used.items() if c != usual
    ]
    if groups:
        others = f" Not used: {first_few(map(repr, groups[1:]))}." if groups[1:] else ""
        messages.append(
            f"Groups are column '{group}' of '{path}': {table[group].nunique()} values.{others}"
        )
    notes = _notes_on_groups(table, groups, path)
    kind = group_word(group) if groups else NO_GROUPS
    notes = (*read.notes, *split_notes, *notes)
    return LabelTable(path, frame, kind, tuple(messages), notes)


def _column(
    table: pd.DataFrame, what: str, known: Sequence[str], path: str | os.PathLike[str]
) -> str:
    # A column such as patient_id can name the images only if its values are unique.
    repeated = [c for c in known_columns(table.columns, GROUPS) if not table[c].is_unique]
    found = [c for c in known_columns(table.columns, known) if c not in repeated]
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
    alike = [f"{' and '.join(map(repr, some))}" for some in near_equal(used)]
    notes = (
        (f"Groups that may be the same: {first_few(alike)}. If so, spell them in the same way.",)
        if alike
        else ()
    )
    coarser = [
        c
        for c in groups[1:]
        if table[c].nunique() < used.nunique() and (table[c].groupby(used).nunique() == 1).all()
    ]
    if not coarser:
        return notes
    return (
        *notes,
        f"Groups are column '{groups[0]}' ({used.nunique()} values), although column "
        f"'{coarser[0]}' has larger ones ({table[coarser[0]].nunique()} values): rename it to "
        "group if intervals must be over those.",
    )


def _splits(table: UserTable) -> tuple[list[str] | str, tuple[str, ...]]:
    """The part of each row, and notes about validation images."""
    found = known_columns(table.frame.columns, SPLITS)
    # Tables that `stack` wrote call the training rows "oof".
    words = {c: table.frame[c].replace("oof", "train") for c in found}
    known = [c for c in found if words[c].str.lower().isin(PARTS).all()]
    named = known or [c for c in found if plain_name(c) == "split"]
    if not named:
        return "train", ()
    column = named[0]
    frame = table.frame.assign(**{column: words[column]})
    read = split_of_rows(dataclasses.replace(table, frame=frame), column)
    return read, validation_note(words[column].tolist())


def manifest_of(
    labels: LabelTable, class_names: Sequence[str], *, ordinal: bool = False
) -> Manifest:
    """The manifest of a table of labels.

    Parameters
    ----------
    labels : LabelTable
    class_names : sequence of str
        The classes in their order. Classes without an image get a caveat.
    ordinal : bool
        Whether the classes are ordered, mildest first.
    """
    present = set(labels.frame["label"])
    absent = tuple(name for name in class_names if name not in present)
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
    """The folds of a table of labels; if it has none, folds are made for the combiners.

    Raises
    ------
    DataError
        No training rows, or invalid folds.
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
    numbers, notes = whole_folds(of_train.set_axis(train.sample_ids), labels.path)
    advice = "Correct the column fold, or remove it: folds are then made"
    try:
        folds = Folds(train.sample_ids, numbers, notes=notes)
        folds.of(train)
    except DataError as error:
        raise DataError(error.problem, error.allowed, advice) from error
    return folds


def _made_folds(manifest: Manifest, train: Manifest, seed: int) -> Folds:
    try:
        made = make_folds(manifest, max(2, min(MOST_FOLDS, train.n_groups)), seed=seed)
    except DataError as error:
        advice = "Add such groups, or a column fold with the folds of the members"
        raise DataError(error.problem, error.allowed, advice) from error
    note = "The folds were made for the combiners: the folds of the imported members are not known."
    return Folds(made.sample_ids, made.fold, made.split_by, (*made.notes, note))
