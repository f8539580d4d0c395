"""Joins two prediction tables over the same samples: rows by id, classes by name."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DataError, first_few

if TYPE_CHECKING:
    from ensemble_kit.predictions.table import Predictions


def joined(ours: Predictions, theirs: Predictions) -> Predictions:
    """`ours` with the members of `theirs`; DataError if a sample differs between the two."""
    _refuse_other_tables(ours, theirs)
    row_of = {name: i for i, name in enumerate(theirs.sample_ids.tolist())}
    rows = np.array([row_of[name] for name in ours.sample_ids.tolist()], dtype=np.int64)
    classes = [theirs.class_names.index(name) for name in ours.class_names]
    moved = theirs.logits[rows][:, :, classes]
    to_ours = np.argsort(classes)
    agree = {
        "label": np.array_equal(to_ours[theirs.labels[rows]], ours.labels),
        "group": np.array_equal(theirs.groups[rows], ours.groups),
        "fold": np.array_equal(theirs.fold[rows], ours.fold),
    }
    wrong = [name for name, same in agree.items() if not same]
    if wrong:
        raise DataError(
            f"{first_few(wrong)} differs between the tables for some sample ids",
            "a sample must have the same label, group and fold in both",
            "Use predictions over one manifest and one set of folds",
        )
    return dataclasses.replace(
        ours,
        logits=np.concatenate([ours.logits, moved], axis=1),
        member_names=ours.member_names + theirs.member_names,
        features=ours.features
        and theirs.features
        and ours.features.join(theirs.features.take(rows)),
        notes=(*ours.notes, *(n for n in theirs.notes if n not in ours.notes)),
    )


def _refuse_other_tables(ours: Predictions, theirs: Predictions) -> None:
    def refuse(problem: str, what: str, advice: str) -> None:
        raise DataError(problem, f"tables are joined if they have {what}", advice)

    if set(ours.class_names) != set(theirs.class_names):
        refuse(
            f"The tables have the classes {list(ours.class_names)} and {list(theirs.class_names)}",
            "the same class names",
            "Rename the classes of one",
        )
    if (ours.kind, ours.split_by) != (theirs.kind, theirs.split_by):
        found = f"{ours.kind} by {ours.split_by} and {theirs.kind} by {theirs.split_by}"
        refuse(
            f"The tables are of the kinds {found}",
            "the same kind and the same split",
            "Join out-of-fold with out-of-fold, patient-level with patient-level",
        )
    digests = {ours.manifest_digest, theirs.manifest_digest} - {""}
    if len(digests) > 1:
        refuse(
            f"The manifests have the digests {first_few(d[:12] for d in sorted(digests))}",
            "the same manifest",
            "Use runs over the same data",
        )
    missing = set(ours.sample_ids.tolist()) ^ set(theirs.sample_ids.tolist())
    if missing:
        refuse(
            f"{len(missing)} sample ids are in one table only: {first_few(sorted(missing))}",
            "the same samples",
            "Remove them from that table",
        )
    twice = set(ours.member_names) & set(theirs.member_names)
    if twice:
        refuse(
            f"The member {first_few(sorted(twice))} is in both tables",
            "different members",
            "Rename one of them",
        )
