"""Stored logits of all members as one table, joined by sample id and class name.

Opens no file: what the store read is handed in.
"""

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
        No members, no test part, or an unfinished member without `partial`.
    IntegrityError
        Predictions of another manifest, other folds or other classes.
    """
    part = manifest.part("train" if kind == "oof" else "test")
    if not stored:
        raise DataError(
            "Only stored predictions can be combined",
            f"'{where}' has none",
            "Run ensemble-kit train-members first, or import-predictions again",
        )
    if not len(part):
        raise DataError(
            "Test figures need a test part",
            f"'{where}' was made without one",
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
    """Which members answer test rows by fewer models than there are folds."""
    done = {name: len(one.test) for name, one in stored.items() if one.test}
    fewer = [
        f"{name} by {n_models}"
        for name, n_models in done.items()
        if n_models < folds.n_splits and n_models == len(stored[name].about.get("folds_done", []))
    ]
    if not fewer:
        return ()
    return (
        f"Test answers are the mean logit of a member's fold models, {folds.n_splits} where all are "
        f"done: {first_few(fewer)} only.",
    )


def by_fold_model(stored: Mapping[str, MemberLogits], kind: str) -> dict[str, MemberLogits]:
    """Each fold's model as a member of its own, over the test rows.

    Raises
    ------
    DataError
        Out-of-fold rows: each of them is predicted by one fold's model alone.
    """
    if kind != "test":
        raise DataError(
            "Fold models are members of the test table alone",
            f"kind is '{kind}', where each row is predicted by the model of its own fold",
            "Ask for predictions('test', fold_models=True)",
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
            "Stored predictions belong to the run's manifest and folds",
            f"those of '{name}' were made from others",
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
    """A member's logits of images that no fold trained on: the mean of its folds' models.

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
                "Members share the run's class names",
                f"'{name}' has {list(logits.class_names)}, the run {list(class_names)}",
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
