"""Stored logits of all members as one table, joined by sample id and class name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, IntegrityError, first_few
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.store import MemberLogits, aligned
from ensemble_kit.predictions.table import Predictions


def member_table(
    stored: Mapping[str, MemberLogits],
    manifest: Manifest,
    folds: Folds,
    kind: str,
    *,
    partial: bool,
    notes: tuple[str, ...],
    where: Path,
) -> Predictions:
    """All members' logits over the training (`oof`) or the test rows.

    Raises
    ------
    DataError
        There are no members, no test part, or an unfinished member without `partial`.
    IntegrityError
        Predictions are of another manifest, other folds or other classes.
    """
    part = manifest.part("train" if kind == "oof" else "test")
    if not stored:
        raise DataError(
            f"'{where}' has no stored predictions",
            "this command needs the predictions of its members",
            "Run ensemble-kit train-members first, or import-predictions again",
        )
    if not len(part):
        raise DataError(
            f"'{where}' has no test part",
            "test metrics need one",
            "Make a run with --test-size, or give the images a split",
        )
    for name, logits in stored.items():
        _check_member(name, logits, manifest, folds, partial)
    return Predictions(
        logits=_stack(stored, kind, part, manifest.class_names),
        sample_ids=part.sample_ids,
        labels=part.labels,
        groups=part.groups,
        member_names=tuple(stored),
        class_names=manifest.class_names,
        fold=folds.of(part) if kind == "oof" else np.full(len(part), -1),
        kind=kind,
        split_by=folds.split_by,
        group_kind=manifest.group_kind,
        manifest_digest=manifest.digest,
        ordinal=manifest.ordinal,
        notes=(*notes, *(fewer_models_notes(stored, folds) if kind == "test" else ())),
    )


def fewer_models_notes(stored: Mapping[str, MemberLogits], folds: Folds) -> tuple[str, ...]:
    """A caveat about members with fewer models for the test rows than folds."""
    done = {name: len(one.test) for name, one in stored.items() if one.test}
    fewer = [
        f"{name} of {n_models}"
        for name, n_models in done.items()
        if n_models < folds.n_splits and n_models == len(stored[name].about.get("folds_done", []))
    ]
    if not fewer:
        return ()
    return (
        f"Some test predictions are the mean of fewer than {folds.n_splits} fold models: "
        f"{first_few(fewer)}.",
    )


def by_fold_model(stored: Mapping[str, MemberLogits], kind: str) -> dict[str, MemberLogits]:
    """Each fold's model as a separate member, for the test rows.

    Raises
    ------
    DataError
        The rows are out-of-fold: each is predicted by the model of one fold only.
    """
    if kind != "test":
        raise DataError(
            f"fold_models was set for the kind '{kind}'",
            "only test images are predicted by the models of all folds",
            "Use predictions('test', fold_models=True)",
        )
    return {
        f"{name}@fold{k}": dataclasses.replace(logits, test={k: array})
        for name, logits in stored.items()
        for k, array in sorted(logits.test.items())
    }


def _check_member(
    name: str, logits: MemberLogits, manifest: Manifest, folds: Folds, partial: bool
) -> None:
    made = logits.about
    if made.get("manifest") != manifest.digest or made.get("folds") != folds.digest:
        raise IntegrityError(
            f"The stored predictions of '{name}' were made from another manifest or other folds",
            "they must belong to the manifest and folds of the run",
            "Delete that member's folders and run train-members again",
        )
    done = set(made.get("folds_done", []))
    missing = sorted(set(range(folds.n_splits)) - done)
    if missing and not partial:
        again = "Run the same train-members command again: it continues where it stopped"
        if made.get("imported"):
            again = "Import that member with all images"
        raise DataError(
            f"'{name}' lacks fold {first_few(missing)}",
            "an ensemble needs every fold of every member",
            f"{again}. Only stack accepts gaps: stack --quorum K",
        )


def mean_of_folds(by_fold: Mapping[int, Array]) -> Array:
    """A member's logits of test images: the mean of its fold models.

    Parameters
    ----------
    by_fold : mapping of fold to array of float32, shape (n_samples, n_classes)
    """
    return np.mean([by_fold[k] for k in sorted(by_fold)], axis=0)


def _stack(
    stored: Mapping[str, MemberLogits], kind: str, part: Manifest, class_names: tuple[str, ...]
) -> Array:
    members, ids = {}, {}
    for name, logits in stored.items():
        if set(logits.class_names) != set(class_names):
            raise IntegrityError(
                f"'{name}' has the classes {list(logits.class_names)}; the run has {list(class_names)}",
                "all members need the classes of the run",
                "Train that member again",
            )
        by_name = [logits.class_names.index(c) for c in class_names]
        if kind == "oof":
            array = logits.oof
        elif logits.test:
            array = mean_of_folds(logits.test)
        else:
            array = np.full((len(logits.test_ids), len(class_names)), np.nan, dtype=np.float32)
        members[name] = array[:, by_name]
        ids[name] = logits.train_ids if kind == "oof" else logits.test_ids
    return aligned(members, ids, part.sample_ids)
