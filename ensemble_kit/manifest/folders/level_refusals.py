"""Refuses folders that are not classes: folds, masks, sites, parts of a split, patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.manifest.folders.walk import natural_key
from ensemble_kit.manifest.folders.words import (
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

# This many folders with names like patients, without folders in them, are not classes.
MANY_PATIENTS = 10


def choose_class(depth: int) -> str:
    """The option that takes the folders at this depth as classes."""
    return f"--label-pattern '^{'[^/]+/' * depth}([^/]+)/'"


def beside_parts(below: dict[str, set[str]], parts: dict[str, str], where: str) -> tuple[str, ...]:
    """Folders of unlabelled images beside train/ and test/.

    Parameters
    ----------
    below : mapping of str to set of str
        The folders of the level, and the names of the folders in each.
    parts : mapping of str to str
        The parts of a split: see `ensemble_kit.manifest.folders.words.parts_of`.
    where : str
        The data folder, for errors.

    Raises
    ------
    DataError
        There is no folder for training, or a folder is neither a part of the split nor unlabelled.
    """
    if not any(word.startswith("train") for word in parts.values()):
        raise DataError(
            f"'{where}' has the folders {first_few(in_order(below))}, but no folder for training",
            f"{first_few(map(repr, parts))} are read as parts of a split",
            "Name the training folder train, or rename the others if they are classes",
        )
    others = [name for name in below if name and name not in parts]
    unlabelled = tuple(name for name in others if _is_unlabelled(name))
    if unknown := [name for name in others if name not in unlabelled]:
        raise refused_beside(
            unknown, parts, where, nested=[n for n in unknown if parts_of(below[n])]
        )
    return unlabelled


def _is_unlabelled(name: str) -> bool:
    text = plain(name)
    return text in UNLABELLED or text.rpartition("_")[2] in UNLABELLED


def refused_beside(
    unknown: list[str], parts: dict[str, str], where: str, nested: Sequence[str] = ()
) -> DataError:
    """The error about folders beside parts of a split; `nested` are folders with parts of their own."""
    inside = f"; '{nested[0]}' has its own parts" if nested else ""
    return DataError(
        f"In '{where}', {first_few(map(repr, unknown))} {_verb(unknown)} beside {first_few(map(repr, parts))}",
        f"a folder there must be a part of the split{inside}",
        "Move it out of the data folder, or write a table path,label,group,split"
        + (f". If it is the whole data set: --data {where}/{nested[0]}" if nested else ""),
    )


def refuse_folds(names: Collection[str], where: str) -> None:
    """Refuse folders that are folds.

    Parameters
    ----------
    names : collection of str
        The folders of a level.
    where : str
        The data folder, for errors.

    Raises
    ------
    DataError
        A folder is named like a fold.
    """
    if folds := in_order([name for name in names if is_fold(name)]):
        raise no_class(
            folds,
            where,
            "are named like folds",
            "To keep these folds: write a table path,label,group for --data and a table "
            "sample_id,split,fold for --splits. To draw new folds: move the images of each class "
            f"together. If a fold holds train/ and test/: --data {where}/{folds[0]}",
        )


def refuse_words(names: list[str], where: str, depth: int) -> None:
    """Refuse folders of the class level that are not named like classes.

    Raises
    ------
    DataError
        Parts, masks, images without labels, `images`, or magnifications beside other folders.
    """
    if parts := parts_of(names):
        raise no_class(list(parts), where, "are parts of a split inside another part", _out(depth))
    masks = [name for name in names if plain(name) in MASKS]
    if masks and not any("mask" in plain(n).split("_") for n in names if n not in masks):
        raise no_class(masks, where, "are named like folders of masks", "Move them out of the data")
    if unlabelled := [name for name in names if _is_unlabelled(name)]:
        raise no_class(
            unlabelled, where, "are named like folders of unlabelled images", _out(depth)
        )
    images = [name for name in names if plain(name) in IMAGES]
    if images and len(names) > 1:
        raise no_class(images, where, "are not named after a class", _out(depth))
    magnified = [name for name in names if is_magnification(name)]
    if magnified and len(magnified) < len(names):
        raise no_class(magnified, where, "are named like magnifications", _out(depth))


def refuse_no_class(below: dict[str, set[str]], where: str, depth: int) -> None:
    """Refuse a class level whose folders are not classes, e.g. patients or magnifications.

    Parameters
    ----------
    below : mapping of str to set of str
        The folders of the level, and the names of the folders in each.
    where : str
        The data folder, for errors.
    depth : int
        Number of levels above them.

    Raises
    ------
    DataError
        There is only one folder, or the folders are magnifications, sites, years or patients, or
        either of two levels could be the classes.
    """
    names, deeper = list(below), any(below.values())
    if len(names) == 1 and len(below[names[0]]) > 1:
        raise DataError(
            f"'{where}' has only one class folder: '{names[0]}' (in it: {first_few(in_order(below[names[0]]))})",
            "a data set needs at least two classes",
            f"If these are the classes: --data {where}/{names[0]}",
        )
    if len(names) == 1:
        return
    way = _out(depth + 1) if deeper else "Sort them into one folder per class, or write a table"
    if all(map(is_magnification, names)):
        raise no_class(names, where, "are named like magnifications", way)
    if all(map(is_container, names)):
        raise no_class(names, where, "are named after places or dates", way)
    if all(map(is_patient, names)) and (recurring(below) or len(names) >= MANY_PATIENTS):
        raise no_class(names, where, "are named like patients or slides", way)
    found = recurring(below)
    if found and all(map(is_class, found)) and not any(is_class(n, numbers=True) for n in names):
        raise no_class(
            found,
            where,
            f"are below {first_few(map(repr, names), 3)}: either level could be the classes",
            f"Choose one: {choose_class(depth)} or {choose_class(depth + 1)}",
        )


def recurring(below: dict[str, set[str]]) -> set[str]:
    """Names that occur below more than one folder; empty if most names occur below one only."""
    above = Counter(name for inner in below.values() for name in inner)
    found = {name for name, n in above.items() if n > 1}
    return found if 2 * len(found) > len(above) else set()


def no_class(names: Collection[str], where: str, what: str, advice: str) -> DataError:
    """The error about folders that would be trained as classes."""
    shown = first_few(map(repr, in_order(names)))
    return DataError(f"{shown} in '{where}' {what}", "they would be used as classes", advice)


def _out(depth: int) -> str:
    return (
        f"Move them out of the data. Or name the class level: {choose_class(depth)} uses this level"
    )


def in_order(names: Collection[str]) -> list[str]:
    """Names in their natural order."""
    return sorted(names, key=natural_key)


def _verb(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"
