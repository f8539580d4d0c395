"""Recognises the layout of a data set and calls its reader."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ensemble_kit.errors import DataError, UsageError, did_you_mean, first_few
from ensemble_kit.files import refuse_pipe
from ensemble_kit.manifest.data_settings import READER_OPTIONS
from ensemble_kit.manifest.file_kinds import not_read, suffix_of
from ensemble_kit.manifest.folders.walk import list_images
from ensemble_kit.manifest.image_files import folders_left_out
from ensemble_kit.manifest.layouts.bci import bci_folder, read_bci
from ensemble_kit.manifest.layouts.breakhis import breast_folder, read_breakhis
from ensemble_kit.manifest.layouts.breakhis_names import parse_name
from ensemble_kit.manifest.layouts.class_folders import read_folders
from ensemble_kit.manifest.layouts.csv_table import looks_like_table, read_csv_table
from ensemble_kit.manifest.layouts.npz import read_npz
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.tables import SUFFIXES

TABLE_NAMES = ("manifest.csv", "metadata.csv", "labels.csv")
LAYOUTS = (
    "The layouts are: the BreakHis archive, BCI (HE/ and IHC/), one folder per class (with or "
    "without train/, valid/, test/ above), a MedMNIST .npz, and a CSV path,label,group[,split]"
)


def read_manifest(
    path: str | os.PathLike[str], *, straddling: bool = False, **options: Any
) -> Manifest:
    """The manifest of the data set at `path`.

    Parameters
    ----------
    path : path
        A BreakHis archive (or a folder above or inside it), BCI or a phantom, class folders with
        or without train/, valid/ and test/, a MedMNIST `.npz`, a CSV table, or a folder that holds
        `manifest.csv`.
    straddling : bool
        Allow groups on both sides of the split of the data, if the reader supports it.
    options
        Options of the reader, such as `magnification` for BreakHis.

    Raises
    ------
    UsageError
        An option that this reader does not have.
    DataError
        The path does not exist, or its layout is not recognised.
    """
    where, reader = recognise(path)
    _check_options(reader, options)
    if straddling and "split_by" in inspect.signature(reader).parameters:
        options["split_by"] = "image"
    manifest = reader(where, **options)
    if reader is read_csv_table and Path(path).is_dir():
        rest = folders_left_out(manifest.root, manifest.table["path"], where.name)
        return manifest.with_notes(*rest)
    return manifest


def recognise(path: str | os.PathLike[str]) -> tuple[Path, Callable[..., Manifest]]:
    """The path to read and the reader for it.

    Raises
    ------
    DataError
        The path does not exist, or its layout is not recognised.
    """
    where = Path(path)
    refuse_pipe(where)
    if where.is_file():
        if where.suffix.lower() in SUFFIXES:
            return where, read_csv_table
        if where.suffix.lower() == ".npz":
            return where, read_npz
        about = not_read(suffix_of(where.name))
        what = f" ({about[0]}: {about[1]})" if about else ""
        raise _unknown_layout(f"'{where}' is a {where.suffix or 'nameless'} file{what}")
    if not where.is_dir():
        raise DataError(
            f"'{where}' does not exist", "the data must be a folder or a file", "Check the path"
        )
    if breast_folder(where) is not None:
        return where, read_breakhis
    if bci_folder(where) is not None:
        return where, read_bci
    for name in TABLE_NAMES:
        if (where / name).is_file() and looks_like_table(where / name):
            return where / name, read_csv_table
    paths, notes = list_images(where)
    named = sum(parse_name(PurePosixPath(p).stem) is not None for p in paths)
    if named and named >= len(paths) / 2:
        return where, read_breakhis
    if any(len(PurePosixPath(p).parts) > 1 for p in paths):
        return where, read_folders
    raise _unknown_layout(_describe(where, paths, notes))


def _check_options(reader: Callable[..., Manifest], options: dict[str, Any]) -> None:
    known = [
        p.name for p in inspect.signature(reader).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            flags = [_flag(option) for option in known if option in READER_OPTIONS]
            raise UsageError(
                f"{_flag(name)} does not apply to these data ({reader.__name__})",
                f"their options are {', '.join(flags) or 'none'}",
                did_you_mean(_flag(name), flags) if flags else "Remove it",
            )


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _describe(where: Path, paths: list[str], notes: Sequence[str]) -> str:
    suffixes = Counter(e.suffix.lower() or "no suffix" for e in where.iterdir() if e.is_file())
    files = ", ".join(f"{n} {s}" for s, n in suffixes.most_common(4)) or "no files"
    folders = [e.name for e in where.iterdir() if e.is_dir()]
    more = f" ({' '.join(notes)})" if notes else ""
    return (
        f"'{where}' holds {files}, folders: {first_few(sorted(folders)) or 'none'}, and "
        f"{len(paths)} images{more}"
    )


def _unknown_layout(found: str) -> DataError:
    return DataError(
        f"The layout of the data is not recognised: {found}", "only known layouts are read", LAYOUTS
    )
