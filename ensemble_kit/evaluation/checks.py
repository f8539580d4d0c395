"""Checks of the out-of-fold and test tables before an evaluation."""

from __future__ import annotations

import numpy as np

from ensemble_kit.errors import DataError, counted, first_few
from ensemble_kit.predictions.table import Predictions


def check_tables(oof: Predictions, test: Predictions | None) -> None:
    """Raise DataError unless the test table has the same members and classes, and other groups."""
    if test is None:
        return
    if (test.member_names, test.class_names) != (oof.member_names, oof.class_names):
        raise DataError(
            "The out-of-fold and test tables have different members or classes: "
            f"{first_few(oof.member_names)} ({first_few(oof.class_names)}) and "
            f"{first_few(test.member_names)} ({first_few(test.class_names)})",
            "both need the same members and classes in the same order",
            "Select the members by name: test.select(oof.member_names)",
        )
    shared = np.intersect1d(oof.groups, test.groups)
    if len(shared) and oof.split_by == "group":
        raise DataError(
            f"{counted(len(shared), 'group', 'is')} in both the out-of-fold and the test table: {first_few(shared)}",
            "a group may be on one side of the test split only",
            "Split by whole groups, or set split_by='image', which adds a caveat to every result",
        )
