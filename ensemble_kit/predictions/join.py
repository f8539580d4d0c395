"""Two predictions tables over the same samples become one: rows by id, classes by name.

Knows no store; nothing is joined by position.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DataError, first_few

if TYPE_CHECKING:
    from ensemble_kit.predictions.table import Predictions


def joined(ours: Predictions, theirs: Predictions) -> Predictions:
    """`ours` with the members of `theirs`; refused where a sample does not mean the same in both."""
    _refuse_strangers(ours, theirs)
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
            "Tables join only where a sample means the same in both",
            f"{first_few(wrong)} differs for some ids",
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


def _refuse_strangers(ours: Predictions, theirs: Predictions) -> None:
    def refuse(what: str, got: str, advice: str) -> None:
        raise DataError(f"Tables join only over the same {what}", got, advice)

    if set(ours.class_names) != set(theirs.class_names):
        refuse(
            "class names",
            f"got {list(ours.class_names)} and {list(theirs.class_names)}",
            "Rename the classes of one",
        )
    if (ours.kind, ours.split_by) != (theirs.kind, theirs.split_by):
        got = f"got {ours.kind} by {ours.split_by} and {theirs.kind} by {theirs.split_by}"
        refuse(
            "kind and split",
            got,
            "Join out-of-fold with out-of-fold, patient-level with patient-level",
        )
    digests = {ours.manifest_digest, theirs.manifest_digest} - {""}
    if len(digests) > 1:
        refuse(
            "manifest",
            f"got digests {first_few(d[:12] for d in sorted(digests))}",
            "Use runs over the same data",
        )
    missing = set(ours.sample_ids.tolist()) ^ set(theirs.sample_ids.tolist())
    if missing:
        refuse(
            "samples",
            f"{len(missing)} ids are in one only: {first_few(sorted(missing))}",
            "Leave those out of both",
        )
    twice = set(ours.member_names) & set(theirs.member_names)
    if twice:
        refuse(
            "samples with different members",
            f"{first_few(sorted(twice))} is in both",
            "Rename one of them",
        )
