"""The names of BreakHis files: label, subtype, slide, patient and magnification."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ensemble_kit.errors import UsageError, first_few

BINARY = {"B": "benign", "M": "malignant"}
SUBTYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
MAGNIFICATIONS = (40, 100, 200, 400)
# Images of the published archive, by magnification.
N_IMAGES = {"40": 1995, "100": 2081, "200": 2013, "400": 1820}

_NAME = re.compile(
    r"SOB_(?P<tumour>[BM])_(?P<subtype>[A-Z]{1,2})-(?P<year>\d+)-(?P<patient>\d+)(?P<part>[A-Z]*)"
    r"-(?P<magnification>\d+)-(?P<image>\d+)"
)


def parse_name(stem: str) -> dict[str, str] | None:
    """The fields of a BreakHis file name; None for other names.

    Examples
    --------
    >>> parts = parse_name("SOB_B_A-14-22549AB-40-001")
    >>> parts["label"], parts["subtype"], parts["patient"], parts["slide"], parts["magnification"]
    ('benign', 'adenosis', '22549', '14-22549AB', '40')
    """
    match = _NAME.fullmatch(stem)
    if match is None or match["subtype"] not in SUBTYPES:
        return None
    return {
        "label": BINARY[match["tumour"]],
        "subtype": SUBTYPES[match["subtype"]],
        "patient": match["patient"],
        "slide": f"{match['year']}-{match['patient']}{match['part']}",
        "magnification": match["magnification"],
    }


def parse_magnifications(value: int | str | Sequence[int | str] | None) -> tuple[int, ...] | None:
    """Magnifications as integers; accepts `100`, `"40,100"`, `"100X"`, `[40, 100]` and None.

    Raises
    ------
    UsageError
        A magnification that BreakHis does not have.

    Examples
    --------
    >>> parse_magnifications("40X,100")
    (40, 100)
    """
    if value is None:
        return None
    parts = (
        value.split(",")
        if isinstance(value, str)
        else [value]
        if isinstance(value, int)
        else list(value)
    )
    texts = [str(part).strip().upper().removesuffix("X") for part in parts]
    odd = [text for text in texts if text not in map(str, MAGNIFICATIONS)]
    if odd or not texts:
        raise UsageError(
            f"Unknown magnification {first_few(map(repr, odd))}"
            if odd
            else "No magnification was given",
            "BreakHis has the magnifications 40, 100, 200 and 400",
            "Use e.g. 100 or 40,100",
        )
    return tuple(sorted({int(text) for text in texts}))
