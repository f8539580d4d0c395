"""The fold of each training image: the fold in which it is held out."""

from __future__ import annotations

import dataclasses
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.errors import DataError, counted, first_few
from ensemble_kit.files import digest_json, write_csv
from ensemble_kit.manifest.checks import refuse_missing, table_with
from ensemble_kit.manifest.table import Manifest


@dataclasses.dataclass(frozen=True, eq=False)
class Folds:
    """The fold of each training image: the fold in which it is held out.

    Parameters
    ----------
    sample_ids : array of str, shape (n_samples,)
    fold : array of int, shape (n_samples,)
        `0 .. n_splits - 1`.
    split_by : str
        `group`; or `image` if a group may be in several folds on purpose.
    notes : tuple of str
        Caveats, e.g. "Class 'x' is in 2 of 5 folds: ...".

    Raises
    ------
    DataError
        A sample has no fold or two, or a fold has no sample.
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
                f"There are {len(ids)} sample ids ({len(np.unique(ids))} different) and {len(fold)} fold numbers",
                "each sample needs exactly one fold",
                "Make the folds from the manifest: make_folds(manifest)",
            )
        present = np.unique(fold)
        if not np.array_equal(present, np.arange(len(present))) or len(present) < 2:
            raise DataError(
                f"The fold numbers are {first_few(present)}",
                "folds are numbered 0, 1, 2, ..., and each fold has at least one sample",
                "Make the folds from the manifest: make_folds(manifest)",
            )

    @property
    def n_splits(self) -> int:
        return int(self.fold.max()) + 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the fold of each sample; it does not depend on the row order."""
        pairs = sorted(zip(self.sample_ids.tolist(), self.fold.tolist(), strict=True))
        return digest_json([pairs, self.split_by])

    def of(self, manifest: Manifest) -> npt.NDArray[np.int64]:
        """The fold of each row of `manifest`, shape (n_samples,), joined by sample id.

        Raises
        ------
        DataError
            A row has no fold, or a group is in two folds although the split is by group.
        """
        where = dict(zip(self.sample_ids.tolist(), self.fold.tolist(), strict=True))
        missing = [i for i in manifest.sample_ids.tolist() if i not in where]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(manifest)} samples have no fold (first: {missing[0]})",
                "each sample needs exactly one fold",
                "Make the folds from this manifest: make_folds(manifest)",
            )
        fold = np.array([where[i] for i in manifest.sample_ids.tolist()], dtype=np.int64)
        if self.split_by == "group":
            _refuse_split_groups(manifest.groups, fold)
        return fold

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `sample_id,fold` as CSV."""
        write_csv(path, pd.DataFrame({"sample_id": self.sample_ids, "fold": self.fold}))

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, split_by: str = "group", notes: tuple[str, ...] = ()
    ) -> Folds:
        """Folds of a table with the two columns of `write`."""
        read = table_with(path, "sample_id", "fold", what="A fold table")
        return cls.from_table(read.frame, path, split_by=split_by, notes=(*notes, *read.notes))

    @classmethod
    def from_table(
        cls, table: pd.DataFrame, path: object, *, split_by: str, notes: tuple[str, ...]
    ) -> Folds:
        """Folds of a table of text with the columns `sample_id` and `fold`; `path` names it in errors."""
        refuse_missing(table, ("sample_id", "fold"), "A fold table", f"in '{path}' are")
        fold, caveats = whole_folds(table.set_index("sample_id")["fold"], path)
        ids = table["sample_id"].to_numpy(dtype=np.str_)
        return cls(ids, fold, split_by, (*notes, *caveats))

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


def whole_folds(fold: pd.Series, path: object) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """The folds in a column of text, and a note if they are numbered from 1.

    `0.0`, as pandas writes it beside empty cells, is fold 0. Folds 1, 2, ..., K are called
    0, 1, ..., K - 1.

    Parameters
    ----------
    fold : pandas.Series of str, shape (n_samples,)
        Its index names the images.
    path : path
        Name of the table in errors.

    Raises
    ------
    DataError
        A cell is empty or not a whole number, there is only one fold, or a number is missing.

    Examples
    --------
    >>> whole_folds(pd.Series(["0", "1.0"], index=["a", "b"]), "folds.csv")[0].tolist()
    [0, 1]
    """
    numbers = pd.to_numeric(fold, errors="coerce")
    odd = fold[numbers % 1 != 0]  # a cell that is not a number is not fold 0
    if len(odd):
        raise DataError(
            f"{len(odd)} cells of column fold in '{path}' are not whole numbers (first: "
            f"'{odd.iloc[0]}' for '{odd.index[0]}')",
            "each training image needs the number of its fold",
            "Number the folds 0, 1, ..., and give each training image one",
        )
    found = numbers.to_numpy().astype(np.int64)
    present = np.unique(found)
    first = 1 if present[:1].tolist() == [1] else 0
    if len(present) < 2 or present.tolist() != list(range(first, first + len(present))):
        raise DataError(
            f"The training images of '{path}' have the folds {first_few(present.tolist(), 12)}",
            "at least two folds are numbered without a gap, from 0 or from 1",
            "Number the folds 0, 1, 2, ..., or remove the column fold: new folds are then made",
        )
    if first == 0:
        return found, ()
    name, k = Path(str(path)).name, len(present)
    return found - 1, (f"Folds 1 to {k} of '{name}' are renamed 0 to {k - 1}.",)


def _refuse_split_groups(groups: npt.NDArray[np.str_], fold: npt.NDArray[np.int64]) -> None:
    spread = pd.Series(fold).groupby(groups).nunique()
    split_groups = sorted(map(str, spread.index[spread > 1]))
    if split_groups:
        raise DataError(
            f"{counted(len(split_groups), 'group', 'is')} in more than one fold: {first_few(split_groups)}",
            "all images of a group must be in one fold",
            "Give all images of a patient the same fold, or make the folds with make_folds(manifest)",
        )
