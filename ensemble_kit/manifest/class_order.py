"""Sets the order of the classes, and whether they are ordinal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.tables import as_list


def with_class_order(
    manifest: Manifest,
    classes: Sequence[str] = (),
    *,
    ordinal: bool | None = None,
    positive: str | None = None,
) -> Manifest:
    """The same images with their classes in this order.

    Parameters
    ----------
    manifest : Manifest
    classes : sequence of str
        Every class once, the mildest first. If empty, the order of the reader is used.
    ordinal : bool or None
        Whether the classes are ordinal; None: as set by the reader (HER2 scores).
    positive : str or None
        The positive class; None: as set by the reader (BreakHis).

    Raises
    ------
    DataError
        `classes` or `positive` name other classes than the data have, or the classes are ordinal
        and their order is not known (names without numbers, and no `classes`).

    Examples
    --------
    >>> manifest = Manifest.from_records(
    ...     [("a", "a.png", "severe", "p1"), ("b", "b.png", "mild", "p2")])
    >>> with_class_order(manifest, ["mild", "severe"], ordinal=True).class_names
    ('mild', 'severe')
    """
    known = manifest.class_names
    if classes:
        _refuse_other_names(classes, known)
    elif ordinal and not manifest.ordinal and not all(re.search(r"\d", name) for name in known):
        raise DataError(
            f"--ordinal was given, but the order of the classes {first_few(map(repr, known))} is not known",
            "ordinal metrics need this order",
            f"Name the classes in their order, the mildest first: --classes '{as_list(known)}'",
        )
    is_ordinal = manifest.ordinal if ordinal is None else ordinal
    return dataclasses.replace(
        manifest,
        class_names=tuple(classes) or known,
        ordinal=is_ordinal,
        positive=manifest.positive if positive is None else positive,
    )


def _refuse_other_names(classes: Sequence[str], known: Sequence[str]) -> None:
    if sorted(classes) == sorted(known):
        return
    unknown = [name for name in classes if name not in known]
    lacking = [name for name in known if name not in classes]
    twice = [name for name in known if list(classes).count(name) > 1]
    wrong = [
        f"{what} {first_few(map(repr, names))}"
        for what, names in (("unknown:", unknown), ("missing:", lacking), ("twice:", twice))
        if names
    ]
    near = f"{did_you_mean(unknown[0], lacking)} " if unknown and lacking else ""
    raise DataError(
        f"--classes does not match the data: {'; '.join(wrong)}",
        "each class of the data must be named once",
        f"{near if near.startswith('Did') else ''}Put a name with a "
        f"comma in double quotes: --classes '{as_list(known)}'",
    )
