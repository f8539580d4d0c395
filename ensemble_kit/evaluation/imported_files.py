"""Other people's tables, read and checked: labels with folds, and one member's predictions.

Joins by sample id and class name. Writes nothing, and knows no run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array, check_logits
from ensemble_kit.errors import DataError, UsageError, did_you_mean, first_few
from ensemble_kit.files import read_npy
from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.folds.table import whole_folds
from ensemble_kit.manifest.rows import table_with
from ensemble_kit.manifest.table import Manifest

KINDS = ("proba", "logits")
SMALLEST_PROBA = 1e-7
MOST_FOLDS = 5


def read_labels(
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    ordinal: bool = False,
    seed: int = 0,
) -> tuple[Manifest, Folds]:
    """A table `sample_id,label[,group][,fold][,split]` as a manifest and folds.

    Parameters
    ----------
    path : path
    class_names : sequence of str, optional
        The classes in their order; sorted by name otherwise.
    ordinal : bool
        Whether that order means something: mildest first.
    seed : int
        Of the folds that are made where the table has none.

    Raises
    ------
    DataError
        Missing columns, unknown labels, no training rows, or folds that are none.
    """
    table = table_with(path, "sample_id", "label", what="A table of labels")
    has_groups = "group" in table
    frame = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "path": [f"imported-{i}" for i in range(len(table))],
            "label": table["label"],
            "group": table["group"] if has_groups else table["sample_id"],
            "split": table.get("split", "train"),
        }
    )
    names = tuple(class_names or sorted(frame["label"].unique()))
    manifest = Manifest(
        frame,
        names,
        ordinal=ordinal,
        group_kind="group" if has_groups else "image",
        name="imported",
    )
    return manifest, _folds(table, manifest, seed, path)


def _folds(
    table: pd.DataFrame, manifest: Manifest, seed: int, path: str | os.PathLike[str]
) -> Folds:
    train = manifest.part("train")
    if not len(train):
        raise DataError(
            "Combiners learn from training rows and are judged cross-fitted on them",
            f"all {len(table)} rows are of the split 'test'",
            "Leave out the column split: rows that no member trained on are all out-of-fold",
        )
    if "fold" not in table:
        return _made_folds(manifest, train, seed)
    of_train = table["fold"][(manifest.table["split"] == "train").to_numpy()]
    numbers = whole_folds(of_train.set_axis(train.sample_ids), path)
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


def read_member(
    name: str,
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    kind: str = "proba",
    partial: bool = False,
) -> tuple[Array, list[str]]:
    """A member's logits in the manifest's order of rows and classes, and what must be said of them.

    Parameters
    ----------
    name : str
    path : path
        CSV `sample_id,<class>,...`, or `.npy` in the manifest's order of rows and classes.
    manifest : Manifest
    kind : {"proba", "logits"}
        What the file holds.
    partial : bool
        Rows that the CSV lacks are NaN, instead of an error.

    Returns
    -------
    array of float, shape (n_samples, n_classes)
    list of str

    Raises
    ------
    UsageError
        An unknown kind.
    DataError
        Other ids or classes, or values that are not of that kind.
    """
    if kind not in KINDS:
        raise UsageError(
            "A file holds 'proba' or 'logits'", f"got '{kind}'", did_you_mean(kind, KINDS)
        )
    if not Path(path).is_file():
        raise DataError(
            "A member is given as NAME=FILE", f"'{name}' has no file '{path}'", "Check the path"
        )
    read = _of_npy if Path(path).suffix == ".npy" else _of_csv
    values, ids = read(name, path, manifest)
    row_of = _row_of(name, ids, manifest.sample_ids, partial)
    logits = np.full((len(manifest), manifest.n_classes), np.nan)
    there = np.array([sample in row_of for sample in manifest.sample_ids.tolist()], dtype=bool)
    in_order = [row_of[sample] for sample in manifest.sample_ids[there].tolist()]
    logits[there] = _logits(values, path, kind)[in_order]
    return logits, _doubts(values, kind)


def _of_npy(
    name: str,  # noqa: ARG001
    path: str | os.PathLike[str],
    manifest: Manifest,
) -> tuple[Array, list[str]]:
    values, ids = read_npy(path), manifest.sample_ids.tolist()
    if values.shape != (len(ids), manifest.n_classes):
        raise DataError(
            "An array has one row a label and one column a class",
            f"'{path}' has shape {values.shape}, not {(len(ids), manifest.n_classes)}",
            "Use a CSV with ids and class names",
        )
    return values, ids


def _of_csv(name: str, path: str | os.PathLike[str], manifest: Manifest) -> tuple[Array, list[str]]:
    classes = list(manifest.class_names)
    frame = table_with(path, "sample_id", *classes, what="A member's table")
    strange = [str(c) for c in frame.columns if c not in ("sample_id", *classes)]
    if strange:
        raise DataError(
            f"A member's table has the columns sample_id, {', '.join(classes)}, and no other",
            f"'{path}' of '{name}' has {first_few(map(repr, strange))} too",
            "Drop that column; if it is a class, the labels lack it",
        )
    try:
        return frame[classes].astype(np.float64).to_numpy(), frame["sample_id"].tolist()
    except ValueError as error:
        raise DataError(
            "Predictions are numbers", f"'{path}': {error}", "Mend that cell"
        ) from error


def _row_of(name: str, ids: list[str], want: npt.NDArray[np.str_], partial: bool) -> dict[str, int]:
    """The row of each id, if they are those wanted, each once; some of those if `partial`."""
    row_of = {sample: i for i, sample in enumerate(ids)}
    twice = [sample for i, sample in enumerate(ids) if row_of[sample] != i]
    missing = [] if partial else [sample for sample in want.tolist() if sample not in row_of]
    strange = sorted(set(row_of) - set(want.tolist()))
    wrong = [
        f"{what} {len(some)} ({first_few(some)})"
        for what, some in (("lacks", missing), ("repeats", twice), ("adds", strange))
        if some
    ]
    if wrong:
        accept = ", or accept gaps: --partial, then stack --quorum" if missing else ""
        raise DataError(
            "A member has one row for every label, and no other",
            f"'{name}' {', '.join(wrong)}",
            f"Make its ids those of the labels{accept}",
        )
    return row_of


def _logits(values: Array, path: str | os.PathLike[str], kind: str) -> Array:
    if kind == "logits":
        return check_logits(values[:, None])[:, 0]
    if not _look_like_proba(values):
        raise DataError(
            "Probabilities are at least 0 and sum to 1",
            f"those of '{path}' do not",
            "Say --kind logits if these are scores before the softmax",
        )
    return np.log(np.maximum(values, SMALLEST_PROBA))


def _look_like_proba(values: Array) -> bool:
    return bool(
        np.isfinite(values).all()
        and (values >= 0).all()
        and np.allclose(values.sum(axis=1), 1, atol=1e-3)
    )


def _doubts(values: Array, kind: str) -> list[str]:
    if kind == "proba" or not _look_like_proba(values):
        return []
    return [
        "imported as logits, yet all its rows are at least 0 and sum to 1 as probabilities do: "
        "if they are, import them with --kind proba"
    ]
