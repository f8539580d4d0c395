"""Folds and hold-out that keep a group (the patient) on one side and every class in every part.

Groups are dealt out by a seeded search: many greedy deals, the best kept. Sees labels and groups
only, never pixels.
"""

from __future__ import annotations

import dataclasses
import os
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.files import digest_json, read_csv, write_csv
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.seeding import generator

SPLIT_BY = ("group", "image")
N_DEALS = 200


@dataclasses.dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each training image is kept out of training in.

    Parameters
    ----------
    sample_ids : array of str, shape (n_samples,)
    fold : array of int, shape (n_samples,)
        `0 .. n_splits - 1`.
    split_by : str
        `group`, or `image` where a group may stand in several folds on purpose.
    notes : tuple of str
        What could not be had, in plain sentences ("class 'x' is in 2 of 5 folds: ...").

    Raises
    ------
    DataError
        A sample without a fold or with two, or a fold without a sample.
    """

    sample_ids: npt.NDArray[np.str_]
    fold: npt.NDArray[np.int64]
    split_by: str = "group"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = np.asarray(self.sample_ids, dtype=np.str_)
        fold = np.asarray(self.fold, dtype=np.int64)
        object.__setattr__(self, "sample_ids", ids)
        object.__setattr__(self, "fold", fold)
        if len(ids) != len(fold) or len(np.unique(ids)) != len(ids):
            raise DataError(
                "Every sample is in one fold",
                f"got {len(ids)} ids ({len(np.unique(ids))} different) and {len(fold)} folds",
                "Build the folds from the manifest: make_folds(manifest)",
            )
        present = np.unique(fold)
        if not np.array_equal(present, np.arange(len(present))) or len(present) < 2:
            raise DataError(
                "Folds are numbered 0, 1, ... and each holds a sample",
                f"got {first_few(present)}",
                "Build the folds from the manifest: make_folds(manifest)",
            )

    @property
    def n_splits(self) -> int:
        return int(self.fold.max()) + 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 of which sample is in which fold; row order does not count."""
        pairs = sorted(zip(self.sample_ids.tolist(), self.fold.tolist(), strict=True))
        return digest_json([pairs, self.split_by])

    def of(self, manifest: Manifest) -> npt.NDArray[np.int64]:
        """The fold of each row of `manifest`, shape (n_samples,), joined by sample id.

        Raises
        ------
        DataError
            Rows without a fold, or a group in two folds although the folds are by group.
        """
        where = dict(zip(self.sample_ids.tolist(), self.fold.tolist(), strict=True))
        missing = [i for i in manifest.sample_ids.tolist() if i not in where]
        if missing:
            raise DataError(
                "Every sample must be in one fold",
                f"{len(missing)} of {len(manifest)} are in none (first: {missing[0]})",
                "Build the folds from this manifest: make_folds(manifest)",
            )
        fold = np.array([where[i] for i in manifest.sample_ids.tolist()], dtype=np.int64)
        if self.split_by == "group":
            _refuse_straddling(manifest.groups, fold)
        return fold

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `sample_id,fold` as CSV."""
        write_csv(path, pd.DataFrame({"sample_id": self.sample_ids, "fold": self.fold}))

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, split_by: str = "group", notes: tuple[str, ...] = ()
    ) -> Folds:
        """Folds that `write` wrote, or a user's own table with the same two columns."""
        table = read_csv(path)
        missing = [c for c in ("sample_id", "fold") if c not in table]
        if missing:
            raise DataError(
                "A fold table has the columns sample_id, fold",
                f"'{path}' has {first_few(table.columns, 12)}",
                did_you_mean(missing[0], map(str, table.columns)),
            )
        try:
            fold = table["fold"].astype(np.int64).to_numpy()
        except ValueError as error:
            raise DataError(
                "Folds are whole numbers", f"'{path}': {error}", "Number them 0, 1, ..."
            ) from error
        return cls(table["sample_id"].to_numpy(dtype=np.str_), fold, split_by, notes)

    def counts(self, manifest: Manifest) -> pd.DataFrame:
        """Images and groups per fold and class: columns `fold, label, images, groups`."""
        table = manifest.table.assign(fold=self.of(manifest))
        out = table.groupby(["fold", "label"]).agg(
            images=("sample_id", "size"), groups=("group", "nunique")
        )
        every = pd.MultiIndex.from_product(
            [range(self.n_splits), manifest.class_names], names=["fold", "label"]
        )
        return out.reindex(every, fill_value=0).reset_index()


def _refuse_straddling(groups: npt.NDArray[np.str_], fold: npt.NDArray[np.int64]) -> None:
    spread = pd.Series(fold).groupby(groups).nunique()
    straddling = sorted(map(str, spread.index[spread > 1]))
    if straddling:
        raise DataError(
            "No group stands in two folds",
            f"{len(straddling)} do: {first_few(straddling)}",
            "Give all images of a patient one fold, or build the folds with make_folds(manifest)",
        )


def make_folds(manifest: Manifest, n_splits: int = 5, *, seed: int = 0, by: str = "group") -> Folds:
    """Stratified folds of the training rows in which no group is in two folds.

    Groups are dealt to folds by a seeded search over greedy deals; kept is the deal in which
    the fewest (fold, class) pairs lack the class, then the one whose class counts are the most even.

    Parameters
    ----------
    manifest : Manifest
        Rows whose split is `train` are dealt; others are left out.
    n_splits : int
    seed : int
    by : {"group", "image"}
        `image` ignores groups; the result is stamped so.

    Returns
    -------
    Folds
        `notes` names every class that is not in every fold.

    Raises
    ------
    DataError
        Fewer groups than folds, or a class whose groups all fall into one fold, so that a model
        would be trained without it.

    Examples
    --------
    >>> rows = [(f"i{i}", f"i{i}.png", "ab"[i % 2], f"p{i // 4}-{i % 2}") for i in range(24)]
    >>> folds = make_folds(Manifest.from_records(rows), n_splits=3)
    >>> folds.n_splits, folds.notes
    (3, ())
    """
    _check_by(by)
    train = manifest.part("train")
    if n_splits < 2:
        raise DataError(
            "Cross-validation needs at least two folds", f"got {n_splits}", "Use --folds 2 or more"
        )
    units = train.groups if by == "group" else train.sample_ids
    unit_names, unit_of = np.unique(units, return_inverse=True)
    if len(unit_names) < n_splits:
        raise DataError(
            f"{n_splits} folds need at least {n_splits} groups ({train.group_kind}s)",
            f"the training part has {len(unit_names)}",
            f"Use at most --folds {len(unit_names)}"
            if len(unit_names) > 1
            else "Add data from other groups",
        )
    table = _class_table(unit_of, train.labels, len(unit_names), train.n_classes)
    _refuse_lonely_classes(train, table)
    dealt = _deal(table, n_splits, seed)
    fold = dealt[unit_of].astype(np.int64)
    return Folds(train.sample_ids, fold, by, _missing_notes(train, table, dealt, n_splits))


def hold_out(
    manifest: Manifest, *, test_size: float = 0.2, seed: int = 0, by: str = "group"
) -> Manifest:
    """`manifest` with its `split` column made: about `test_size` of each class, whole groups.

    Parameters
    ----------
    manifest : Manifest
    test_size : float
        Share of the images, between 0 and 1.
    seed : int
    by : {"group", "image"}
        `image` ignores groups; the result is stamped so.

    Returns
    -------
    Manifest
        Every class keeps groups in training; notes name every class that the test part lacks.

    Raises
    ------
    DataError
        A share outside (0, 1), or fewer than two groups.
    """
    _check_by(by)
    if not 0.0 < test_size < 1.0:
        raise DataError(
            "The test share lies between 0 and 1", f"got {test_size}", "Use e.g. --test-size 0.2"
        )
    units = manifest.groups if by == "group" else manifest.sample_ids
    unit_names, unit_of = np.unique(units, return_inverse=True)
    if len(unit_names) < 2:
        raise DataError(
            "A test part needs a group of its own",
            f"all {len(manifest)} images are of one {manifest.group_kind}",
            "Add data from other groups, or split by image knowingly: --split-by image",
        )
    table = _class_table(unit_of, manifest.labels, len(unit_names), manifest.n_classes)
    if len(unit_names) == len(manifest):
        in_test = _hold_out_singles(table, test_size, seed)
    else:
        in_test = _hold_out_search(table, test_size, seed)
    split = np.where(in_test[unit_of], "test", "train")
    parted = dataclasses.replace(manifest.with_columns(split=split), split_by=by)
    absent = [c for i, c in enumerate(manifest.class_names) if not table[in_test, i].any()]
    notes = [
        f"Class '{name}' is not in the test part: its images come from "
        f"{_n(int((table[:, manifest.class_names.index(name)] > 0).sum()), manifest.group_kind)}."
        for name in absent
    ]
    return parted.with_notes(*notes)


def _check_by(by: str) -> None:
    if by not in SPLIT_BY:
        raise DataError(
            "Splits are made by 'group' or by 'image'", f"got '{by}'", did_you_mean(by, SPLIT_BY)
        )


def _n(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _class_table(
    unit_of: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], n_units: int, n_classes: int
) -> npt.NDArray[np.int64]:
    """Images per unit and class, shape (n_units, n_classes)."""
    table = np.zeros((n_units, n_classes), dtype=np.int64)
    np.add.at(table, (unit_of, labels), 1)
    return table


def _refuse_lonely_classes(train: Manifest, table: npt.NDArray[np.int64]) -> None:
    n_groups = (table > 0).sum(axis=0)
    lonely = [train.class_names[c] for c in np.flatnonzero(n_groups < 2)]
    if lonely:
        counts = first_few(
            f"{name}: {_n(int(n), train.group_kind)}"
            for name, n in zip(train.class_names, n_groups, strict=True)
        )
        raise DataError(
            "Every class needs two groups in the training part, or one fold trains without it",
            f"too few for {first_few(map(repr, lonely))} ({counts})",
            "Merge or drop that class, add groups, or make the test part smaller (--test-size)",
        )


def _missing_notes(
    train: Manifest, table: npt.NDArray[np.int64], dealt: npt.NDArray[np.int64], n_splits: int
) -> tuple[str, ...]:
    notes = []
    for c, name in enumerate(train.class_names):
        present = len(np.unique(dealt[table[:, c] > 0]))
        if present < n_splits:
            held = _n(int((table[:, c] > 0).sum()), train.group_kind)
            notes.append(
                f"Class '{name}' is in {present} of {n_splits} folds: its images come from {held}. "
                "Figures of the other folds do not speak of it."
            )
    return tuple(notes)


def _deal(table: npt.NDArray[np.int64], n_splits: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each unit, shape (n_units,)."""
    if (table.sum(axis=1) == 1).all() and (table.sum(axis=0) >= n_splits).all():
        return _deal_singles(table.argmax(axis=1), n_splits, seed)
    rng = generator(seed, "folds")
    n_deals = max(1, min(N_DEALS, 200_000 // len(table)))
    deals = (_greedy_deal(table, n_splits, rng) for _ in range(n_deals))
    return min(deals, key=lambda dealt: _deal_cost(table, dealt, n_splits))


def _deal_singles(
    classes: npt.NDArray[np.int64], n_splits: int, seed: int
) -> npt.NDArray[np.int64]:
    """Stratified folds where every unit is one image: class after class, dealt round."""
    order = generator(seed, "folds").permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    dealt = np.empty(len(classes), dtype=np.int64)
    dealt[order] = np.arange(len(classes)) % n_splits
    return dealt


def _greedy_deal(
    table: npt.NDArray[np.int64], n_splits: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    share = table / np.maximum(table.sum(axis=0), 1)
    # Largest first, with noise so that deals differ; ties and near-ties trade places.
    order = np.argsort(-share.max(axis=1) * rng.uniform(0.5, 1.5, len(table)))
    filled = np.zeros((n_splits, table.shape[1]))
    n_units = np.zeros(n_splits)
    dealt = np.zeros(len(table), dtype=np.int64)
    for step, unit in enumerate(order):
        # How much fuller the folds get where this unit adds; an empty fold must be served in time.
        cost = (filled * share[unit]).sum(axis=1) + 1e-6 * filled.sum(axis=1)
        if (n_units == 0).sum() >= len(order) - step:
            cost = np.where(n_units == 0, cost, np.inf)
        k = int(rng.choice(np.flatnonzero(cost <= cost.min() + 1e-12)))
        dealt[unit] = k
        filled[k] += share[unit]
        n_units[k] += 1
    return dealt


def _deal_cost(
    table: npt.NDArray[np.int64], dealt: npt.NDArray[np.int64], n_splits: int
) -> tuple[int, int, float]:
    per_fold = np.zeros((n_splits, table.shape[1]))
    np.add.at(per_fold, dealt, table)
    untrained = int((per_fold.sum(axis=0) - per_fold == 0).sum())
    lacking = int((per_fold == 0).sum())
    uneven = float(((per_fold / per_fold.sum(axis=0) - 1 / n_splits) ** 2).sum())
    return untrained, lacking, uneven


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
    n_tries = max(10, min(N_DEALS, 200_000 // len(table)))
    best: tuple[tuple[int, int, float], npt.NDArray[np.bool_]] | None = None
    # Where groups are few, the share nearest to a small one is nothing at all: then take one group.
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
            "A test part takes whole groups and leaves two groups of each class to training",
            f"no choice of the {len(table)} groups does",
            "Add groups, or split by image knowingly: --split-by image",
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
