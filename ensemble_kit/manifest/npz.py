"""Reads a MedMNIST `.npz`: its images, its labels, and its own train, val and test parts.

Does not decode: a path like `breastmnist.npz#train_images/17` leads to the pixels.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble_kit.errors import DataError, UsageError, first_few
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


def read_npz(path: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> Manifest:
    """A manifest of a MedMNIST file: arrays `{train,val,test}_images` and `..._labels`.

    The file's own test part is kept; its val part joins training, since folds are made from it,
    and the column `part` says where each image stood. Who the patients are is not published.

    Parameters
    ----------
    path : path
    class_names : sequence of str or None
        Names of the labels 0, 1, ...; by default those that MedMNIST publishes, else the numbers.

    Raises
    ------
    DataError
        Damaged file, no such arrays, labels that are no single class per image.
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
            "No patients are published: each image is its own group, so figures may be too good.",
            *(
                (
                    f"{len(labels['val'])} validation images joined training: folds are made from it.",
                )
                if "val" in labels
                else ()
            ),
        ),
    )


def _labels(file: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {i.filename: i.file_size for i in archive.infolist()}
        found = [p for p in PARTS if f"{p}_labels.npy" in members and f"{p}_images.npy" in members]
        if "train" not in found or any(members[f"{p}_labels.npy"] > MAX_LABEL_BYTES for p in found):
            raise DataError(
                "A MedMNIST file holds train_images and train_labels",
                f"'{file}' holds {first_few(sorted(members), 8)}",
                "Point to a MedMNIST .npz file",
            )
        with np.load(file, allow_pickle=False) as arrays:
            labels = {p: np.asarray(arrays[f"{p}_labels"]) for p in found}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            "The file must hold whole arrays", f"'{file}': {error}", "Fetch it again"
        ) from error
    for part, values in labels.items():
        if values.dtype.kind not in "iu" or values.size != len(values) or values.min(initial=0) < 0:
            raise DataError(
                "Labels are one class index per image",
                f"'{part}_labels' of '{file}' is {values.dtype} {values.shape}",
                "Multi-label sets are not read",
            )
    return {part: values.reshape(-1).astype(np.int64) for part, values in labels.items()}


def _names(stem: str, given: Sequence[str] | None, n_classes: int) -> tuple[str, ...]:
    names = (
        tuple(given)
        if given
        else CLASS_NAMES.get(stem.split("_")[0], tuple(map(str, range(n_classes))))
    )
    if len(names) < n_classes:
        raise UsageError(
            "Every label has a name",
            f"{len(names)} names for {n_classes} labels",
            "Give class_names in label order",
        )
    return names
