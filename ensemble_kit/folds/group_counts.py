"""Class counts of each group (or of each image), for folds and test parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, did_you_mean
from ensemble_kit.manifest.table import Manifest

SPLIT_BY = ("group", "image")
N_ASSIGNMENTS = 200


def check_by(by: str) -> None:
    """Refuse a unit other than `group` or `image`."""
    if by not in SPLIT_BY:
        raise DataError(
            f"Unknown kind of split '{by}'",
            "splits are made by 'group' or by 'image'",
            did_you_mean(by, SPLIT_BY),
        )


def units_of(manifest: Manifest, by: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The unit of each row, shape (n_samples,), and images per unit and class, (n_units, n_classes)."""
    names = manifest.groups if by == "group" else manifest.sample_ids
    unique, unit_of = np.unique(names, return_inverse=True)
    return unit_of, _class_table(unit_of, manifest.labels, len(unique), manifest.n_classes)


def _class_table(
    unit_of: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], n_units: int, n_classes: int
) -> npt.NDArray[np.int64]:
    """Images per unit and class, shape (n_units, n_classes)."""
    table = np.zeros((n_units, n_classes), dtype=np.int64)
    np.add.at(table, (unit_of, labels), 1)
    return table
