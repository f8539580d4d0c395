"""What a job leaves out of its training: one fold, as `2`, or a pair of folds, as `"0-2"`.

Names and numbers only; knows no sample.
"""

from __future__ import annotations

import itertools

from ensemble_kit.errors import DataError

LeftOut = int | str


def pairs_of(n_splits: int) -> list[str]:
    """Every pair of folds, `K (K - 1) / 2` of them.

    Raises
    ------
    DataError
        Two folds: without both there is nothing left to train on.

    Examples
    --------
    >>> pairs_of(3)
    ['0-1', '0-2', '1-2']
    """
    if n_splits < 3:
        raise DataError(
            "The strict answer leaves out two folds at a time and trains on the others",
            f"there are {n_splits} folds, so nothing would be left to train on",
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
        It names none of `n_splits` folds, nor two of them in order.

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
        "A job belongs to one of the run's folds, or to a pair of them",
        f"got fold {word} of {n_splits}",
        "Folds start at 0; a pair is written 0-2",
    )
