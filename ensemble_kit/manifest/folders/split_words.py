"""The words for parts of a split: train, val, test, in the usual spellings."""

from __future__ import annotations

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.tables import UserTable

# Validation images are used for training: the folds are made from them.
PARTS = {
    "train": "train",
    "training": "train",
    "valid": "train",
    "val": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}


def split_of_rows(table: UserTable, column: str = "split") -> list[str]:
    """`train` or `test` for each row of a user's table, in any usual spelling.

    Raises
    ------
    DataError
        Another word, or an empty cell.
    """
    words = table.frame[column].str.lower()
    odd = ~words.isin(PARTS)
    if odd.any():
        raise DataError(
            f"Column '{column}' of '{table.path}' has unknown values in {int(odd.sum())} rows "
            f"({table.where(odd)}: {first_few(map(repr, table.frame[column][odd].unique()))})",
            "the parts of a split are train, val and test",
            "Use these words",
        )
    return [PARTS[word] for word in words]


def validation_note(words: list[str]) -> tuple[str, ...]:
    """A note that validation images were used for training; empty if there are none."""
    n = sum(PARTS[word.lower()] == "train" and word.lower().startswith("val") for word in words)
    return (
        (f"{n} validation images are used for training: the folds are made from them.",)
        if n
        else ()
    )
