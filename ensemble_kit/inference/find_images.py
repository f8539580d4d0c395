"""Finding the user's images: files, folders, globs, tables of paths, MedMNIST array files.

Unreadable images are found later, at prediction.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from ensemble_kit.archives import ARCHIVE_FAULTS, open_zip, shape_of
from ensemble_kit.errors import DataError, UsageError, counted, did_you_mean, first_few
from ensemble_kit.inference.sources import Source, file_source
from ensemble_kit.manifest.columns import PATHS, known_columns
from ensemble_kit.manifest.file_kinds import not_read, suffix_of
from ensemble_kit.manifest.folders.walk import list_images, natural_key
from ensemble_kit.manifest.image_files import posix
from ensemble_kit.manifest.names import known_groups
from ensemble_kit.manifest.patterns import found_by
from ensemble_kit.tables import read_table

TABLES = (".csv", ".tsv", ".tab", ".txt")
PAIR = "pair_path"


@dataclasses.dataclass(frozen=True, eq=False)
class FoundImages:
    """Images in the order in which they were named, each once.

    Parameters
    ----------
    sources : tuple of Source
    is_single : bool
        Whether the user named exactly one image file.
    notes : tuple of str
        Skipped files and duplicates.
    """

    sources: tuple[Source, ...]
    is_single: bool
    notes: tuple[str, ...]


def find_sources(
    images: Sequence[str],
    *,
    group_column: str | None = None,
    group_pattern: str | None = None,
    image_root: Path | None = None,
) -> FoundImages:
    """The images that the arguments name.

    Parameters
    ----------
    images : sequence of str
        Files, folders, globs, tables of paths (.csv, .tsv, .txt), MedMNIST .npz files.
    group_column : str, optional
        The tables' column of patients.
    group_pattern : str, optional
        A regular expression, searched in each image's name. Its first group is the patient.
    image_root : path, optional
        The folder that the paths of a table are relative to. Default: the table's own folder.

    Raises
    ------
    UsageError
        `group_column` and `group_pattern` are both given, or `image_root` without a table.
    DataError
        A name does not exist or has no image, a table has no paths, or images have no patient.
    """
    if group_column and group_pattern:
        raise UsageError(
            "Both --group-column and --group-pattern were given",
            "patients are read from one of them",
            "Remove one of them",
        )
    _check_root(image_root, images)
    notes: list[str] = []
    tables = _Tables(group_column, image_root)
    found = [one for name in images for one in _named(name, tables, notes)]
    once = list({source.name: source for source in found}.values())
    if len(once) < len(found):
        notes.append(
            f"{counted(len(found) - len(once), 'image', 'was')} named twice: each is predicted once."
        )
    if not once:
        raise DataError(
            f"There are no images in {first_few(images)}",
            "at least one image is needed",
            "Name files or a folder",
        )
    if group_pattern:
        patients = found_by(
            group_pattern, [one.name for one in once], option="--group-pattern", what="patient"
        )
        once = [dataclasses.replace(o, group=g) for o, g in zip(once, patients, strict=True)]
    elif group_column:
        _refuse_without_group([one.name for one in once if not one.group], group_column)
    is_single = len(images) == 1 and Path(images[0]).is_file() and not _holds_images(images[0])
    return FoundImages(tuple(once), is_single, tuple(notes))


def _check_root(root: Path | None, images: Sequence[str]) -> None:
    if root is None:
        return
    if not any(suffix_of(name) in TABLES for name in images):
        raise UsageError(
            f"--image-root was given for {first_few(images, 2)}",
            "it applies to tables of paths only",
            "Remove it, or name a .csv",
        )
    if not root.is_dir():
        raise DataError(
            f"'{root}' does not exist", "the folder of the images must exist", "Check --image-root"
        )


@dataclasses.dataclass(frozen=True)
class _Tables:
    group_column: str | None
    image_root: Path | None


def _holds_images(name: str) -> bool:
    return suffix_of(name) in (*TABLES, ".npz")


def _named(name: str, tables: _Tables, notes: list[str]) -> Iterator[Source]:
    path = Path(name)
    if path.is_dir():
        yield from _in_folder(path, notes)
    elif not os.path.lexists(path):
        yield from _by_glob(name, tables, notes)
    elif suffix_of(name) in TABLES:
        yield from _in_table(path, tables)
    elif suffix_of(name) == ".npz":
        yield from _in_array_file(path)
    elif (known := not_read(suffix_of(name))) is not None:
        raise DataError(f"'{name}' cannot be read as an image", f"it is a {known[0]}", known[1])
    else:
        yield file_source(path.parent, path.name, name=name)


def _in_folder(folder: Path, notes: list[str]) -> Iterator[Source]:
    paths, skipped = list_images(folder)
    notes.extend(skipped)
    if not paths:
        raise DataError(
            f"The folder '{folder}' has no images",
            "images are .png, .jpg, .tif, .bmp or .webp files",
            "Check the path",
        )
    for path in paths:
        yield file_source(folder, path, name=(folder / path).as_posix())


def _by_glob(name: str, tables: _Tables, notes: list[str]) -> Iterator[Source]:
    matches = sorted(glob.glob(name, recursive=True), key=natural_key)  # noqa: PTH207
    if not matches:
        raise DataError(
            f"There is no file, folder or glob '{name}' in '{Path.cwd()}'",
            "images are files, folders, globs or a table of paths",
            "Check the path",
        )
    for match in matches:
        yield from _named(match, tables, notes)


def _in_table(path: Path, tables: _Tables) -> Iterator[Source]:
    read, root = read_table(path), tables.image_root or path.parent
    frame, columns = read.frame, [str(c) for c in read.frame.columns]
    candidates = known_columns(columns, PATHS)
    if not candidates:
        raise DataError(
            f"'{path}' has no column of image paths",
            f"its columns are {first_few(columns, 12)}",
            "Call the column of the paths 'path'",
        )
    groups = _groups(frame, path, tables.group_column, columns)
    pairs = frame[PAIR] if PAIR in frame else [""] * len(frame)
    for image, pair, group in zip(frame[candidates[0]], pairs, groups, strict=True):
        inside, beside = _below(root, image), _below(root, pair)
        name = (root / inside).as_posix()
        source = file_source(root, inside, name=name, pair_path=beside)
        yield dataclasses.replace(source, group=group)


def _groups(
    frame: pd.DataFrame, path: Path, column: str | None, columns: list[str]
) -> Sequence[str]:
    if column is None:
        return [""] * len(frame)
    if column not in columns:
        raise DataError(
            f"'{path}' has no column '{column}'",
            f"its columns are {first_few(columns, 12)}",
            did_you_mean(column, columns),
        )
    return known_groups(
        frame[column], frame.index.astype(str), where=f"column '{column}' of '{path}'"
    )


def _below(root: Path, path: str) -> str:
    """A path of a table, relative to `root` if it is inside."""
    plain = posix(path)
    full = Path(plain)
    if full.is_absolute() and full.is_relative_to(root.resolve()):
        return full.relative_to(root.resolve()).as_posix()
    return plain


def _in_array_file(path: Path) -> Iterator[Source]:
    try:
        with open_zip(path) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
    except ARCHIVE_FAULTS as error:
        raise DataError(
            f"'{path}' is not a complete array file", str(error), "Fetch it again"
        ) from error
    keys = [key for key in held if key == "images" or key.endswith("_images")]
    if not keys:
        raise DataError(
            f"'{path}' holds no images: its arrays are {first_few(held, 8)}",
            "arrays of images are named images or ..._images",
            "Rename the array",
        )
    for key in keys:
        for i in range((*shape_of(path, key), 0)[0]):
            place = f"{path.name}#{key}/{i}"
            yield file_source(path.parent, place, name=(path.parent / place).as_posix())


def _refuse_without_group(names: list[str], column: str) -> None:
    if names:
        raise DataError(
            f"{counted(len(names), 'image', 'has')} no patient in a column '{column}'",
            f"they are not listed in a table (first: {first_few(names, 2)})",
            "Use --group-pattern, or name the images in a table",
        )
