"""Finds the image files that a table names, by path or by name."""

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
# The path of an image inside a file: x.npz#train_images/17.
CONTAINED = re.compile(r"(.*\.npz|sklearn-digits)#[^#]*", re.IGNORECASE)


def find_images(
    root: Path, names: Iterable[str], labels: Iterable[str], *, suffix: str | None, table: str
) -> list[str]:
    """The path below `root` of each image of a table.

    An image is `root/name` or `root/label/name`, else the only image below `root` with that name.
    The name may be without extension and folder; then upper and lower case are equal.

    Parameters
    ----------
    root : path
    names, labels : iterable of str, length n_samples
    suffix : str or None
        Added to names that do not end with it.
    table : str
        Name of the table in errors.

    Raises
    ------
    DataError
        A file does not exist, a name matches several files, or a path leads out of `root`.
    """
    if not root.is_dir():
        raise DataError(
            f"'{root}' does not exist", "the folder of the images must exist", "Check --image-root"
        )
    requested = [_with_suffix(_relative(root, name), suffix) for name in names]
    found = [_at_its_path(root, name, label) for name, label in zip(requested, labels, strict=True)]
    if None not in found:
        return [path for path in found if path is not None]
    index = _by_name(root)
    several = {
        n: _named(index, n) for n, path in zip(requested, found, strict=True) if path is None
    }
    _refuse_missing(root, [n for n, paths in several.items() if not paths], len(requested), table)
    _refuse_ambiguous({n: paths for n, paths in several.items() if len(paths) > 1}, table)
    return [path or several[name][0] for name, path in zip(requested, found, strict=True)]


def images_beside(root: Path, paths: list[str], table: str) -> tuple[str, ...]:
    """A note on images beside those of a table that the table does not name."""
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
        f"{len(beside)} images in the same folders are not named in '{table}': they are "
        f"left out (first: {first_few(beside, 2)}).",
    )


def folders_left_out(root: Path, paths: Iterable[str], table: str) -> tuple[str, ...]:
    """A note on folders below `root` with images that a table does not name."""
    named = {path.rpartition("/")[0] for path in paths}
    others = [p for p in list_images(root)[0] if p.rpartition("/")[0] not in named]
    if not others:
        return ()
    folders = dict.fromkeys(repr(path.rpartition("/")[0] or ".") for path in others)
    return (
        f"{len(others)} images are in folders that '{table}' does not name: they are left out "
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
            f"{len(missing)} of {n_images} images of '{table}' do not exist below '{root}' (first: {first_few(missing, 3)})",
            "each image of the table must exist",
            "Correct the paths, or give the folder or suffix of the images: --image-root DIR, --image-suffix .png",
        )


def _refuse_ambiguous(several: Index, table: str) -> None:
    if several:
        name, paths = next(iter(several.items()))
        raise DataError(
            f"{len(several)} names of '{table}' match several images each: "
            f"'{name}' could be {first_few(map(repr, paths), 3)}",
            "each name must match one image",
            "Be more specific: --image-root DIR, --image-suffix .png, or whole paths in the table",
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
            f"'{path}' is outside the data folder",
            "images must be inside it",
            "Give paths relative to the data folder (--image-root)",
        )
    if is_absolute:
        return Path(path).resolve().relative_to(root.resolve()).as_posix()
    return Path(path).as_posix()
