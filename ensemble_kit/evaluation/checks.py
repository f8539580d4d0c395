"""What must hold of the two tables of a run before anything is judged on them.

Judges nothing.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.predictions.table import Predictions


def check_tables(oof: Predictions, test: Predictions | None) -> None:
    """Raise DataError unless the test table, if any, is of the same members and other groups."""
    if test is None:
        return
    if (test.member_names, test.class_names) != (oof.member_names, oof.class_names):
        raise DataError(
            "Both tables hold the same members and classes, in one order",
            f"got {first_few(oof.member_names)} ({first_few(oof.class_names)}) and "
            f"{first_few(test.member_names)} ({first_few(test.class_names)})",
            "Select them by name: test.select(oof.member_names)",
        )
    shared = np.intersect1d(oof.groups, test.groups)
    if len(shared) and oof.split_by == "group":
        raise DataError(
            "No group stands on both sides of the test split",
            f"{len(shared)} do: {first_few(shared)}",
            "Split by whole groups, or say split_by='image' and have it stamped",
        )
