"""Lists the image files under a folder in a stable order, and notes what was skipped."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.manifest.file_kinds import (
    SYSTEM_FOLDERS,
    is_beside,
    is_image,
    not_read,
    suffix_of,
)

LOOP = "link(s) back to a folder above"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class ImageTree:
    """The content of a folder.

    Parameters
    ----------
    paths : tuple of str
        Image files relative to the folder, with `/`, sorted so that `2.png` is before `10.png`.
    folders : tuple of str
        Every folder below it, also those without images.
    notes : tuple of str
        One sentence for each kind of file that was skipped.
    """

    paths: tuple[str, ...]
    folders: tuple[str, ...]
    notes: tuple[str, ...]


def list_images(root: str | os.PathLike[str]) -> tuple[list[str], tuple[str, ...]]:
    """Paths of the image files under `root`, and notes on what was skipped: see `image_tree`."""
    tree = image_tree(root)
    return list(tree.paths), tree.notes


def image_tree(root: str | os.PathLike[str]) -> ImageTree:
    """The image files and folders under `root`.

    Links are followed, also out of `root`; a link to a folder above itself is skipped. Pipes,
    sockets and devices are never opened. Hidden files and the folders of operating systems are
    ignored.

    Parameters
    ----------
    root : path

    Raises
    ------
    DataError
        `root` is not a folder, a link has no target, a folder is reached twice, or a name has
        control characters or is not UTF-8.
    """
    top = Path(root)
    if not top.is_dir():
        raise DataError(
            f"'{root}' {'is a file' if top.exists() else 'does not exist'}",
            "the data must be an existing folder",
            "Check the path",
        )
    paths: list[str] = []
    folders: list[str] = []
    broken: list[str] = []
    others: Counter[tuple[str, str]] = Counter()
    for kind, relative in _walk(top):
        if kind == "folder":
            folders.append(relative)
        elif kind == "broken link" and (is_image(relative) or not suffix_of(relative)):
            broken.append(relative)
        elif kind != "file":
            others[kind, ""] += 1
        elif is_image(relative):
            paths.append(relative)
        elif not is_beside(relative):
            others[_kind_of_file(suffix_of(relative))] += 1
    _refuse_names([*paths, *folders])
    _refuse_broken(top, broken)
    return ImageTree(
        tuple(sorted(paths, key=natural_key)),
        tuple(sorted(folders, key=natural_key)),
        _notes(others),
    )


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key for natural order: `2` before `10`, `2+` after `1+`.

    Examples
    --------
    >>> sorted(["10", "2", "1+"], key=natural_key)
    ['1+', '2', '10']
    """
    parts = re.split(r"(\d+)", text)
    return tuple((1, int(p), p) if p.isdecimal() and p.isascii() else (0, 0, p) for p in parts)


def _walk(top: Path) -> Iterator[tuple[str, str]]:
    """Kind and relative path of everything below `top` that is not ignored."""
    home = os.path.realpath(top)
    pending = [("", home)]
    # Real folder -> the name under which it was found; links may lead to it.
    found_as = {home: ""}
    while pending:
        folder, real = pending.pop()
        for entry in _entries(top / folder):
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FOLDERS:
                continue
            relative = f"{folder}/{entry.name}" if folder else entry.name
            kind = _kind(entry)
            if kind == "folder":
                there = os.path.join(real, entry.name)  # noqa: PTH118 - as realpath writes it.
                if entry.is_symlink():
                    there = os.path.realpath(there)
                before = found_as.setdefault(there, relative)
                if f"{real}/".startswith(f"{there}/") or f"{home}/".startswith(f"{there}/"):
                    kind = LOOP
                elif before != relative:
                    raise _found_twice(top, before, relative)
                else:
                    pending.append((relative, there))
            yield kind, relative


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"'{folder}' cannot be read: {error.strerror}",
            "each folder of the data must be readable",
            "Correct its permissions",
        ) from error


def _found_twice(top: Path, before: str, relative: str) -> DataError:
    return DataError(
        f"'{before}' and '{relative}' are one folder: a symbolic link joins them",
        f"its images would count twice under '{top}'",
        "Remove the link, or point --data at a folder that holds only one of the two",
    )


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken link"
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"


def _refuse_names(paths: list[str]) -> None:
    odd = [path for path in paths if _UNPRINTABLE.search(path)]
    if odd:
        raise DataError(
            f"{len(odd)} file names are not readable text: {first_few(map(ascii, odd), 3)}",
            "file names must be UTF-8 without control characters",
            "Rename them",
        )


def _refuse_broken(top: Path, broken: list[str]) -> None:
    if broken:
        raise DataError(
            f"{len(broken)} symbolic link{'s have' if len(broken) > 1 else ' has'} no target",
            f"each link must lead to a file or folder; under '{top}': "
            + first_few((f"{name} -> {_target(top / name)}" for name in sorted(broken)), 3),
            "Fetch the targets (as `dvc pull` or `git annex get` do), or remove the links",
        )


def _target(link: Path) -> str:
    return str(link.readlink()) if link.is_symlink() else "not readable"


def _counted(kind: str, count: int) -> str:
    if "(s)" in kind:
        return kind.replace("(s)", "" if count == 1 else "s")
    return kind if count == 1 else f"{kind}s"


def _kind_of_file(suffix: str) -> tuple[str, str]:
    """The kind of a file that is not read, and how to convert it if known."""
    known = not_read(suffix)
    about = f" ({known[0]}: {known[1]})" if known else ""
    return f"'{suffix or 'no suffix'}' file", about


def _notes(others: Counter[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(
        f"{count} {_counted(kind, count)}{about} under the data folder were skipped: "
        "they are not read as images."
        for (kind, about), count in sorted(others.items())
    )
