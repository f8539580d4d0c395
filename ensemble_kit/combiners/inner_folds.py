"""Inner folds of whole groups with balanced classes, for use inside the fit of a combiner.

The folds of members are made by `ensemble_kit.folds`.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Ints


def inner_folds(labels: Ints, groups: Ints, n_splits: int, rng: np.random.Generator) -> Ints:
    """Fold of each sample, shape (n_samples,): whole groups, classes as balanced as possible.

    With fewer groups than folds, there are as many folds as groups.

    Parameters
    ----------
    labels, groups : array of int, shape (n_samples,)
        Groups are numbered `0 .. n_groups - 1`.

    Examples
    --------
    >>> fold = inner_folds(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), 2, np.random.default_rng(0))
    >>> sorted(fold[:2].tolist()), sorted(fold[2:].tolist())
    ([0, 1], [0, 1])
    """
    n_groups, n_classes = int(groups.max()) + 1, int(labels.max()) + 1
    table = np.bincount(groups * n_classes + labels, minlength=n_groups * n_classes)
    table = table.reshape(n_groups, n_classes)
    assigned = (
        _assign_alike(table, n_splits, rng)
        if _one_class_each(table)
        else _assign_greedily(table, n_splits, rng)
    )
    return assigned[groups]


def _one_class_each(table: Ints) -> bool:
    return bool(((table > 0).sum(axis=1) <= 1).all() and table.max() <= 1)


def _assign_alike(table: Ints, n_splits: int, rng: np.random.Generator) -> Ints:
    """Every group is one sample: shuffle, order by class, assign in turn."""
    order = rng.permutation(len(table))
    order = order[np.argsort(table.argmax(axis=1)[order], kind="stable")]
    assigned = np.empty(len(table), dtype=np.int64)
    assigned[order] = np.arange(len(table)) % n_splits
    return assigned


def _assign_greedily(table: Ints, n_splits: int, rng: np.random.Generator) -> Ints:
    """Largest groups first, each to the fold that has the fewest samples of its classes."""
    share = table / np.maximum(table.sum(axis=0), 1)
    order = np.argsort(-share.max(axis=1) * rng.uniform(0.9, 1.1, len(table)), kind="stable")
    filled = np.zeros((n_splits, table.shape[1]))
    assigned = np.zeros(len(table), dtype=np.int64)
    for group in order:
        cost = filled @ share[group] + 1e-9 * filled.sum(axis=1)
        k = int(cost.argmin())
        assigned[group] = k
        filled[k] += share[group]
    return assigned
