"""The members that were requested for a run, and those without stored predictions.

Reads and writes `members.json` and `imported.json`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import read_json, write_json

MEMBERS, IMPORTED = "members.json", "imported.json"
ADVICE = "Run the same import-predictions command again"


def requested_members(folder: Path) -> list[str]:
    """All members that were requested for training, in that order; then members that only have a folder.

    Raises
    ------
    IntegrityError
        `members.json` is damaged.
    """
    begun = {path.parent.name for path in folder.glob("members/*/member.json")}
    begun -= set(_imported(folder).get("members", []))
    return list(dict.fromkeys([*_listed(folder / MEMBERS), *sorted(begun)]))


def remember(folder: Path, members: Sequence[str]) -> None:
    """Add members to the requested members."""
    known = _listed(folder / MEMBERS) or requested_members(folder)
    names = list(dict.fromkeys([*known, *members]))
    if names != _listed(folder / MEMBERS):
        write_json(folder / MEMBERS, names)


@contextlib.contextmanager
def importing(folder: Path, members: Iterable[str]) -> Iterator[None]:
    """Record in `imported.json` that these members are being imported, and then that they are complete.

    With this record, readers refuse the mixed members of an interrupted import.
    """
    every = sorted({*_imported(folder).get("members", []), *members})
    write_checked(folder / IMPORTED, {"members": every, "finished": False})
    yield
    write_checked(folder / IMPORTED, {"members": every, "finished": True})


def refuse_interrupted_import(folder: Path) -> None:
    """Raise IntegrityError if an import was interrupted."""
    if _imported(folder).get("finished", True):
        return
    raise IntegrityError(
        f"An import into '{folder}' was interrupted, or is not finished yet",
        "predictions can be used when all of them are stored",
        ADVICE,
    )


def absent_members(folder: Path, stored: Iterable[str]) -> list[str]:
    """Members that were requested, imported, or trained as extra checkpoints, but are not in `stored`."""
    extra = sorted(
        f"{path.parents[2].name}@{path.parent.name}"
        for path in folder.glob("members/*/fold-*/*/logits-oof.npy")
    )
    present = set(stored)
    wanted = [*requested_members(folder), *extra, *_imported(folder).get("members", [])]
    return [name for name in dict.fromkeys(wanted) if name not in present]


def _imported(folder: Path) -> dict[str, Any]:
    path = folder / IMPORTED
    return read_checked(path, advice=ADVICE) if path.is_file() else {}


def _listed(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        names = read_json(path, limit=None)
    except DataError as error:
        raise _damaged(path) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(path)
    return names


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        f"'{path}' is damaged",
        "it must list the names of members",
        "Delete that file: the members are then read from the folders under members/",
    )
