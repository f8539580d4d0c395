"""Stratified folds that keep each group (the patient) together.

A seeded search assigns groups to folds many times and takes the best assignment. Only labels and
groups are used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, counted, first_few
from ensemble_kit.folds.group_counts import N_ASSIGNMENTS, check_by, units_of
from ensemble_kit.folds.table import Folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.seeding import generator


def make_folds(manifest: Manifest, n_splits: int = 5, *, seed: int = 0, by: str = "group") -> Folds:
    """Stratified folds of the training rows in which no group is in two folds.

    Groups are assigned to folds by a seeded search over greedy assignments. The best one has the
    fewest folds without a class, then the most even class counts.

    Parameters
    ----------
    manifest : Manifest
        Rows whose split is `train` are used.
    n_splits : int
    seed : int
    by : {"group", "image"}
        `image` ignores groups, with a caveat.

    Returns
    -------
    Folds
        `notes` names the classes that are not in every fold.

    Raises
    ------
    DataError
        There are fewer groups than folds, or all groups of a class are in one fold, so that a model
        would be trained without this class.

    Examples
    --------
    >>> rows = [(f"i{i}", f"i{i}.png", "ab"[i % 2], f"p{i // 4}-{i % 2}") for i in range(24)]
    >>> folds = make_folds(Manifest.from_records(rows), n_splits=3)
    >>> folds.n_splits, folds.notes
    (3, ())
    """
    check_by(by)
    train = manifest.part("train")
    if n_splits < 2:
        raise DataError(
            f"The number of folds is {n_splits}",
            "cross-validation needs at least two",
            "Use --folds 2 or more",
        )
    unit_of, table = units_of(train, by)
    if len(table) < n_splits:
        raise DataError(
            f"{n_splits} folds need at least {n_splits} groups ({train.group_kind}s)",
            f"the training part has {len(table)}",
            _fewer_folds(table) if len(table) > 1 else "Add data from other groups",
        )
    _refuse_small_classes(train, table)
    assigned = _assign(table[:, table.any(axis=0)], n_splits, seed)
    fold = assigned[unit_of].astype(np.int64)
    return Folds(train.sample_ids, fold, by, _missing_notes(train, table, assigned, n_splits))


def _fewer_folds(table: npt.NDArray[np.int64]) -> str:
    """The advice for more folds than groups; `table` counts images by group and class."""
    n_of_class = (table > 0).sum(axis=0)
    rarest = int(n_of_class[n_of_class > 0].min())
    advice = f"Use at most --folds {len(table)}"
    if 1 < rarest < len(table):
        advice += f", or --folds {rarest} if each class should be in each fold"
    return advice


def _refuse_small_classes(train: Manifest, table: npt.NDArray[np.int64]) -> None:
    n_groups = (table > 0).sum(axis=0)
    few = [train.class_names[c] for c in np.flatnonzero(n_groups < 2)]
    too_small = [name for name in few if name not in train.absent]
    if too_small:
        counts = first_few(
            f"{name}: {counted(int(n), train.group_kind)}"
            for name, n in zip(train.class_names, n_groups, strict=True)
        )
        raise DataError(
            f"Too few {train.group_kind}s in the training part for class {first_few(map(repr, too_small))} ({counts})",
            "each class needs at least two, else one fold trains without it",
            "Merge or remove that class, add groups, or make the test part smaller (--test-size)",
        )


def _missing_notes(
    train: Manifest, table: npt.NDArray[np.int64], assigned: npt.NDArray[np.int64], n_splits: int
) -> tuple[str, ...]:
    notes = []
    for c, name in enumerate(train.class_names):
        present = len(np.unique(assigned[table[:, c] > 0]))
        if present < n_splits and name not in train.absent:
            held = counted(int((table[:, c] > 0).sum()), train.group_kind)
            notes.append(
                f"Class '{name}' is in {present} of {n_splits} folds: its images come from {held}. "
                "The other folds have no image of it."
            )
    return tuple(notes)


def _assign(table: npt.NDArray[np.int64], n_splits: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each unit, shape (n_units,)."""
    if (table.sum(axis=1) == 1).all() and (table.sum(axis=0) >= n_splits).all():
        return _assign_images(table.argmax(axis=1), n_splits, seed)
    rng = generator(seed, "folds")
    n_assignments = max(1, min(N_ASSIGNMENTS, 200_000 // len(table)))
    assignments = (_greedy_assignment(table, n_splits, rng) for _ in range(n_assignments))
    return min(assignments, key=lambda assigned: _assignment_cost(table, assigned, n_splits))


def _assign_images(
    classes: npt.NDArray[np.int64], n_splits: int, seed: int
) -> npt.NDArray[np.int64]:
    """Stratified folds if every unit is one image: the images of each class in turn."""
    order = generator(seed, "folds").permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    assigned = np.empty(len(classes), dtype=np.int64)
    assigned[order] = np.arange(len(classes)) % n_splits
    return assigned


def _greedy_assignment(
    table: npt.NDArray[np.int64], n_splits: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    share = table / np.maximum(table.sum(axis=0), 1)
    # Largest first, with noise, so that assignments differ.
    order = np.argsort(-share.max(axis=1) * rng.uniform(0.5, 1.5, len(table)))
    filled = np.zeros((n_splits, table.shape[1]))
    n_units = np.zeros(n_splits)
    assigned = np.zeros(len(table), dtype=np.int64)
    for step, unit in enumerate(order):
        # The growth of each fold by this unit; at the end, only empty folds are allowed.
        cost = (filled * share[unit]).sum(axis=1) + 1e-6 * filled.sum(axis=1)
        if (n_units == 0).sum() >= len(order) - step:
            cost = np.where(n_units == 0, cost, np.inf)
        k = int(rng.choice(np.flatnonzero(cost <= cost.min() + 1e-12)))
        assigned[unit] = k
        filled[k] += share[unit]
        n_units[k] += 1
    return assigned


def _assignment_cost(
    table: npt.NDArray[np.int64], assigned: npt.NDArray[np.int64], n_splits: int
) -> tuple[int, int, float]:
    per_fold = np.zeros((n_splits, table.shape[1]))
    np.add.at(per_fold, assigned, table)
    untrained = int((per_fold.sum(axis=0) - per_fold == 0).sum())
    lacking = int((per_fold == 0).sum())
    uneven = float(((per_fold / per_fold.sum(axis=0) - 1 / n_splits) ** 2).sum())
    return untrained, lacking, uneven
