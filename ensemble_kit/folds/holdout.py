"""Chooses a test part of whole groups, with about the same share of each class.

Two groups of each class remain for training. Only labels and groups are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, counted, did_you_mean
from ensemble_kit.folds.group_counts import N_ASSIGNMENTS, check_by, units_of
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.seeding import generator


def hold_out(
    manifest: Manifest, *, test_size: float = 0.2, seed: int = 0, by: str = "group"
) -> Manifest:
    """`manifest` with a new `split` column: about `test_size` of each class, whole groups.

    Parameters
    ----------
    manifest : Manifest
    test_size : float
        Share of the images, between 0 and 1.
    seed : int
    by : {"group", "image"}
        `image` ignores groups, with a caveat.

    Returns
    -------
    Manifest
        Each class has groups in training; notes name the classes without test images.

    Raises
    ------
    DataError
        A share outside (0, 1), or fewer than two groups.
    """
    check_by(by)
    if not 0.0 < test_size < 1.0:
        raise DataError(
            f"Invalid test size {test_size}",
            "it must be above 0 and below 1",
            "Use e.g. --test-size 0.2",
        )
    unit_of, table = units_of(manifest, by)
    if len(table) < 2:
        raise DataError(
            f"All {len(manifest)} images are of one {manifest.group_kind}",
            "training and test part need at least one group each",
            "Add data of other groups",
        )
    if len(table) == len(manifest):
        in_test = _hold_out_singles(table, test_size, seed)
    else:
        in_test = _hold_out_search(table, test_size, seed)
    split = np.where(in_test[unit_of], "test", "train")
    parted = dataclasses.replace(manifest.with_columns(split=split), split_by=by)
    absent = [c for i, c in enumerate(manifest.class_names) if not table[in_test, i].any()]
    notes = [
        f"Class '{name}' is not in the test part: its images come from "
        f"{counted(int((table[:, manifest.class_names.index(name)] > 0).sum()), manifest.group_kind)}."
        for name in absent
    ]
    return parted.with_notes(*notes)


def _hold_out_singles(
    table: npt.NDArray[np.int64], test_size: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Stratified draw where every unit is one image."""
    rng = generator(seed, "hold-out")
    in_test = np.zeros(len(table), dtype=bool)
    for c in range(table.shape[1]):
        units = np.flatnonzero(table[:, c])
        n_test = min(max(1, round(test_size * len(units))), max(len(units) - 2, 0))
        in_test[rng.permutation(units)[:n_test]] = True
    return in_test


def _hold_out_search(
    table: npt.NDArray[np.int64], test_size: float, seed: int
) -> npt.NDArray[np.bool_]:
    rng = generator(seed, "hold-out")
    n_tries = max(10, min(N_ASSIGNMENTS, 200_000 // len(table)))
    best: tuple[tuple[int, int, float], npt.NDArray[np.bool_]] | None = None
    # With few groups, an empty test part can be nearest to a small share: then take one group.
    for at_least_one in (False, True):
        for _ in range(n_tries):
            in_test = _greedy_hold_out(table, test_size, rng, at_least_one=at_least_one)
            cost = _hold_out_cost(table, in_test, test_size)
            if in_test.any() and (best is None or cost < best[0]):
                best = (cost, in_test)
        if best is not None and best[0][1] == 0:
            break
    if best is None:
        raise DataError(
            f"{len(table)} groups are too few for a test part",
            "a test part is of whole groups, and two groups of each class must stay for training",
            "Add groups, or merge classes. A split by image would put images of one group on both sides",
        )
    return best[1]


def _greedy_hold_out(
    table: npt.NDArray[np.int64],
    test_size: float,
    rng: np.random.Generator,
    *,
    at_least_one: bool,
) -> npt.NDArray[np.bool_]:
    target = test_size * table.sum(axis=0)
    scale = np.maximum(table.sum(axis=0), 1)
    held = np.zeros(table.shape[1])
    left = (table > 0).sum(axis=0)
    in_test = np.zeros(len(table), dtype=bool)
    for unit in rng.permutation(len(table)):
        has = table[unit] > 0
        nearer = (((held + table[unit] - target) / scale) ** 2).sum() < (
            ((held - target) / scale) ** 2
        ).sum()
        wanted = nearer or (at_least_one and (held[has] == 0).any())
        if wanted and (left[has] > 2).all():
            in_test[unit] = True
            held += table[unit]
            left = left - has
    return in_test


def _hold_out_cost(
    table: npt.NDArray[np.int64], in_test: npt.NDArray[np.bool_], test_size: float
) -> tuple[int, int, float]:
    held = table[in_test].sum(axis=0)
    total = table.sum(axis=0)
    absent = int(((held == 0) & (total > 0)).sum())
    few = int(((table[~in_test] > 0).sum(axis=0) < 2).sum())
    return few, absent, float(((held / np.maximum(total, 1) - test_size) ** 2).sum())


def hold_out_groups(manifest: Manifest, groups: Sequence[str], *, by: str = "group") -> Manifest:
    """`manifest` with exactly these groups as its test part.

    Raises
    ------
    DataError
        A group does not exist, or all groups are named.
    """
    known = set(manifest.groups.tolist())
    unknown = [g for g in groups if g not in known]
    if unknown:
        raise DataError(
            f"Unknown test group '{unknown[0]}'",
            f"test groups are {manifest.group_kind}s of the data",
            did_you_mean(unknown[0], known),
        )
    if set(groups) == known:
        raise DataError(
            "All groups are named as test groups",
            "some groups must remain for training",
            "Name fewer",
        )
    split = np.where(np.isin(manifest.groups, list(groups)), "test", "train")
    return dataclasses.replace(manifest.with_columns(split=split), split_by=by)
