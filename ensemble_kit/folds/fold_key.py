"""Names what a job leaves out of its training: one fold, `2`, or a pair of folds, `"0-2"`."""

from __future__ import annotations

import itertools

from ensemble_kit.errors import DataError

LeftOut = int | str


def pairs_of(n_splits: int) -> list[str]:
    """Every pair of folds, `K (K - 1) / 2` of them.

    Raises
    ------
    DataError
        There are only two folds, so that no images would be left for training.

    Examples
    --------
    >>> pairs_of(3)
    ['0-1', '0-2', '1-2']
    """
    if n_splits < 3:
        raise DataError(
            f"With {n_splits} folds, nested cross-validation has no images to train on",
            "it leaves out two folds at a time",
            "Make the run with --folds 3 or more",
        )
    return [f"{k}-{j}" for k, j in itertools.combinations(range(n_splits), 2)]


def folds_in(left_out: LeftOut) -> tuple[int, ...]:
    """The folds that are left out.

    Examples
    --------
    >>> folds_in(2), folds_in("0-2")
    ((2,), (0, 2))
    """
    return tuple(int(k) for k in str(left_out).split("-"))


def read_left_out(word: str, n_splits: int) -> LeftOut:
    """The fold or pair of folds that `word` names.

    Raises
    ------
    DataError
        `word` is neither one of `n_splits` folds nor a pair of them in order.

    Examples
    --------
    >>> read_left_out("2", 3), read_left_out("0-2", 3)
    (2, '0-2')
    """
    if word.isdecimal() and int(word) < n_splits:
        return int(word)
    if n_splits > 2 and word in pairs_of(n_splits):
        return word
    raise DataError(
        f"Unknown fold '{word}'",
        f"folds go from 0 to {n_splits - 1}; a pair of folds is written 0-2",
        "Choose one of these",
    )
