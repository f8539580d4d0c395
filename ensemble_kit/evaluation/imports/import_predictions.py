"""Import predictions of other programs as a run: one CSV or `.npy` per member, joined by id.

The run folder has no models. It is written after every file was read and checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, UsageError, did_you_mean, first_few
from ensemble_kit.evaluation.diversity.inference_cost import UNITS
from ensemble_kit.evaluation.imports.class_order import ImportedMember, array_notes, with_caveats
from ensemble_kit.evaluation.imports.labels import folds_of, manifest_of, read_labels
from ensemble_kit.evaluation.imports.prediction_files import MemberFile, read_member_file
from ensemble_kit.evaluation.imports.rows import matched_ids, row_of_id
from ensemble_kit.evaluation.imports.values import logits_of
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.checks import table_with
from ensemble_kit.manifest.names import in_natural_order
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.store import MemberLogits
from ensemble_kit.run import Run
from ensemble_kit.run.requested import importing
from ensemble_kit.tables import numbers

KINDS = ("proba", "logits")
IMPORTED_NOTE = "imported. The run cannot check that its predictions are out-of-fold."


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
    notify: Callable[[str], object] = lambda _: None,
) -> Run:
    """Make a run of stored predictions.

    Nothing is written before all files were read and checked.

    Parameters
    ----------
    run : Run
        An empty folder, or a run with the same labels.
    labels : path
        CSV `sample_id,label[,group][,fold][,split]`. Other common names are recognised, such as
        `filename`, `diagnosis` or `Patient ID`. `fold` is the fold whose model did not see the row.
        Without it, up to five folds of whole groups are made for the combiners, with a caveat.
    members : mapping of name to path
        CSV `sample_id,<class>,<class>...` joined by id and class name, or `.npy` of shape
        (n_samples, n_classes) in the order of the labels and of the classes. The `predictions.csv`
        of `stack` is such a table.
    kind : {"proba", "logits"}
        Values in the files. Probabilities may be in percent, and may be rounded.
    class_names : sequence of str, optional
        The classes in their order, the most severe last. By default they are sorted by name, numbers
        as numbers. Classes without an image are allowed.
    ordinal : bool
        Whether the classes are ordered; adds metrics of ordinal classes.
    partial : bool
        Accept members with missing rows; `stack --quorum` can combine them.
    costs : path, optional
        CSV `member,<cost>...` with any of the costs `parameters`, `gmacs`, `ms_per_image`.
    seed : int
        Seed of the folds that are made.
    notify : callable
        Called with each sentence on how the files were read, after the run was written.

    Raises
    ------
    UsageError
        An unknown kind.
    DataError
        Missing columns, other ids or classes, or values that are not of that kind.
    RunLockedError
        Another process trains, imports or writes results in this run.
    """
    if kind not in KINDS:
        raise UsageError(
            f"Unknown kind '{kind}'", "the kinds are proba and logits", did_you_mean(kind, KINDS)
        )
    _refuse_paths(members)
    table = read_labels(labels)
    files = [
        read_member_file(
            name,
            path,
            class_names or table.class_names,
            may_add=class_names is None and kind == "proba",
        )
        for name, path in members.items()
    ]
    names = class_names or _all_classes(table.class_names, files)
    manifest = manifest_of(table, names, ordinal=ordinal)
    folds = folds_of(table, manifest, seed=seed)
    found = [_read(file, manifest, kind, partial) for file in files]
    found = with_caveats(found, manifest)
    costs_by_member = {} if costs is None else _costs(costs, list(members))
    _refuse_other_order(run, manifest)
    config = {"imported": {name: str(path) for name, path in members.items()}}
    with run.locked():
        run.begin(manifest, folds, config)
        with run.writing_results(), importing(run.path, members):
            for one in found:
                if one.name in costs_by_member:
                    write_checked(
                        run.member_dir(one.name) / "member.json", costs_by_member[one.name]
                    )
                run.store.write(one.name, _stored(one.logits, one.caveats, manifest, folds))
    for sentence in (
        *table.messages,
        *array_notes(found, manifest),
        *(s for f in found for s in f.messages),
    ):
        notify(sentence)
    return run


def _all_classes(labelled: Sequence[str], files: Sequence[MemberFile]) -> list[str]:
    """The classes of the labels and of the members; numbers are sorted as numbers."""
    of_members = {c for file in files for c in file.class_names or ()}
    return list(in_natural_order({*labelled, *of_members}))


def _read(file: MemberFile, manifest: Manifest, kind: str, partial: bool) -> ImportedMember:
    """A member's logits in the manifest's order of rows and classes."""
    values = file.values(manifest.class_names, manifest.sample_ids.tolist())
    ids, notes = matched_ids(values.ids, manifest.sample_ids, file.where)
    row_of = row_of_id(file.name, ids, manifest.sample_ids, partial)
    _refuse_other_labels(file, ids, manifest)
    read, done, caveats = logits_of(values, kind)
    present = np.array([sample in row_of for sample in manifest.sample_ids.tolist()], dtype=bool)
    logits = np.full((len(manifest), manifest.n_classes), np.nan)
    logits[present] = read[[row_of[sample] for sample in manifest.sample_ids[present].tolist()]]
    return ImportedMember(
        file.name,
        file.path,
        logits,
        file.ids is None,
        (*file.messages, *notes, *done),
        tuple(caveats),
    )


def _refuse_other_labels(file: MemberFile, ids: Sequence[str], manifest: Manifest) -> None:
    """Raise DataError if a member's file has other true classes than the labels."""
    want = dict(zip(manifest.sample_ids.tolist(), manifest.table["label"].tolist(), strict=True))
    other = [i for i, label in zip(ids, file.labels or [], strict=False) if want[i] != label]
    if other:
        got = dict(zip(ids, file.labels or [], strict=False))[other[0]]
        raise DataError(
            f"The true classes in {file.where} differ from the labels in {len(other)} rows: "
            f"'{other[0]}' is '{got}' in the file and '{want[other[0]]}' in the labels",
            "a member's file has the ids and labels of the same images",
            "Check that both files are of one data set, or remove the column of labels of the member",
        )


def _stored(
    logits: Array, caveats: Sequence[str], manifest: Manifest, folds: Folds
) -> MemberLogits:
    train, test = manifest.part("train"), manifest.part("test")
    in_test = (manifest.table["split"] == "test").to_numpy()
    return MemberLogits(
        oof=logits[~in_test],
        test=dict.fromkeys(range(folds.n_splits), logits[in_test]) if len(test) else {},
        train_ids=tuple(train.sample_ids.tolist()),
        test_ids=tuple(test.sample_ids.tolist()),
        class_names=manifest.class_names,
        about={
            "imported": True,
            "manifest": manifest.digest,
            "folds": folds.digest,
            "folds_done": _folds_done(np.isnan(logits[:, 0]), in_test, folds.of(train)),
            "stamps": [IMPORTED_NOTE, *caveats],
        },
    )


def _folds_done(
    missing: npt.NDArray[np.bool_], in_test: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]
) -> list[int]:
    """Folds without missing rows; none if a test row is missing, as all folds share the test rows."""
    if missing[in_test].any():
        return []
    return sorted(set(fold.tolist()) - set(fold[missing[~in_test]].tolist()))


def _costs(path: str | os.PathLike[str], members: list[str]) -> dict[str, dict[str, Any]]:
    """Costs of each member by unit, as in its `member.json`."""
    read = table_with(path, "member", what="A table of costs")
    table = read.frame
    units = [str(c) for c in table.columns if c != "member"]
    unknown = [c for c in units if c not in UNITS]
    if unknown or not units:
        raise DataError(
            f"'{path}' has the columns {first_few(table.columns)}",
            f"a table of costs has the column member and any of {', '.join(UNITS)}",
            did_you_mean(unknown[0], UNITS) if unknown else "Add one",
        )
    unknown = [name for name in table["member"].tolist() if name not in members]
    if unknown or table["member"].duplicated().any():
        raise DataError(
            f"'{path}' has rows for {first_few(table['member'])}",
            "a table of costs has one row for each imported member",
            did_you_mean(unknown[0], members) if unknown else "Keep one row of each",
        )
    values = (dict(zip(units, row, strict=True)) for row in numbers(read, units).tolist())
    return dict(zip(table["member"], values, strict=True))


def _refuse_paths(names: Iterable[str]) -> None:
    odd = [name for name in names if not re.fullmatch(r"\w[\w.@+=-]*", name)]
    if odd:
        raise DataError(
            f"The member name '{odd[0]}' cannot be a folder name",
            "allowed are letters, digits and . _ - + @ =",
            "Rename it",
        )


def _refuse_other_order(run: Run, manifest: Manifest) -> None:
    if run.exists and run.manifest().ordinal != manifest.ordinal:
        raise DataError(
            f"'{run.path}' was made {'without' if manifest.ordinal else 'with'} an order of its classes",
            "the order of the classes of a run cannot be changed",
            "Use another --run folder",
        )
