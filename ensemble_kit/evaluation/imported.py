"""Other people's predictions as a run: one CSV or `.npy` a member, joined by id, judged like ours.

Writes a run folder without models. Does not combine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array, check_logits
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.files import read_npy
from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.manifest.rows import table_with
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.store import MemberLogits
from ensemble_kit.run import Run

SMALLEST_PROBA = 1e-7


def import_predictions(
    run: Run,
    labels: str | os.PathLike[str],
    members: Mapping[str, str | os.PathLike[str]],
    *,
    kind: str = "proba",
    seed: int = 0,
) -> Run:
    """Make a run of stored predictions.

    Parameters
    ----------
    run : Run
        A folder that holds no run yet.
    labels : path
        CSV `sample_id,label[,group][,fold][,split]`. `fold` is the fold whose model did not see
        the row; without it group-safe folds are made for the combiners, and that is noted.
    members : mapping of name to path
        CSV `sample_id,<class>,<class>...` joined by id and class name, or `.npy` of shape
        (n_samples, n_classes) in the order of the labels and of the sorted class names.
    kind : {"proba", "logits"}
        What the files hold.

    Raises
    ------
    DataError
        Missing columns, other ids or classes, values that are no probabilities.
    """
    table = table_with(labels, "sample_id", "label", what="A table of labels")
    manifest = _manifest(table)
    folds = _folds(table, manifest, seed)
    run.begin(manifest, folds, {"imported": {name: str(path) for name, path in members.items()}})
    about = {
        "manifest": manifest.digest,
        "folds": folds.digest,
        "folds_done": list(range(folds.n_splits)),
        "stamps": ["imported; whether its rows are out-of-fold is its maker's word"],
    }
    train, test = manifest.part("train"), manifest.part("test")
    for name, path in members.items():
        rows, ids = _member(path, table, manifest.class_names, kind)
        in_test = _rows(rows, ids, test.sample_ids, name)
        run.store.write(
            name,
            MemberLogits(
                oof=_rows(rows, ids, train.sample_ids, name),
                test=dict.fromkeys(range(folds.n_splits), in_test) if len(test) else {},
                train_ids=tuple(train.sample_ids.tolist()),
                test_ids=tuple(test.sample_ids.tolist()),
                class_names=manifest.class_names,
                about=about,
            ),
        )
    return run


def _manifest(table: pd.DataFrame) -> Manifest:
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
    names = tuple(sorted(frame["label"].unique()))
    return Manifest(frame, names, group_kind="group" if has_groups else "image", name="imported")


def _folds(table: pd.DataFrame, manifest: Manifest, seed: int) -> Folds:
    if "fold" not in table:
        made = make_folds(manifest, 5, seed=seed)
        note = "The folds were made for the combiners: those of the imported members are not known."
        return Folds(made.sample_ids, made.fold, made.split_by, (*made.notes, note))
    train = (manifest.table["split"] == "train").to_numpy()
    try:
        fold = table["fold"][train].astype(np.int64).to_numpy()
    except ValueError as error:
        raise DataError("Folds are whole numbers", f"{error}", "Number them 0, 1, ...") from error
    return Folds(manifest.sample_ids[train], fold)


def _member(
    path: str | os.PathLike[str], table: pd.DataFrame, class_names: tuple[str, ...], kind: str
) -> tuple[Array, list[str]]:
    """A member's logits, and the id of each row."""
    if Path(path).suffix == ".npy":
        values, ids = read_npy(path), table["sample_id"].tolist()
        if values.shape != (len(ids), len(class_names)):
            raise DataError(
                "An array has one row a label and one column a class",
                f"'{path}' has shape {values.shape}, not {(len(ids), len(class_names))}",
                "Use a CSV with ids and class names",
            )
    else:
        frame = table_with(path, "sample_id", *class_names, what="A member's table")
        ids = frame["sample_id"].tolist()
        try:
            values = frame[list(class_names)].astype(np.float64).to_numpy()
        except ValueError as error:
            raise DataError(
                "Predictions are numbers", f"'{path}': {error}", "Mend that cell"
            ) from error
    return _logits(values, path, kind), ids


def _logits(values: Array, path: str | os.PathLike[str], kind: str) -> Array:
    if kind == "logits":
        return check_logits(values[:, None])[:, 0]
    if (
        not np.isfinite(values).all()
        or (values < 0).any()
        or not np.allclose(values.sum(axis=1), 1, atol=1e-3)
    ):
        raise DataError(
            "Probabilities are at least 0 and sum to 1",
            f"those of '{path}' do not",
            "Say --kind logits if these are scores before the softmax",
        )
    return np.log(np.maximum(values, SMALLEST_PROBA))


def _rows(rows: Array, ids: list[str], want: np.ndarray, name: str) -> Array:
    """The rows of `want`, by id."""
    row_of = {sample: i for i, sample in enumerate(ids)}
    missing = [sample for sample in want.tolist() if sample not in row_of]
    if missing or len(row_of) != len(ids):
        raise DataError(
            "A member has one row for every label",
            f"'{name}' lacks {len(missing)} ({first_few(missing)}) and repeats {len(ids) - len(row_of)}",
            "Predict those samples, or drop them from the labels",
        )
    return rows[[row_of[sample] for sample in want.tolist()]]
