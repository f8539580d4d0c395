"""Toy predictions and a toy run: members of growing skill that share some errors."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.store import MemberLogits
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run


def toy_logits(
    labels: npt.NDArray[np.int64],
    n_members: int,
    n_classes: int,
    *,
    skill: float = 1.5,
    seed: int = 0,
) -> Array:
    """Toy logits, shape (n_samples, n_members, n_classes).

    Examples
    --------
    >>> toy_logits(np.array([0, 1]), n_members=3, n_classes=2).shape
    (2, 3, 2)
    """
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(len(labels), 1, n_classes))
    own = rng.normal(size=(len(labels), n_members, n_classes))
    gain = skill * np.linspace(0.7, 1.3, n_members)[None, :, None]
    return (gain * np.eye(n_classes)[labels][:, None] + 0.6 * shared + own).astype(np.float32)


def toy_predictions(
    n_samples: int = 240,
    n_members: int = 4,
    n_classes: int = 3,
    *,
    n_groups: int = 24,
    n_folds: int = 4,
    n_features: int = 0,
    kind: str = "oof",
    skill: float = 1.5,
    seed: int = 0,
) -> Predictions:
    """A table of toy logits with folds of whole groups, and pooled features if `n_features` is set.

    Examples
    --------
    >>> toy_predictions().logits.shape
    (240, 4, 3)
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_samples) % n_classes)
    group = np.arange(n_samples) * n_groups // n_samples
    logits = toy_logits(labels, n_members, n_classes, skill=skill, seed=seed)
    return Predictions(
        logits=logits,
        sample_ids=np.array([f"{kind}-{i}" for i in range(n_samples)]),
        labels=labels,
        groups=np.array([f"{kind}-p{g}" for g in group]),
        member_names=tuple(f"member{m}" for m in range(n_members)),
        class_names=tuple(f"class{c}" for c in range(n_classes)),
        fold=group % n_folds if kind == "oof" else np.full(n_samples, -1),
        kind=kind,
        group_kind="patient",
        features=_toy_features(labels, group, n_members, n_folds, n_features, kind, seed)
        if n_features
        else None,
    )


def _toy_features(
    labels: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    n_members: int,
    n_folds: int,
    n_features: int,
    kind: str,
    seed: int,
) -> PooledFeatures:
    """Features that separate the classes, along other directions in each model's space."""
    turns = np.random.default_rng(0).normal(size=(n_members, n_folds, labels.max() + 1, n_features))
    every = np.tile(np.arange(n_folds), (len(labels), 1))
    spaces = group[:, None] % n_folds if kind == "oof" else every
    noise = np.random.default_rng(seed + 1)
    shape = (*spaces.shape, n_features)
    return PooledFeatures(
        tuple(turn[spaces, labels[:, None]] + noise.normal(size=shape) for turn in turns), spaces
    )


def toy_run(
    path: str | os.PathLike[str],
    *,
    n_samples: int = 240,
    n_members: int = 4,
    n_classes: int = 3,
    n_groups: int = 40,
    n_folds: int = 4,
    seed: int = 0,
) -> Run:
    """A finished run without models: manifest, folds and toy logits; a fifth of the groups is test."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_samples) % n_classes)
    group = np.arange(n_samples) * n_groups // n_samples
    rows = [
        (
            f"s{i}",
            f"s{i}.png",
            f"class{labels[i]}",
            f"p{group[i]}",
            "test" if group[i] % 5 == 4 else "train",
        )
        for i in range(n_samples)
    ]
    columns = ("sample_id", "path", "label", "group", "split")
    manifest = Manifest.from_records(rows, columns=columns, group_kind="patient", name="toy")
    folds = make_folds(manifest, n_folds, seed=seed)
    run = Run(path)
    run.begin(manifest, folds, {"seed": seed})
    logits = toy_logits(manifest.labels, n_members, n_classes, seed=seed)
    _store(run, manifest, folds, logits)
    return run


def _store(run: Run, manifest: Manifest, folds: Folds, logits: Array) -> None:
    in_test = (manifest.table["split"] == "test").to_numpy()
    train, test = manifest.part("train"), manifest.part("test")
    about = {
        "manifest": manifest.digest,
        "folds": folds.digest,
        "folds_done": list(range(folds.n_splits)),
    }
    for m in range(logits.shape[1]):
        run.store.write(
            f"member{m}",
            MemberLogits(
                oof=logits[~in_test, m],
                test=dict.fromkeys(range(folds.n_splits), logits[in_test, m]),
                train_ids=tuple(train.sample_ids.tolist()),
                test_ids=tuple(test.sample_ids.tolist()),
                class_names=manifest.class_names,
                about=about,
            ),
        )
