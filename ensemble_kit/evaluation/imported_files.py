"""One member's predictions as their maker wrote them: a table with ids and class names, or an array.

Finds columns and rows by name. Knows no run, and whether values are probabilities only to tell a
class from another column.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.evaluation.ensembles import unguarded
from ensemble_kit.evaluation.imported_values import Values, looks_like_proba
from ensemble_kit.files import read_csv
from ensemble_kit.manifest.columns import (
    FOLDS,
    GROUPS,
    IDS,
    LABELS,
    SPLITS,
    known_columns,
)

PREFIXES = ("", "p_", "prob_", "proba_")
ANSWERS = ("predicted", "prediction", "pred", "predicted_class", "predicted_label")
ROW_NUMBERS = "Unnamed: 0"
NPY_MAGIC = b"\x93NUMPY"
NAMES_OF_IMAGES: tuple[Callable[[str], str], ...] = (
    lambda name: PureWindowsPath(name).name,
    lambda name: PureWindowsPath(name).stem,
)


@dataclasses.dataclass(frozen=True, eq=False)
class MemberFile:
    """What a member's file holds.

    Parameters
    ----------
    name : str
        The member.
    path : path
    numbers : array of float64, shape (n_rows, n_columns)
    class_names : tuple of str or None
        The class of each column; None for an array, whose columns have no names.
    ids : list of str or None
        The image of each row; None for an array.
    labels : list of str or None
        The true class of each row, where the file says it.
    decimals : int
        The most decimals of any number as it was written; 0 where that is not known.
    said : tuple of str
        How the file was read.
    """

    name: str
    path: str
    numbers: Array
    class_names: tuple[str, ...] | None = None
    ids: list[str] | None = None
    labels: list[str] | None = None
    decimals: int = 0
    said: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """What the file is called in messages."""
        return f"'{self.path}' of member '{self.name}'"

    def values(self, class_names: Sequence[str], ids: Sequence[str]) -> Values:
        """The numbers with a column for each class, in that order; `ids` name an array's rows."""
        if self.class_names is None or self.ids is None:
            self._refuse_other_shape(class_names, len(ids))
            return Values(self.where, self.numbers, ids)
        columns = [self._column(name) for name in class_names]
        return Values(self.where, self.numbers[:, columns], self.ids, self.decimals)

    def _refuse_other_shape(self, class_names: Sequence[str], n_rows: int) -> None:
        n, n_columns = self.numbers.shape
        if n != n_rows:
            raise DataError(
                f"{self.where} has {n} rows, the labels have {n_rows}",
                "the rows of an array are in the order of the labels",
                "Use a CSV with a column of image ids, which is joined by id",
            )
        if n_columns != len(class_names):
            raise DataError(
                f"{self.where} has {n_columns} columns for the {len(class_names)} classes "
                f"{first_few(class_names, 12)}",
                "an array has one column for each class",
                "Name all classes in the order of the columns: --classes A,B,...",
            )

    def _column(self, name: str) -> int:
        have = self.class_names or ()
        if name in have:
            return have.index(name)
        raise DataError(
            f"{self.where} has no column for class '{name}': its classes are {first_few(have, 12)}",
            "each member has one column for each class",
            did_you_mean(name, have),
        )


def read_member_file(
    name: str, path: str | os.PathLike[str], class_names: Sequence[str], *, may_add: bool
) -> MemberFile:
    """Read a member's file.

    Parameters
    ----------
    name : str
    path : path
        CSV with a column of image ids and one for each class (`benign` or `p_benign`), or `.npy`.
    class_names : sequence of str
        The classes that are known.
    may_add : bool
        Take further columns as classes if rows sum to 1 (or 100) only with them.

    Raises
    ------
    DataError
        No file, no table or array, no column of ids, a cell that is no number, or a column that is
        neither a class nor known.
    """
    if not Path(path).is_file():
        raise DataError(
            f"Member '{name}' has no file '{path}'",
            "a member is given as NAME=FILE",
            "Check the path",
        )
    if Path(path).suffix.lower() == ".npy":
        return MemberFile(name, str(path), _array(name, path))
    table = read_csv(path).rename(columns=str.strip)
    prefix = _prefix(table, class_names)
    of_class = {c: f"{prefix}{c}" for c in class_names if f"{prefix}{c}" in table}
    rest = [str(c) for c in table.columns if c not in of_class.values()]
    named = _id_column(table[rest], name, path)
    others = [
        *known_columns(rest, (*LABELS, *GROUPS, *FOLDS, *SPLITS, *ANSWERS, *IDS)),
        ROW_NUMBERS,
    ]
    unused = [c for c in rest if c in others and c != named]
    extra = [c for c in rest if c not in (named, *unused)]
    numbers, decimals = _numbers(table[[*of_class.values(), *extra]], table[named], name, path)
    n_known = len(of_class)
    where = f"'{path}' of member '{name}'"
    if extra and not (may_add and _are_classes(Values(where, numbers, (), decimals), n_known)):
        raise _strange(extra, class_names, where)
    plain = unguarded if prefix == "p_" and "predicted" in table else str
    truth = _truth(table[unused], class_names)
    said = [f"{where}: columns {prefix}CLASS are its predictions."] if prefix else []
    if unused:
        said.append(f"{where}: columns {first_few(unused, 8)} are not used as predictions.")
    return MemberFile(
        name,
        str(path),
        numbers,
        (*of_class, *(c.removeprefix(prefix) for c in extra)),
        [plain(i) for i in table[named]],
        None if truth is None else [plain(c) for c in table[truth]],
        decimals,
        tuple(said),
    )


def _truth(unused: pd.DataFrame, class_names: Sequence[str]) -> str | None:
    """The column that holds the true classes, if there is one."""
    found = known_columns(unused.columns, LABELS)
    return next((c for c in found if set(unused[c].map(unguarded)) <= set(class_names)), None)


def _prefix(table: pd.DataFrame, class_names: Sequence[str]) -> str:
    """What stands before the names of the classes: nothing, or `p_` as `stack` writes it."""
    complete = [p for p in PREFIXES if all(f"{p}{c}" in table for c in class_names)]
    return complete[0] if complete else ""


def _id_column(table: pd.DataFrame, name: str, path: str | os.PathLike[str]) -> str:
    found = known_columns(table.columns, IDS)
    if not found and ROW_NUMBERS in table:
        return ROW_NUMBERS  # a first column without a name, as R and pandas write their row names
    if found:
        return next((c for c in found if table[c].is_unique), found[0])
    raise DataError(
        f"'{path}' of member '{name}' has no column of image ids: besides the classes its columns "
        f"are {first_few(table.columns, 12) or 'none'}",
        f"known names are {first_few(IDS, 8)}",
        "Rename that column to sample_id",
    )


def _are_classes(values: Values, n_known: int) -> bool:
    """Whether rows are probabilities with the columns after the first `n_known`, and only so."""
    values = dataclasses.replace(values, numbers=values.numbers[~np.isnan(values.numbers).any(1)])
    fewer = dataclasses.replace(values, numbers=values.numbers[:, :n_known])
    return looks_like_proba(values) and not looks_like_proba(fewer)


def _strange(extra: Sequence[str], class_names: Sequence[str], where: str) -> DataError:
    return DataError(
        f"{where} has the columns {first_few(map(repr, extra))}, which are no classes",
        f"the classes are {first_few(class_names, 12)}",
        "Drop those columns. If they are classes that no image is labelled with, name all classes: "
        "--classes",
    )


def _numbers(
    cells: pd.DataFrame, ids: pd.Series, name: str, path: str | os.PathLike[str]
) -> tuple[Array, int]:
    """Cells of text as float64, empty ones as NaN, and the most decimals that one has."""
    columns, decimals = [], 0
    for column in cells:
        text = cells[column].str.strip().str.removesuffix("%")
        if (
            text.str.contains(",", regex=False).any()
            and not text.str.contains(".", regex=False).any()
        ):
            text = text.str.replace(",", ".", regex=False)  # a decimal comma
        text = text.mask(text.str.lower().isin(["", "na", "none", "null"]), "nan")
        numbers = pd.to_numeric(text, errors="coerce")
        odd = numbers.isna() & (text.str.lower() != "nan")
        if odd.any():
            raise DataError(
                f"'{path}' of member '{name}' has {cells[column][odd].iloc[0]!r} in column "
                f"'{column}' for '{ids[odd].iloc[0]}'",
                "predictions are numbers",
                "Mend that cell",
            )
        columns.append(numbers.to_numpy(dtype=np.float64))
        decimals = max(decimals, _decimals(text))
    if not columns:
        return np.empty((len(cells), 0)), 0
    return np.stack(columns, axis=1), decimals


def _decimals(text: pd.Series) -> int:
    """The most decimals of any cell; many for a cell such as 1e-05."""
    if text.str.contains("e", case=False, regex=False).any():
        return 17
    return int(text.str.partition(".")[2].str.len().max()) if len(text) else 0


def _array(name: str, path: str | os.PathLike[str]) -> Array:
    """A member's array as float64, shape (n_rows, n_columns); never unpickled."""
    advice = "Save it again: numpy.save(path, array.astype(float))"
    where = f"'{path}' of member '{name}'"
    try:
        with open(path, "rb") as file:
            is_npy = file.read(len(NPY_MAGIC)) == NPY_MAGIC
        array = np.load(path, allow_pickle=False) if is_npy else None
    except (OSError, ValueError, EOFError) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{where} is an array of Python objects (dtype object)",
                "only arrays of numbers are read, since reading objects can run code",
                advice,
            ) from error
        raise DataError(
            f"{where} is cut off or damaged: {error}",
            "a member's array is one whole .npy file",
            "Save or copy it again",
        ) from error
    if array is None or array.dtype.kind not in "fiub" or array.ndim != 2:
        found = (
            f"has dtype {array.dtype}, shape {array.shape}" if array is not None else "is no .npy"
        )
        raise DataError(
            f"{where} {found}",
            "an array of predictions holds numbers, one row an image and one column a class",
            advice,
        )
    return array.astype(np.float64)


def matched_ids(
    ids: Sequence[str], want: npt.NDArray[np.str_], where: str
) -> tuple[list[str], list[str]]:
    """A file's ids as the labels write them, and what was said of it.

    Where no id is among the labels', names without folders are compared, then names without
    extension too; only where each of them stands for one image.
    """
    wanted = want.tolist()
    if set(ids) & set(wanted):
        return list(ids), []
    for key in NAMES_OF_IMAGES:
        full = {key(name): name for name in wanted}
        theirs = [key(name) for name in ids]
        if len(full) == len(wanted) and len(set(theirs)) == len(theirs) and set(theirs) & set(full):
            example = next(i for i, name in zip(ids, theirs, strict=True) if name in full)
            return [full.get(name, i) for i, name in zip(ids, theirs, strict=True)], [
                f"{where}: ids are matched by file name, e.g. '{example}' with "
                f"'{full[key(example)]}'."
            ]
    return list(ids), []


def row_of_id(
    name: str, ids: Sequence[str], want: npt.NDArray[np.str_], partial: bool
) -> dict[str, int]:
    """The row of each id, if they are those wanted, each once; some of those if `partial`.

    Raises
    ------
    DataError
        Ids that are missing (unless `partial`), that repeat, or that the labels lack.
    """
    row_of = {sample: i for i, sample in enumerate(ids)}
    twice = [sample for i, sample in enumerate(ids) if row_of[sample] != i]
    missing = [] if partial else [sample for sample in want.tolist() if sample not in row_of]
    strange = sorted(set(row_of) - set(want.tolist()))
    wrong = [
        f"{what} {len(some)} ({first_few(some)})"
        for what, some in (("lacks", missing), ("repeats", twice), ("adds", strange))
        if some
    ]
    if wrong:
        accept = ", or accept gaps: --partial, then stack --quorum" if missing else ""
        raise DataError(
            f"Member '{name}' {', '.join(wrong)}",
            f"a member has one row for each image of the labels, such as '{want[0]}'",
            f"Make its ids those of the labels{accept}",
        )
    return row_of
