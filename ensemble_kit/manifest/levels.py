"""What each level of folders is taken for: parts of a split, patients, classes, ...; or why it is refused.

Works on the names of folders alone; one role for a whole level, whichever branch it is in.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.manifest.folder_words import (
    IMAGES,
    MASKS,
    UNLABELLED,
    is_class,
    is_container,
    is_fold,
    is_magnification,
    is_patient,
    parts_of,
    plain,
)
from ensemble_kit.manifest.walk import natural_key

PART, PATIENT, CLASS = "part", "patient", "class"
MAGNIFICATION, IMAGE_FOLDER, AGAIN = "magnification", "images", "again"
FURTHER = "further"
# So many folders that are named like patients, and hold no folders, are no classes.
MANY_PATIENTS = 10
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
        """How many folders stand above those of this role; None where no level has it."""
        return self.roles.index(role) if role in self.roles else None

    def sentence(self) -> str:
        """The levels in words, such as `train/test > class > image`."""
        return " > ".join([*filter(None, map(_in_words, self.roles, self.names)), "image"])


def recognise_levels(rows: Folders, where: str) -> Levels:
    """What the levels of folders are taken for.

    Parameters
    ----------
    rows : sequence of tuple of str
        The folders above each image, from the top.
    where : str
        The data folder, for errors.

    Raises
    ------
    DataError
        A level that would be trained as classes and is none: folds, masks, sites, images without
        labels, magnifications or patients with nothing below, or two levels that could be classes.
    """
    levels, left = Levels(), list(rows)
    while CLASS not in levels.roles:
        depth = len(levels.roles)
        below = _below(left, depth)
        if not below:
            return levels
        role, strange = _above(below, left, levels, where)
        left = [row for row in left if len(row) <= depth or row[depth] not in strange]
        names = [name for name in below if name not in strange]
        levels = _with(levels, role, names, strange)
    for depth in range(len(levels.roles), max(map(len, left))):
        under = {row[depth] for row in left if len(row) > depth}
        levels = _with(levels, _under_class(under, levels, where), under, ())
    return levels


def choose_class(depth: int) -> str:
    """The option that takes the folders at this depth as classes."""
    return f"--label-pattern '^{'[^/]+/' * depth}([^/]+)/'"


def _with(levels: Levels, role: str, names: Collection[str], strange: Collection[str]) -> Levels:
    return Levels(
        (*levels.roles, role),
        (*levels.names, tuple(_in_order(names))),
        (*levels.unlabelled, *sorted(strange)),
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
    """The role of a level that may be that of the classes, and folders in it to pass over."""
    names, depth = list(below), len(levels.roles)
    if depth and all(row[depth] == row[depth - 1] for row in rows if len(row) > depth):
        return AGAIN, ()
    refuse_folds(names, where)
    parts = parts_of(names)
    if parts and PART not in levels.roles:
        return PART, beside_parts(below, parts, where)
    _refuse_words(names, where, depth)
    deeper = any(below.values())
    if all(map(is_magnification, names)) and deeper:
        return MAGNIFICATION, ()
    if len(names) == 1 and plain(names[0]) in IMAGES and deeper:
        return IMAGE_FOLDER, ()
    if _is_patients(below) and PATIENT not in levels.roles:
        return PATIENT, ()
    _refuse_no_class(below, where, depth)
    return CLASS, ()


def _under_class(names: set[str], levels: Levels, where: str) -> str:
    """The role of a level below the classes."""
    refuse_folds(names, where)
    parts = parts_of(names)
    if parts and PART not in levels.roles:
        if set(parts) != names:
            raise _beside(sorted(names - set(parts)), parts, where)
        return PART
    if masks := sorted(name for name in names if plain(name) in MASKS):
        raise _no_class(masks, where, "hold masks, by their name", "Move them out of the data")
    if all(map(is_magnification, names)) and MAGNIFICATION not in levels.roles:
        return MAGNIFICATION
    return FURTHER


# -- parts of a split ----------------------------------------------------------------------


def beside_parts(below: dict[str, set[str]], parts: dict[str, str], where: str) -> tuple[str, ...]:
    """Folders beside train/ and test/ whose images have no label.

    Parameters
    ----------
    below : mapping of str to set of str
        The folders of the level, and the names of the folders in each.
    parts : mapping of str to str
        Those that are parts: see `ensemble_kit.manifest.folder_words.parts_of`.
    where : str
        The data folder, for errors.

    Raises
    ------
    DataError
        No folder for training, or one that is neither a part nor without labels.
    """
    if not any(word.startswith("train") for word in parts.values()):
        raise DataError(
            f"'{where}' holds {first_few(map(repr, parts))} and no folder for training",
            f"folders: {first_few(_in_order(below))}",
            "Name it train, or rename the others if they are classes",
        )
    others = [name for name in below if name and name not in parts]
    unlabelled = tuple(name for name in others if _is_unlabelled(name))
    if strange := [name for name in others if name not in unlabelled]:
        raise _beside(strange, parts, where, nested=[n for n in strange if parts_of(below[n])])
    return unlabelled


def _is_unlabelled(name: str) -> bool:
    text = plain(name)
    return text in UNLABELLED or text.rpartition("_")[2] in UNLABELLED


def _beside(
    strange: list[str], parts: dict[str, str], where: str, nested: Sequence[str] = ()
) -> DataError:
    inside = f"; '{nested[0]}' holds parts of its own" if nested else ""
    return DataError(
        f"{first_few(map(repr, strange))} {_stand(strange)} beside {first_few(map(repr, parts))}",
        f"in '{where}' it is neither a part of the split nor a class{inside}",
        "Move it out of the data folder, or write a table path,label,group,split"
        + (f". If it is the whole data set: --data {where}/{nested[0]}" if nested else ""),
    )


# -- what is no class ----------------------------------------------------------------------


def refuse_folds(names: Collection[str], where: str) -> None:
    """Refuse folders that are folds.

    Raises
    ------
    DataError
        There is one.
    """
    if folds := sorted((name for name in names if is_fold(name)), key=natural_key):
        raise _no_class(
            folds,
            where,
            "are folds, by their name",
            "To keep these folds: write a table path,label,group for --data, and one "
            "sample_id,split,fold for --splits. To draw new folds: move the images together, or "
            "find the class in each path with --label-pattern REGEX",
        )


def _refuse_words(names: list[str], where: str, depth: int) -> None:
    if parts := parts_of(names):
        raise _no_class(list(parts), where, "are parts of a split below parts", _out(depth))
    masks = [name for name in names if plain(name) in MASKS]
    if masks and not any("mask" in plain(n).split("_") for n in names if n not in masks):
        raise _no_class(masks, where, "hold masks, by their name", "Move them out of the data")
    if unlabelled := [name for name in names if _is_unlabelled(name)]:
        raise _no_class(
            unlabelled, where, "hold images without a label, by their name", _out(depth)
        )
    images = [name for name in names if plain(name) in IMAGES]
    if images and len(names) > 1:
        raise _no_class(images, where, "are not named after a class", _out(depth))
    magnified = [name for name in names if is_magnification(name)]
    if magnified and len(magnified) < len(names):
        raise _no_class(magnified, where, "are magnifications, by their name", _out(depth))


def _refuse_no_class(below: dict[str, set[str]], where: str, depth: int) -> None:
    names, deeper = list(below), any(below.values())
    if len(names) == 1 and len(below[names[0]]) > 1:
        raise DataError(
            f"'{where}' holds one folder with images, '{names[0]}', and one class is no task",
            f"in it: {first_few(_in_order(below[names[0]]))}",
            f"If these are the classes: --data {where}/{names[0]}",
        )
    if len(names) == 1:
        return
    way = _out(depth + 1) if deeper else "Sort them into one folder per class, or write a table"
    if all(map(is_magnification, names)):
        raise _no_class(names, where, "are magnifications, by their name", way)
    if all(map(is_container, names)):
        raise _no_class(names, where, "say where or when, by their name, and not a class", way)
    if all(map(is_patient, names)) and (_recurring(below) or len(names) >= MANY_PATIENTS):
        raise _no_class(names, where, "are patients or slides, by their name", way)
    found = _recurring(below)
    if found and all(map(is_class, found)) and not any(is_class(n, numbers=True) for n in names):
        raise _no_class(
            found,
            where,
            f"stand below {first_few(map(repr, names), 3)}: either level could be the classes",
            f"Choose: {choose_class(depth)} or {choose_class(depth + 1)}",
        )


def _is_patients(below: dict[str, set[str]]) -> bool:
    """Folders named like patients, in which the same few classes stand again and again."""
    found = _recurring(below)
    everywhere = set().union(*below.values())
    numbered = len(below) > MANY_PATIENTS and all(name.isdecimal() for name in below)
    return (
        len(found) > 1
        and found == everywhere
        and (numbered or all(map(is_patient, below)))
        and all(is_class(name, numbers=True) for name in found)
    )


def _recurring(below: dict[str, set[str]]) -> set[str]:
    """Names that stand below more than one folder; empty where most names stand below one."""
    above = Counter(name for inner in below.values() for name in inner)
    found = {name for name, n in above.items() if n > 1}
    return found if 2 * len(found) > len(above) else set()


def _no_class(names: Collection[str], where: str, what: str, advice: str) -> DataError:
    shown = first_few(map(repr, _in_order(names)))
    return DataError(f"{shown} {what}, and would be trained as classes", f"in '{where}'", advice)


def _out(depth: int) -> str:
    return (
        f"Move them out of the data, or choose the classes yourself: {choose_class(depth)} takes "
        "this level"
    )


def _in_order(names: Collection[str]) -> list[str]:
    return sorted(names, key=natural_key)


def _stand(names: Collection[str]) -> str:
    return "stands" if len(names) == 1 else "stand"


def _in_words(role: str, names: tuple[str, ...]) -> str:
    if role == PART:
        return "/".join(names)
    if role == MAGNIFICATION:
        return f"magnification ({', '.join(names)})"
    if role == IMAGE_FOLDER:
        return names[0]
    if role == AGAIN:
        return ""
    if role == FURTHER:
        return f"{len(names)} further folder{'s' * (len(names) != 1)}"
    return role
