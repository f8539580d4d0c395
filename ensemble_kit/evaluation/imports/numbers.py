"""Numbers of one imported file: cells of a table, or an array, which is never unpickled."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError
from ensemble_kit.manifest.names import is_unknown
from ensemble_kit.tables import UserTable

NPY_MAGIC = b"\x93NUMPY"


def numbers_of(table: UserTable, columns: Sequence[str], named: str) -> tuple[Array, int]:
    """Cells as float64, shape (n_rows, n_columns), and the largest number of decimals.

    Empty cells are NaN. Percent signs are removed.

    Raises
    ------
    DataError
        A cell is neither a number nor empty.
    """
    numbers, decimals = np.empty((len(table.frame), len(columns))), 0
    for i, column in enumerate(columns):
        text = table.frame[column].str.removesuffix("%")
        if not text.str.contains(".", regex=False).any():
            text = text.str.replace(",", ".", regex=False)  # a decimal comma
        values = pd.to_numeric(text, errors="coerce")
        odd = values.isna() & ~text.where(values.isna(), "").map(is_unknown)
        if odd.any():
            raise DataError(
                f"'{table.path}' has {table.frame[column][odd].iloc[0]!r} in column '{column}' "
                f"({table.where(odd)}, '{table.frame[named][odd].iloc[0]}')",
                "predictions are numbers",
                "Correct that cell",
            )
        numbers[:, i] = values
        decimals = max(decimals, _decimals(text))
    return numbers, decimals


def _decimals(text: pd.Series) -> int:
    """The largest number of decimals of any cell; 17 with a cell such as 1e-05."""
    if text.str.contains("e", case=False, regex=False).any():
        return 17
    return int(text.str.partition(".")[2].str.rstrip("0").str.len().max()) if len(text) else 0


def array_of(where: str, path: str | os.PathLike[str]) -> Array:
    """A `.npy` file as float64, shape (n_rows, n_columns); never unpickled.

    Raises
    ------
    DataError
        The file is not an intact array of numbers with two axes; `where` names it in the message.
    """
    advice = "Save it again: numpy.save(path, array.astype(float))"
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
            f"has dtype {array.dtype}, shape {array.shape}"
            if array is not None
            else "is not a .npy file"
        )
        raise DataError(
            f"{where} {found}",
            "an array of predictions has numbers, one row per image and one column per class",
            advice,
        )
    return array.astype(np.float64)
