"""Adds a run's stored pooled features to a table of its predictions, by sample id."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, UsageError, command, first_few
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.store import MemberFeatures, MemberLogits, PredictionStore, aligned
from ensemble_kit.predictions.table import Predictions


def with_features(
    table: Predictions,
    logits: Mapping[str, MemberLogits],
    features: Mapping[str, MemberFeatures | None],
    *,
    n_folds: int,
    where: Path,
) -> Predictions:
    """The table with its members' pooled features.

    Parameters
    ----------
    logits, features : mapping of member to its stored arrays
        Both have the same ids.

    Raises
    ------
    DataError
        A member has no features, or lacks those of a fold.
    """
    _refuse_missing(features, logits, n_folds, where)
    if table.member_names != tuple(features):
        raise UsageError(
            f"Features were requested for the models of single folds: {first_few(table.member_names)}",
            "features exist for whole members only",
            "Leave out fold_models",
        )
    values = []
    for name in table.member_names:
        stored = features[name]
        assert stored is not None
        ids = logits[name].train_ids if table.kind == "oof" else logits[name].test_ids
        array = stored.oof[:, None] if table.kind == "oof" else _by_space(stored, n_folds)
        values.append(aligned({name: array}, {name: ids}, table.sample_ids)[:, 0])
    every = np.tile(np.arange(n_folds), (len(table), 1))
    spaces = table.fold[:, None] if table.kind == "oof" else every
    return dataclasses.replace(table, features=PooledFeatures(tuple(values), spaces))


def keeps_features(store: PredictionStore, members: Sequence[str], n_folds: int) -> bool:
    """Whether the store has the pooled features of every member and fold."""
    every = {str(k) for k in range(n_folds)}
    stored = [set(store.read_index(name)["made_of"].get("features", {})) for name in members]
    return bool(stored) and all(one == every for one in stored)


def _by_space(stored: MemberFeatures, n_folds: int) -> Array:
    return np.stack([stored.test[k] for k in range(n_folds)], axis=1)


def _refuse_missing(
    features: Mapping[str, MemberFeatures | None],
    logits: Mapping[str, MemberLogits],
    n_folds: int,
    where: Path,
) -> None:
    lacking = []
    for name, stored in features.items():
        done = logits[name].about.get("features", {}) if stored is not None else {}
        missing = [k for k in range(n_folds) if str(k) not in done]
        if missing:
            what = "has none" if len(missing) == n_folds else f"lacks fold {first_few(missing)}"
            lacking.append(f"'{name}' {what}")
    if lacking:
        raise DataError(
            f"'{where.as_posix()}' has no pooled features of {first_few(lacking)}",
            "this method needs the features of every member and fold",
            f"Store them: {command('train-members', '--keep-features', '--run', where.as_posix())}, with "
            "the settings of the run; finished folds are not trained again",
        )
