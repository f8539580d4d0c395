"""Other people's predictions as a run: one CSV or `.npy` a member, joined by id, judged like ours.

Writes a run folder without models, once every file was read and checked. Does not combine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.evaluation.imported_files import read_labels, read_member
from ensemble_kit.evaluation.member_costs import UNITS
from ensemble_kit.files import write_json
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.rows import table_with
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.store import MemberLogits
from ensemble_kit.run import Run

MAKERS_WORD = "imported; whether its rows are out-of-fold is its maker's word"


def import_predictions(
    run: Run,
    labels: str | os.PathLike[str],
    members: Mapping[str, str | os.PathLike[str]],
    *,
    kind: str = "proba",
    class_names: Sequence[str] | None = None,
    ordinal: bool = False,
    partial: bool = False,
    costs: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Run:
    """Make a run of stored predictions.

    Nothing is written before all files were read and checked.

    Parameters
    ----------
    run : Run
        A folder that holds no run yet, or one of the same labels.
    labels : path
        CSV `sample_id,label[,group][,fold][,split]`. `fold` is the fold whose model did not see
        the row; without it up to five group-safe folds are made for the combiners, and that is
        noted.
    members : mapping of name to path
        CSV `sample_id,<class>,<class>...` joined by id and class name, or `.npy` of shape
        (n_samples, n_classes) in the order of the labels and of the classes.
    kind : {"proba", "logits"}
        What the files hold.
    class_names : sequence of str, optional
        The classes in their order, the last one the most severe; sorted by name otherwise.
    ordinal : bool
        Whether that order means something: adds the figures of grades.
    partial : bool
        Accept members that lack rows: `stack --quorum` can combine them.
    costs : path, optional
        CSV `member,<cost>...` with any of the costs `parameters`, `gmacs`, `ms_per_image`.
    seed : int
        Of the folds that are made.

    Raises
    ------
    DataError
        Missing columns, other ids or classes, values that are not of that kind.
    """
    manifest, folds = read_labels(labels, class_names=class_names, ordinal=ordinal, seed=seed)
    found = {
        name: read_member(name, path, manifest, kind=kind, partial=partial)
        for name, path in members.items()
    }
    prices = {} if costs is None else _costs(costs, list(members))
    _refuse_paths(members)
    _refuse_other_order(run, manifest)
    run.begin(manifest, folds, {"imported": {name: str(path) for name, path in members.items()}})
    for name, (logits, doubts) in found.items():
        if name in prices:
            write_json(run.member_dir(name) / "member.json", prices[name])
        run.store.write(name, _stored(logits, doubts, manifest, folds))
    return run


def _stored(logits: Array, doubts: list[str], manifest: Manifest, folds: Folds) -> MemberLogits:
    train, test = manifest.part("train"), manifest.part("test")
    in_test = (manifest.table["split"] == "test").to_numpy()
    return MemberLogits(
        oof=logits[~in_test],
        test=dict.fromkeys(range(folds.n_splits), logits[in_test]) if len(test) else {},
        train_ids=tuple(train.sample_ids.tolist()),
        test_ids=tuple(test.sample_ids.tolist()),
        class_names=manifest.class_names,
        about={
            "manifest": manifest.digest,
            "folds": folds.digest,
            "folds_done": _folds_done(np.isnan(logits[:, 0]), in_test, folds.of(train)),
            "stamps": [MAKERS_WORD, *doubts],
        },
    )


def _folds_done(
    missing: npt.NDArray[np.bool_], in_test: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]
) -> list[int]:
    """Folds without a gap; none where a test row is missing, which all folds answer together."""
    if missing[in_test].any():
        return []
    return sorted(set(fold.tolist()) - set(fold[missing[~in_test]].tolist()))


def _costs(path: str | os.PathLike[str], members: list[str]) -> dict[str, dict[str, Any]]:
    """What each member costs by unit, as its `member.json` says it."""
    table = table_with(path, "member", what="A table of costs")
    units = [str(c) for c in table.columns if c != "member"]
    strange = [c for c in units if c not in UNITS]
    if strange or not units:
        raise DataError(
            f"A table of costs has the columns member and any of {', '.join(UNITS)}",
            f"'{path}' has {first_few(table.columns)}",
            did_you_mean(strange[0], UNITS) if strange else "Add one",
        )
    unknown = [name for name in table["member"].tolist() if name not in members]
    if unknown or table["member"].duplicated().any():
        raise DataError(
            "A table of costs has one row for each member that is imported",
            f"'{path}' has {first_few(table['member'])}",
            did_you_mean(unknown[0], members) if unknown else "Keep one row of each",
        )
    try:
        values = table[units].astype(np.float64)
    except ValueError as error:
        raise DataError("Costs are numbers", f"'{path}': {error}", "Mend that cell") from error
    return dict(zip(table["member"], values.to_dict("records"), strict=True))


def _refuse_paths(names: Iterable[str]) -> None:
    odd = [name for name in names if not re.fullmatch(r"\w[\w.@+=-]*", name)]
    if odd:
        raise DataError(
            "A member's name becomes a folder: letters, digits and . _ - + @ =",
            f"got '{odd[0]}'",
            "Rename it",
        )


def _refuse_other_order(run: Run, manifest: Manifest) -> None:
    if run.exists and run.manifest().ordinal != manifest.ordinal:
        raise DataError(
            "A run folder is made once with or without an order of its classes",
            f"'{run.path}' was made {'without' if manifest.ordinal else 'with'} one",
            "Use another --run folder",
        )
