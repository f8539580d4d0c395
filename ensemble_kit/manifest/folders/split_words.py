"""The words for the parts of a split: train, val, test, in the spellings that tables and folders use.

Reads no file.
"""

from __future__ import annotations

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.tables import UserTable

# Validation images join training, since folds are made from it.
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
    """`train` or `test` for each row of a user's table, whatever the spelling.

    Raises
    ------
    DataError
        Another word, or an empty cell.
    """
    words = table.frame[column].str.lower()
    odd = ~words.isin(PARTS)
    if odd.any():
        raise DataError(
            f"'{table.path}', column '{column}': {int(odd.sum())} rows name no part of a split",
            f"{table.where(odd)}: {first_few(map(repr, table.frame[column][odd].unique()))}",
            "Use train, val or test",
        )
    return [PARTS[word] for word in words]


def validation_note(words: list[str]) -> tuple[str, ...]:
    """What is said where validation images joined training; of the words as they were written."""
    n = sum(PARTS[word.lower()] == "train" and word.lower().startswith("val") for word in words)
    return (f"{n} validation images joined training: folds are made from it.",) if n else ()
