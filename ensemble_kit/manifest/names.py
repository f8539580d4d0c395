"""Names in a user's data: the natural order of classes, unknown patients, nearly equal names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.manifest.folders.walk import natural_key
from ensemble_kit.tables import strip

# Words in tables for an unknown patient, in upper or lower case.
UNKNOWN = re.compile(
    r"|#?n/?a|n\.a\.|<na>|nan|nat|#?null!?|none|nil|--?|\.|\?+|unk|unknown|missing|undefined"
    r"|not available|not known",
    re.IGNORECASE,
)


def in_natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Different names, sorted by the numbers in them.

    Examples
    --------
    >>> in_natural_order(["10", "9", "-1", "0.5"])
    ('-1', '0.5', '9', '10')
    >>> in_natural_order(["ISUP 10", "ISUP 2", "benign"])
    ('ISUP 2', 'ISUP 10', 'benign')
    """
    different = {str(name) for name in names}
    if all(re.fullmatch(r"[+-]?\d+(\.\d+)?", name, re.ASCII) for name in different):
        return tuple(sorted(different, key=lambda name: (float(name), name)))
    return tuple(sorted(different, key=natural_key))


def look_ordinal(class_names: Iterable[str]) -> bool:
    """Whether at least three names differ only in a number, which may be Roman.

    Examples
    --------
    >>> look_ordinal(["ISUP 1", "ISUP 2", "ISUP 3"]), look_ordinal(["I", "II", "III"])
    (True, True)
    >>> look_ordinal(["0", "1"]), look_ordinal(["adenosis", "G1", "G2"])
    (False, False)
    """
    parts = [re.fullmatch(r"(\D*?)[\s_-]*(\d+|[IVX]+)", strip(name)) for name in class_names]
    return len(parts) > 2 and all(parts) and len({part[1] for part in parts if part}) == 1


def is_unknown(group: str) -> bool:
    """Whether a cell means that the patient is unknown.

    Examples
    --------
    >>> is_unknown("N/A"), is_unknown(""), is_unknown("NA12878")
    (True, True, False)
    """
    return UNKNOWN.fullmatch(strip(group)) is not None


def known_groups(groups: Iterable[str], samples: Iterable[str], *, where: str) -> list[str]:
    """Group names without white space around them.

    Parameters
    ----------
    groups, samples : iterable of str, length n_samples
    where : str
        Where the groups come from, for the error: "column 'patient' of 'labels.csv'".

    Raises
    ------
    DataError
        Images whose group is unknown (an empty cell, NA, ?, ...).
    """
    clean = [strip(str(group)) for group in groups]
    unknown = [(g, s) for g, s in zip(clean, samples, strict=True) if is_unknown(g)]
    if unknown:
        words = sorted({repr(group) for group, _ in unknown})
        raise DataError(
            f"{len(unknown)} of {len(clean)} images have no group (patient): {where} has {first_few(words)} (first: {first_few((s for _, s in unknown), 3)})",
            "each image needs a known patient",
            "Write the patient of each image, or remove these images: "
            "their patient could also be on the other side of a split",
        )
    return clean


def near_equal(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Sets of different names that probably mean the same.

    They differ only in upper and lower case, zero padding, separators, white space, Unicode form,
    or a `.0` that was added by a spreadsheet or pandas.

    Examples
    --------
    >>> near_equal(["P01", "p-1", "P1.0", "P11", "P1-1"])
    [('P01', 'P1.0', 'p-1')]
    """
    sets: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(set(names)):
        sets.setdefault(_essence(name), []).append(name)
    return [tuple(alike) for essence, alike in sets.items() if essence and len(alike) > 1]


def refuse_near_equal(class_names: Iterable[str], where: str) -> None:
    """Refuse classes whose names differ only in their spelling.

    Raises
    ------
    DataError
        Two class names are nearly equal.
    """
    alike = [names for names in near_equal(class_names) if not _are_numbers(names)]
    if alike:
        shown = first_few((" and ".join(map(repr, names)) for names in alike), 3)
        raise DataError(
            f"Some class names in '{where}' are nearly equal: {shown}",
            f"they would be {sum(map(len, alike))} classes; upper and lower case, spaces and separators do not distinguish classes",
            "If they are one class, write its name in one way. If not, give them names that "
            "differ in a word",
        )


def _are_numbers(names: tuple[str, ...]) -> bool:
    return all(name.lstrip("+-").isdecimal() for name in names) and len(set(map(int, names))) > 1


def _essence(name: str) -> tuple[str, ...]:
    seen = "".join(c for c in name if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", seen).casefold()
    text = re.sub(r"(\d)\.0+$", r"\1", strip(text))
    parts = re.findall(r"\d+|[^\W\d_]+|[^\w\s\-./\\]", text)
    return tuple(part.lstrip("0") or "0" if part.isdecimal() else part for part in parts)
