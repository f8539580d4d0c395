"""Takes a validation split from the training rows: whole groups, every class where possible.

Only labels and groups are used.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, counted
from ensemble_kit.folds.group_counts import units_of
from ensemble_kit.folds.holdout import hold_out
from ensemble_kit.manifest.table import Manifest

# A class needs this part of its share; training must keep this part of its images.
ENOUGH_VALIDATION, ENOUGH_LEFT = 0.5, 0.5


def validation_split(
    train: Manifest, *, share: float, seed: int, by: str = "group"
) -> tuple[Manifest, tuple[str, ...]]:
    """`train` with a new `split` column: training rows, and validation rows (`test`).

    Made by `hold_out`, which leaves two groups of each class for training. A class with less than
    half its share in the validation split gets one more group, if training keeps one group and half
    of the images of each class. The validation split is then larger than `share`.

    Returns
    -------
    Manifest
    tuple of str
        Classes with too few validation images: "no image of class 'a'", "1 image of class 'b'".

    Raises
    ------
    DataError
        No group can be taken out of training.

    Examples
    --------
    >>> rows = [(f"{p}{i}", f"{p}{i}.png", p[0], p) for p in ("a1", "a2", "b1", "b2") for i in "xy"]
    >>> parted, lacks = validation_split(Manifest.from_records(rows), share=0.2, seed=0)
    >>> sorted(set(parted.part("test").labels.tolist())), lacks
    ([0, 1], ())
    """
    unit_of, table = units_of(train, by)
    held, refused = np.zeros(len(table), dtype=bool), None
    try:
        parted = hold_out(train, test_size=share, seed=seed, by=by)
        held[unit_of[(parted.table["split"] == "test").to_numpy()]] = True
    except DataError as error:
        refused = error
    held = _with_short_classes(table, held, share)
    if refused and not held.any():
        raise refused
    split = np.where(held[unit_of], "test", "train")
    parted = dataclasses.replace(train.with_columns(split=split), split_by=by)
    return parted, _lacks(train, table, held, share)


def _with_short_classes(
    table: npt.NDArray[np.int64], held: npt.NDArray[np.bool_], share: float
) -> npt.NDArray[np.bool_]:
    """`held` with one more unit for each class below its share."""
    held, target = held.copy(), share * table.sum(axis=0)
    scale = np.maximum(table.sum(axis=0), 1)
    for c in np.flatnonzero(_is_short(table, held, share)):
        units = np.flatnonzero(~held & (table[:, c] > 0)).tolist()
        free = [unit for unit in units if _can_leave_training(table, held, unit)]
        # A unit that was added for another class may have this class too.
        if free and _is_short(table, held, share)[c]:
            now = table[held].sum(axis=0)
            cost = [(((now + table[unit] - target) / scale) ** 2).sum() for unit in free]
            held[free[int(np.argmin(cost))]] = True
    return held


def _can_leave_training(
    table: npt.NDArray[np.int64], held: npt.NDArray[np.bool_], unit: int
) -> bool:
    """Whether training keeps a unit and half the images of each of this unit's classes."""
    left = table[~held & (np.arange(len(table)) != unit)]
    has = table[unit] > 0
    return bool((left.sum(axis=0) >= np.maximum(ENOUGH_LEFT * table.sum(axis=0), 1))[has].all())


def _is_short(
    table: npt.NDArray[np.int64], held: npt.NDArray[np.bool_], share: float
) -> npt.NDArray[np.bool_]:
    total, inside = table.sum(axis=0), table[held].sum(axis=0)
    return (total > 0) & (inside < np.maximum(ENOUGH_VALIDATION * share * total, 1))


def _lacks(
    train: Manifest, table: npt.NDArray[np.int64], held: npt.NDArray[np.bool_], share: float
) -> tuple[str, ...]:
    inside = table[held].sum(axis=0)
    return tuple(
        f"{counted(int(inside[c]), 'image') if inside[c] else 'no image'} of class '{train.class_names[c]}'"
        for c in np.flatnonzero(_is_short(table, held, share))
    )
