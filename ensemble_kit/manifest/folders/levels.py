"""Recognises the role of each level of folders: parts of a split, patients, classes, ...

Only the names of folders are used. A level has one role in all branches.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence

from ensemble_kit.errors import counted
from ensemble_kit.manifest.folders.level_refusals import (
    MANY_PATIENTS,
    beside_parts,
    in_order,
    no_class,
    recurring,
    refuse_folds,
    refuse_no_class,
    refuse_words,
    refused_beside,
)
from ensemble_kit.manifest.folders.split_words import PARTS
from ensemble_kit.manifest.folders.words import (
    IMAGES,
    MASKS,
    is_class,
    is_magnification,
    is_patient,
    parts_of,
    plain,
)

PART, PATIENT, CLASS = "part", "patient", "class"
MAGNIFICATION, IMAGE_FOLDER, REPEATED = "magnification", "images", "repeated"
OTHER = "other"
Folders = Sequence[tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Levels:
    """The role of each level of folders, from the top.

    Parameters
    ----------
    roles : tuple of str
    names : tuple of tuple of str
        The folders of each level, in natural order.
    unlabelled : tuple of str
        Folders beside the parts whose images have no label (`predict`, `unlabeled`).
    """

    roles: tuple[str, ...] = ()
    names: tuple[tuple[str, ...], ...] = ()
    unlabelled: tuple[str, ...] = ()

    def depth(self, role: str) -> int | None:
        """The depth of this role; None if no level has it."""
        return self.roles.index(role) if role in self.roles else None

    def sentence(self) -> str:
        """The levels in words, such as `train/test > class > image`."""
        return " > ".join([*filter(None, map(_in_words, self.roles, self.names)), "image"])


def recognise_levels(rows: Folders, where: str) -> Levels:
    """The role of each level of folders.

    Parameters
    ----------
    rows : sequence of tuple of str
        The folders above each image, from the top.
    where : str
        The data folder, for errors.

    Raises
    ------
    DataError
        The class level holds folds, masks, sites, unlabelled images, magnifications or patients, or
        two levels could be the classes.
    """
    levels, left = Levels(), list(rows)
    while CLASS not in levels.roles:
        depth = len(levels.roles)
        below = _below(left, depth)
        if not below:
            return levels
        role, unknown = _above(below, left, levels, where)
        left = [row for row in left if len(row) <= depth or row[depth] not in unknown]
        names = [name for name in below if name not in unknown]
        levels = _with(levels, role, names, unknown)
    for depth in range(len(levels.roles), max(map(len, left))):
        under = {row[depth] for row in left if len(row) > depth}
        levels = _with(levels, _under_class(under, levels, where), under, ())
    return levels


_ORDER = list(PARTS)


def _with(levels: Levels, role: str, names: Collection[str], unknown: Collection[str]) -> Levels:
    return Levels(
        (*levels.roles, role),
        (*levels.names, tuple(in_order(names))),
        (*levels.unlabelled, *sorted(unknown)),
    )


def _below(rows: Folders, depth: int) -> dict[str, set[str]]:
    """The folders at this depth, and the names of the folders in each."""
    below: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if len(row) > depth:
            below[row[depth]].update(row[depth + 1 : depth + 2])
    return dict(below)


def _above(
    below: dict[str, set[str]], rows: Folders, levels: Levels, where: str
) -> tuple[str, tuple[str, ...]]:
    """The role of a level that may be the classes, and the folders in it to skip."""
    names, depth = list(below), len(levels.roles)
    if depth and all(row[depth] == row[depth - 1] for row in rows if len(row) > depth):
        return REPEATED, ()
    refuse_folds(names, where)
    parts = parts_of(names)
    if parts and PART not in levels.roles:
        return PART, beside_parts(below, parts, where)
    refuse_words(names, where, depth)
    deeper = any(below.values())
    if all(map(is_magnification, names)) and deeper:
        return MAGNIFICATION, ()
    if len(names) == 1 and plain(names[0]) in IMAGES and deeper:
        return IMAGE_FOLDER, ()
    if _is_patients(below) and PATIENT not in levels.roles:
        return PATIENT, ()
    refuse_no_class(below, where, depth)
    return CLASS, ()


def _under_class(names: set[str], levels: Levels, where: str) -> str:
    """The role of a level below the classes."""
    refuse_folds(names, where)
    parts = parts_of(names)
    if parts and PART not in levels.roles:
        if set(parts) != names:
            raise refused_beside(sorted(names - set(parts)), parts, where)
        return PART
    if masks := sorted(name for name in names if plain(name) in MASKS):
        raise no_class(masks, where, "are named like folders of masks", "Move them out of the data")
    if all(map(is_magnification, names)) and MAGNIFICATION not in levels.roles:
        return MAGNIFICATION
    return OTHER


def _is_patients(below: dict[str, set[str]]) -> bool:
    """Whether folders are named like patients, and have the same few classes."""
    found = recurring(below)
    everywhere = set().union(*below.values())
    numbered = len(below) > MANY_PATIENTS and all(name.isdecimal() for name in below)
    return (
        len(found) > 1
        and found == everywhere
        and (numbered or all(map(is_patient, below)))
        and all(is_class(name, numbers=True) for name in found)
    )


def _in_words(role: str, names: tuple[str, ...]) -> str:
    if role == PART:
        words = parts_of(names)
        return "/".join(sorted(names, key=lambda name: _ORDER.index(words[name])))
    if role == MAGNIFICATION:
        return f"magnification ({', '.join(names)})"
    if role == IMAGE_FOLDER:
        return names[0]
    if role == REPEATED:
        return ""
    if role == OTHER:
        return f"{counted(len(names), 'other folder')}"
    return role
