"""Reads a MedMNIST `.npz`: its labels and its own train, val and test parts.

A path like `breastmnist.npz#train_images/17` names one image in the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble_kit.archives import ARCHIVE_FAULTS, open_zip, read_array, shape_of
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.manifest.folders.split_words import validation_note
from ensemble_kit.manifest.table import NO_GROUPS, Manifest

PARTS = {"train": "train", "val": "train", "test": "test"}
# Class names as MedMNIST v2 publishes them (Yang et al., Scientific Data 10:41, 2023).
CLASS_NAMES = {
    "breastmnist": ("malignant", "normal or benign"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "bloodmnist": (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocyte",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    "dermamnist": (
        "actinic keratosis",
        "basal cell carcinoma",
        "benign keratosis",
        "dermatofibroma",
        "melanoma",
        "melanocytic nevus",
        "vascular lesion",
    ),
    "pathmnist": (
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ),
    "retinamnist": ("0", "1", "2", "3", "4"),
}
ORDINAL = ("retinamnist",)
MAX_LABEL_BYTES = 2**30
MAX_CLASSES = 10_000


def read_npz(path: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> Manifest:
    """A manifest of a MedMNIST file: arrays `{train,val,test}_images` and `..._labels`.

    The test part of the file is used. Its val part is used for training, because the folds are made
    from it; the column `part` has the part of each image. Patients are not published.

    Parameters
    ----------
    path : path
    class_names : sequence of str or None
        Names of the labels 0, 1, ...; by default the names of MedMNIST, else the numbers.

    Raises
    ------
    DataError
        The file is damaged, an array is missing, or an image has several labels.
    UsageError
        Fewer class names than labels.
    """
    file = Path(path)
    labels = _labels(file)
    names = _names(file.stem, class_names, max(int(v.max()) for v in labels.values()) + 1)
    rows = []
    for part, values in labels.items():
        for i, value in enumerate(values.tolist()):
            rows.append(
                (
                    f"{part}-{i:05d}",
                    f"{file.name}#{part}_images/{i}",
                    names[value],
                    PARTS[part],
                    part,
                )
            )
    table = pd.DataFrame(rows, columns=["sample_id", "path", "label", "split", "part"])
    table["group"] = table["sample_id"]
    return Manifest(
        table,
        names,
        root=file.parent,
        ordinal=file.stem.split("_")[0] in ORDINAL,
        group_kind=NO_GROUPS,
        name=file.stem,
        notes=(
            "No patients are published: each image is its own group, so metrics may be too optimistic.",
            *validation_note(table["part"].tolist()),
        ),
    )


def _labels(file: Path) -> dict[str, np.ndarray]:
    try:
        with open_zip(file) as archive:
            names = archive.namelist()
    except ARCHIVE_FAULTS as error:
        raise DataError(
            f"'{file}' is damaged or cut off: {error}",
            "a MedMNIST file must be complete",
            "Download the file again",
        ) from error
    found = [p for p in PARTS if f"{p}_labels.npy" in names and f"{p}_images.npy" in names]
    if "train" not in found:
        raise DataError(
            f"'{file}' holds {first_few(sorted(names), 8)}",
            "a MedMNIST file holds train_images and train_labels",
            "Give a MedMNIST .npz file",
        )
    return {part: _labels_of(file, part) for part in found}


def _labels_of(file: Path, part: str) -> np.ndarray:
    values = read_array(file, f"{part}_labels", max_bytes=MAX_LABEL_BYTES)
    n_images = (*shape_of(file, f"{part}_images"), 0)[0]
    if values.dtype.kind not in "iu" or values.ndim == 0 or values.size != len(values):
        raise DataError(
            f"'{part}_labels' of '{file}' is {values.dtype} {values.shape}",
            "labels are one class index per image; multi-label data sets are not read",
            "Use a data set with one label per image",
        )
    if len(values) != n_images:
        raise DataError(
            f"'{file}' holds {n_images} images in '{part}_images' and {len(values)} labels in '{part}_labels'",
            "each image needs one label",
            "Download the file again",
        )
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < MAX_CLASSES:
        raise DataError(
            f"'{part}_labels' of '{file}' has labels from {values.min()} to {values.max()}",
            f"labels are class indices from 0 to {MAX_CLASSES - 1}",
            "Number the classes 0, 1, 2, ...",
        )
    return values.reshape(-1).astype(np.int64)


def _names(stem: str, given: Sequence[str] | None, n_classes: int) -> tuple[str, ...]:
    names = (
        tuple(given)
        if given
        else CLASS_NAMES.get(stem.split("_")[0], tuple(map(str, range(n_classes))))
    )
    if len(names) < n_classes:
        raise UsageError(
            f"There are {len(names)} class names for {n_classes} labels",
            "each label needs one name",
            "Give class_names in label order",
        )
    return names
