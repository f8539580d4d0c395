"""Rows of an imported file, joined to the labels by image id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PureWindowsPath

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, counted, first_few

NAMES_OF_IMAGES: tuple[Callable[[str], str], ...] = (
    lambda name: PureWindowsPath(name).name,
    lambda name: PureWindowsPath(name).stem,
)


def matched_ids(
    ids: Sequence[str], want: npt.NDArray[np.str_], where: str
) -> tuple[list[str], list[str]]:
    """A file's ids as spelled in the labels, and notes for the user.

    If no id is in the labels, file names are compared without folders, then also without extension.
    These names must be unique.
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
    """The row of each id; the ids must be those of the labels, each once.

    Raises
    ------
    DataError
        Ids are missing (unless `partial`), repeated, or not in the labels.
    """
    row_of = {sample: i for i, sample in enumerate(ids)}
    twice = [sample for i, sample in enumerate(ids) if row_of[sample] != i]
    missing = [] if partial else [sample for sample in want.tolist() if sample not in row_of]
    unknown = sorted(set(row_of) - set(want.tolist()))
    wrong = [
        f"{what} {counted(len(some), 'id')} ({first_few(some)})"
        for what, some in (("lacks", missing), ("repeats", twice), ("adds", unknown))
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
