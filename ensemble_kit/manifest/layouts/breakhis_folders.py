"""Recognises the folders around BreakHis files: parts of a split, and a user's own classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.manifest.folders.level_refusals import beside_parts, refuse_folds
from ensemble_kit.manifest.folders.levels import CLASS, MAGNIFICATION, OTHER, PART, PATIENT, Levels
from ensemble_kit.manifest.folders.walk import natural_key
from ensemble_kit.manifest.folders.words import is_magnification, parts_of, plain


@dataclasses.dataclass(frozen=True)
class BreakHisFolders:
    """The meaning of the folders.

    Parameters
    ----------
    levels : Levels
        Has the role `class` if folders are classes: the archive's or a user's own.
    label_by : {"binary", "subtype", "folder"}
        Which classes these are; `binary` if no folders are classes.
    """

    levels: Levels
    label_by: str


def breakhis_folders(
    rows: Sequence[tuple[str, ...]],
    names: Sequence[dict[str, str]],
    where: str,
    *,
    chosen: bool = False,
) -> BreakHisFolders:
    """The role of each level of folders above BreakHis files.

    Parameters
    ----------
    rows : sequence of tuple of str, length n_samples
        The folders above each image.
    names : sequence of dict, length n_samples
        The fields of each file name: see `ensemble_kit.manifest.layouts.breakhis.parse_name`.
    where : str
        The data folder, for errors.
    chosen : bool
        Whether the user chose the labels. Then the topmost class folders are used.

    Raises
    ------
    DataError
        Folds, folders beside train/ and test/, or two levels that could be the classes.
    """
    levels, label_by = Levels(), "binary"
    pairs = list(zip(rows, names, strict=True))
    for depth in range(max(map(len, rows), default=0)):
        pairs = [(row, name) for row, name in pairs if not set(row) & set(levels.unlabelled)]
        found = {row[depth] for row, _ in pairs if len(row) > depth}
        at = [(row[depth] if len(row) > depth else "", name) for row, name in pairs]
        role, unknown = _role(at, found, levels, where, below=_below(pairs, depth))
        if role == CLASS:
            kind = _kind(at)
            if CLASS not in levels.roles:
                label_by = kind
            elif label_by == "folder" and kind != "folder" and not chosen:
                raise _two_classes(levels, found, where)
            role = role if CLASS not in levels.roles else OTHER
        levels = Levels(
            (*levels.roles, role),
            (*levels.names, tuple(sorted(found - set(unknown), key=natural_key))),
            (*levels.unlabelled, *unknown),
        )
    return BreakHisFolders(levels, label_by)


Named = Sequence[tuple[str, dict[str, str]]]


def _below(
    pairs: Sequence[tuple[tuple[str, ...], dict[str, str]]], depth: int
) -> dict[str, set[str]]:
    below: dict[str, set[str]] = {}
    for row, _ in pairs:
        below.setdefault(row[depth] if len(row) > depth else "", set()).update(
            row[depth + 1 : depth + 2]
        )
    return below


def _role(
    at: Named, found: set[str], levels: Levels, where: str, *, below: dict[str, set[str]]
) -> tuple[str, tuple[str, ...]]:
    """The role of one level, and the folders in it to skip."""
    refuse_folds(found, where)
    parts = parts_of(found)
    if parts and PART not in levels.roles:
        return PART, beside_parts(below, parts, where)
    if all(map(is_magnification, found)):
        return MAGNIFICATION, ()
    if all(name["patient"] in folder for folder, name in at):
        return PATIENT, ()
    return (CLASS if len({folder for folder, _ in at}) > 1 else OTHER), ()


def _kind(at: Named) -> str:
    """Whether the folders of a level are the classes of the file names, or the user's own."""
    kinds = {"binary": "label", "subtype": "subtype"}
    same = [kind for kind, key in kinds.items() if _one_to_one(at, key)]
    if len(same) == 2:
        spelt = all(plain(folder) == name["subtype"] for folder, name in at)
        return "subtype" if spelt else "binary"
    return same[0] if same else "folder"


def _one_to_one(at: Named, key: str) -> bool:
    pairs = {(folder, name[key]) for folder, name in at}
    return len(pairs) == len({f for f, _ in pairs}) == len({k for _, k in pairs})


def _two_classes(levels: Levels, found: set[str], where: str) -> DataError:
    own = levels.names[levels.roles.index(CLASS)]
    return DataError(
        f"Two levels of folders in '{where}' could be the classes: {first_few(map(repr, own))}, and below them "
        f"{first_few(map(repr, sorted(found)))}",
        "the classes must be one of the two",
        "--label-by folder uses the upper folders. --label-by binary or subtype uses the file names",
    )
