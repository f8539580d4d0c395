"""The embedded data set `digits`: handwritten digits of scikit-learn, without a download.

`ensemble_kit.images` reads the pixels of `sklearn-digits#17`.
"""

from __future__ import annotations

import pandas as pd

from ensemble_kit.manifest.table import NO_GROUPS, Manifest

CONTAINER = "sklearn-digits"


def read_digits() -> Manifest:
    """1,797 handwritten digits of 8 x 8 pixels, ten classes.

    The writers are not published, so each image is its own group, with a caveat.

    Examples
    --------
    >>> manifest = read_digits()
    >>> len(manifest), manifest.n_classes, manifest.table["path"][17]
    (1797, 10, 'sklearn-digits#17')

    References
    ----------
    Alpaydin, Kaynak: Optical recognition of handwritten digits. UCI, 1998, doi 10.24432/C50P49.
    """
    from sklearn.datasets import load_digits

    labels = load_digits().target
    ids = [f"digit-{i:04d}" for i in range(len(labels))]
    table = pd.DataFrame(
        {
            "sample_id": ids,
            "path": [f"{CONTAINER}#{i}" for i in range(len(labels))],
            "label": [str(label) for label in labels],
            "group": ids,
            "split": "train",
        }
    )
    return Manifest(
        table,
        tuple(str(i) for i in range(10)),
        group_kind=NO_GROUPS,
        name="digits",
        notes=("The writers of the digits are not published: each image is its own group.",),
    )
