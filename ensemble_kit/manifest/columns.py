"""Finds the columns of a table by their usual names.

Names are compared without case, spaces and punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# In order of preference: the first one that a table has is used.
IDS = (
    *("sample_id", "sample", "image_id", "image", "image_name", "filename", "file", "path"),
    *("image_path", "file_path", "img", "img_id", "tile", "tile_id", "patch", "patch_id", "id"),
    *("slide_id", "slide", "wsi_id", "case_id", "patient_id"),
)
PATHS = (
    *("path", "file", "filename", "image", "image_path", "file_path", "image_file", "image_name"),
    *("image_id", "id_code", "isic_id", "img", "img_path", "id"),
)
LABELS = (
    *("label", "class", "target", "diagnosis", "score", "y_true", "true_label", "true_class"),
    *("ground_truth", "truth", "label_name", "class_name", "category"),
    *("dx", "grade", "isup_grade"),
)
GROUPS = (
    *("group", "group_id", "patient", "patient_id", "patient_name", "patient_code"),
    *("patient_number", "patient_no", "patient_nr", "case", "case_id", "case_number", "subject"),
    *("subject_id", "donor", "donor_id", "slide", "slide_id", "slide_name", "wsi", "wsi_id"),
)
GROUP_WORDS = ("group", "patient", "case", "subject", "donor", "slide", "wsi", "lesion")
FOLDS = ("fold", "fold_id", "cv_fold")
SPLITS = ("split", "part", "subset", "partition", "set")


def plain_name(name: str) -> str:
    """The letters and digits of a column's name, in lower case.

    Examples
    --------
    >>> plain_name(" Patient ID"), plain_name("patient_id"), plain_name("PatientID")
    ('patientid', 'patientid', 'patientid')
    """
    return re.sub(r"[\W_]+", "", name).lower()


def known_columns(columns: Iterable[str], known: Sequence[str]) -> list[str]:
    """The columns whose names are known, the preferred one first.

    Examples
    --------
    >>> known_columns(["Slide", "Patient ID", "age"], GROUPS)
    ['Patient ID', 'Slide']
    """
    place = {plain_name(name): i for i, name in reversed(list(enumerate(known)))}
    found = [str(column) for column in columns if plain_name(str(column)) in place]
    return sorted(found, key=lambda column: place[plain_name(column)])


def group_word(column: str) -> str:
    """The word for one group: `patient` for a column `Patient ID`.

    Examples
    --------
    >>> group_word("Patient ID"), group_word("WSI")
    ('patient', 'slide')
    """
    word = next((word for word in GROUP_WORDS if word in plain_name(column)), "group")
    return "slide" if word == "wsi" else word
