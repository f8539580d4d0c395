"""Builds the tables of nested cross-validation from stored logits of models trained without two folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, command, first_few
from ensemble_kit.folds import Folds
from ensemble_kit.folds.fold_key import pairs_of
from ensemble_kit.predictions.nested import NestedFold
from ensemble_kit.predictions.store import MemberLogits, aligned
from ensemble_kit.predictions.table import Predictions


def nested_folds(
    stored: Mapping[str, MemberLogits], oof: Predictions, folds: Folds, where: Path
) -> tuple[NestedFold, ...]:
    """The pair of tables of each outer fold, for all members.

    Parameters
    ----------
    stored : mapping of member to MemberLogits
        Already checked against the manifest and folds of the run.
    oof : Predictions
        The out-of-fold table of the run, for its ids, labels and groups.

    Raises
    ------
    DataError
        There are only two folds, or models without a pair of folds are missing.
    """
    _refuse_missing(stored, pairs_of(folds.n_splits), where)
    logits = _stacked(stored, oof)  # (n_samples, n_members, n_folds, n_classes)
    # Features come from models that were trained on all folds but one: they would leak the outer fold.
    without_features = dataclasses.replace(oof, features=None)
    out = []
    for k in range(folds.n_splits):
        held_out = oof.fold == k
        blind = np.delete(logits[held_out], k, axis=2).mean(axis=2)
        outer = dataclasses.replace(
            without_features.take(held_out),
            logits=blind,
            fold=np.full(held_out.sum(), -1),
            kind="test",
        )
        inner = dataclasses.replace(
            without_features.take(~held_out), logits=logits[~held_out][:, :, k]
        )
        out.append(NestedFold(k, inner, outer))
    return tuple(out)


def _stacked(stored: Mapping[str, MemberLogits], oof: Predictions) -> Array:
    arrays, ids = {}, {}
    for name, logits in stored.items():
        by_name = [logits.class_names.index(c) for c in oof.class_names]
        assert logits.nested is not None
        arrays[name] = logits.nested.transpose(1, 0, 2)[:, :, by_name]
        ids[name] = logits.train_ids
    return aligned(arrays, ids, oof.sample_ids)


def _refuse_missing(stored: Mapping[str, MemberLogits], pairs: list[str], where: Path) -> None:
    lacking = {}
    for name, logits in stored.items():
        done = logits.about.get("pairs_done", [])
        if missing := [pair for pair in pairs if pair not in done]:
            lacking[name] = missing
    if not lacking:
        return
    listed = "; ".join(f"'{name}' lacks {first_few(some)}" for name, some in lacking.items())
    raise DataError(
        f"{sum(map(len, lacking.values()))} of {len(pairs) * len(stored)} models for nested cross-validation are missing: {listed}",
        "it needs a model of every member without each pair of folds",
        f"Train them: {command('train-members', '--nested', '--run', where.as_posix())}, with the "
        "settings of the run",
    )
