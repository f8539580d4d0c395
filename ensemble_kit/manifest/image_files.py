"""Finds the files that a table of images means, by path or by name, and those it does not name.

Opens no image.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.manifest.file_kinds import IMAGE_SUFFIXES
from ensemble_kit.manifest.folders.walk import list_images

Index = dict[str, list[str]]
# A path into a container, which is opened later: x.npz#train_images/17.
CONTAINED = re.compile(r"(.*\.npz|sklearn-digits)#[^#]*", re.IGNORECASE)


def find_images(
    root: Path, names: Iterable[str], labels: Iterable[str], *, suffix: str | None, table: str
) -> list[str]:
    """The path below `root` of each image of a table.

    An image is `root/name` or `root/label/name`, else the only image below `root` of that name;
    the name may lack its extension and its folder. Upper and lower case are then the same.

    Parameters
    ----------
    root : path
    names, labels : iterable of str, length n_samples
    suffix : str or None
        Added to names that do not end with it.
    table : str
        What the table is called in errors.

    Raises
    ------
    DataError
        Files that are not there, names of several files, or a path that leaves `root`.
    """
    if not root.is_dir():
        raise DataError(
            "The folder of the images is not there", f"got '{root}'", "Check --image-root"
        )
    asked = [_with_suffix(_relative(root, name), suffix) for name in names]
    found = [_at_its_path(root, name, label) for name, label in zip(asked, labels, strict=True)]
    if None not in found:
        return [path for path in found if path is not None]
    index = _by_name(root)
    several = {n: _named(index, n) for n, path in zip(asked, found, strict=True) if path is None}
    _refuse_missing(root, [n for n, paths in several.items() if not paths], len(asked), table)
    _refuse_ambiguous({n: paths for n, paths in several.items() if len(paths) > 1}, table)
    return [path or several[name][0] for name, path in zip(asked, found, strict=True)]


def images_beside(root: Path, paths: list[str], table: str) -> tuple[str, ...]:
    """What is said of images that stand beside those of a table and are not named in it."""
    named = set(paths)
    beside = [
        path
        for folder in sorted({p.rpartition("/")[0] for p in paths if not CONTAINED.fullmatch(p)})
        for path in _images_in(root, folder)
        if path not in named
    ]
    if not beside:
        return ()
    return (
        f"{len(beside)} images stand beside those of '{table}' and are not named in it: they are "
        f"left out (first: {first_few(beside, 2)}).",
    )


def folders_left_out(root: Path, paths: Iterable[str], table: str) -> tuple[str, ...]:
    """What is said of folders with images below `root` of which a table names none."""
    named = {path.rpartition("/")[0] for path in paths}
    others = [p for p in list_images(root)[0] if p.rpartition("/")[0] not in named]
    if not others:
        return ()
    folders = dict.fromkeys(repr(path.rpartition("/")[0] or ".") for path in others)
    return (
        f"{len(others)} images stand in folders that '{table}' does not name: they are left out "
        f"({first_few(folders, 4)}).",
    )


def _images_in(root: Path, folder: str) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(root / folder) if entry.is_file())
    return [
        f"{folder}/{name}" if folder else name
        for name in names
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    ]


def _with_suffix(name: str, suffix: str | None) -> str:
    if suffix is None:
        return name
    suffix = suffix if suffix.startswith(".") else f".{suffix}"
    return name if name.lower().endswith(suffix.lower()) else name + suffix


def _at_its_path(root: Path, name: str, label: str) -> str | None:
    if CONTAINED.fullmatch(name) or (root / name).is_file():
        return name
    in_class = f"{label}/{name}"
    return in_class if (root / in_class).is_file() else None


def _by_name(root: Path) -> Index:
    """Paths of all images below `root`, by their name with and without extension, in lower case."""
    index: Index = defaultdict(list)
    for path in list_images(root)[0]:
        pure = PurePosixPath(path)
        for name in {pure.name.casefold(), pure.stem.casefold()}:
            index[name].append(path)
    return index


def _named(index: Index, name: str) -> list[str]:
    wanted = f"/{name}".casefold()
    paths = index.get(PurePosixPath(wanted).name, [])
    ends = [(path, f"/{path}".casefold()) for path in paths]
    return [
        path
        for path, full in ends
        if full.endswith(wanted) or str(PurePosixPath(full).with_suffix("")).endswith(wanted)
    ]


def _refuse_missing(root: Path, missing: list[str], n_images: int, table: str) -> None:
    if missing:
        raise DataError(
            f"{len(missing)} of {n_images} images of '{table}' are not there",
            f"no such file below '{root}' (first: {first_few(missing, 3)})",
            "Correct the paths, or say where the images are: --image-root DIR, --image-suffix .png",
        )


def _refuse_ambiguous(several: Index, table: str) -> None:
    if several:
        name, paths = next(iter(several.items()))
        raise DataError(
            f"{len(several)} names of '{table}' stand for several images each",
            f"'{name}' could be {first_few(map(repr, paths), 3)}",
            "Say which: --image-root DIR, --image-suffix .png, or paths in the table",
        )


def posix(path: str) -> str:
    """A path of a table with `/`, if it was written on Windows.

    Examples
    --------
    >>> posix("sub\\\\1.png")
    'sub/1.png'
    """
    return path.replace("\\", "/") if "/" not in path else path


def _relative(root: Path, path: str) -> str:
    path = posix(path)
    is_absolute = Path(path).is_absolute()
    inside = not is_absolute or Path(path).resolve().is_relative_to(root.resolve())
    if not inside or ".." in Path(path).parts or not path.strip():
        raise DataError(
            "Image paths stay inside the data folder",
            f"got '{path}'",
            "Give paths relative to that folder (--image-root)",
        )
    if is_absolute:
        return Path(path).resolve().relative_to(root.resolve()).as_posix()
    return Path(path).as_posix()
