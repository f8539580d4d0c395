"""Class probabilities as training targets in place of labels, stored in columns of a manifest.

There is one column for each class, `soft_label:CLASS`. Rows of the test part may be empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError

PREFIX = "soft_label:"


def soft_columns(proba: npt.ArrayLike, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Probabilities of shape (n_images, n_classes) as columns; rows of NaN become empty cells.

    Examples
    --------
    >>> soft_columns([[0.25, 0.75], [np.nan, np.nan]], ["a", "b"])
    {'soft_label:a': ['0.25', ''], 'soft_label:b': ['0.75', '']}
    """
    values = np.asarray(proba, dtype=np.float64)
    return {
        PREFIX + name: ["" if np.isnan(v) else f"{v:.9g}" for v in values[:, c]]
        for c, name in enumerate(class_names)
    }


def soft_labels_of(table: pd.DataFrame, class_names: Sequence[str]) -> Array | None:
    """The probabilities of a manifest's rows, shape (n_images, n_classes); None without columns.

    Raises
    ------
    DataError
        A class without a column, or a row that is not a distribution over the classes.
    """
    columns = [PREFIX + name for name in class_names]
    found = [c for c in table if str(c).startswith(PREFIX)]
    if not found:
        return None
    if set(found) != set(columns):
        raise DataError(
            f"The columns of soft labels are {', '.join(map(str, found))}",
            f"the classes are {', '.join(class_names)}",
            f"Give one column '{PREFIX}CLASS' for each class, or none",
        )
    values: Array = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    good = np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1)
    good &= np.abs(values.sum(axis=1) - 1) < 1e-4
    if not good.all():
        raise DataError(
            f"{int((~good).sum())} training images have no soft label, e.g. "
            f"'{table['sample_id'].iloc[int(np.argmin(good))]}'",
            "each row holds probabilities that sum to 1",
            "Correct the columns, or remove them",
        )
    return values
