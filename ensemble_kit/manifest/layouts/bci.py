"""Reads BCI: paired H&E and IHC images with HER2 scores, one stain or both. Also reads phantoms."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.manifest.checks import check_choice, table_with
from ensemble_kit.manifest.folders.walk import list_images
from ensemble_kit.manifest.image_files import posix
from ensemble_kit.manifest.layouts.class_folders import HER2_SCORES
from ensemble_kit.manifest.names import known_groups
from ensemble_kit.manifest.phantom.write import MARK, PATIENTS
from ensemble_kit.manifest.table import NO_GROUPS, Manifest
from ensemble_kit.tables import UserTable

STAINS = ("ihc", "he", "both")
JOINS = ("side", "stack", "channels")
DEFAULT_JOIN = "stack"
COLORS = ("rgb", "grayscale")
SYNTHETIC = "Synthetic tissue (phantom): the values say nothing about any disease."
NO_PATIENTS = (
    "BCI publishes no patients: each image is its own group, so metrics may be too optimistic."
)
_FOLDERS = {"ihc": "IHC", "he": "HE"}
_NAME = re.compile(r"(?P<number>\d+)_(?P<split>train|test)_(?P<score>0|1\+|2\+|3\+)")


def read_bci(
    root: str | os.PathLike[str],
    *,
    stain: str = "ihc",
    join: str | None = None,
    color: str = "rgb",
    groups: str | os.PathLike[str] | None = None,
    split_by: str = "group",
) -> Manifest:
    """A manifest of the BCI layout: `HE/{train,test}/00001_train_1+.png`, and `IHC/...`.

    BCI publishes no patients. Without a table of groups each image is its own group, with a caveat:
    patches of one patient may be in several folds, and on both sides of the official split. The
    `patients.csv` of a phantom is used.

    Parameters
    ----------
    root : path
        The folder with `HE` and `IHC`.
    stain : {"ihc", "he", "both"}
    join : {"stack", "side", "channels"} or None
        For both stains only, H&E first. `stack` (default): each at half the width of one square.
        `side`: side by side, twice as wide. `channels`: six channels.
    color : {"rgb", "grayscale"}
    groups : path or None
        A CSV with the columns `file` (the image's name, with or without suffix) and `patient`.
    split_by : {"group", "image"}
        `image` allows patients in train and in test, with a caveat. BCI's own split needs it.

    Returns
    -------
    Manifest
        Ordinal classes 0 < 1+ < 2+ < 3+; `sample_id` is the file's stem; further columns `stain`,
        `join`, `color`, and for both stains `pair_path` (the IHC image).

    Raises
    ------
    UsageError
        An unknown option value, or a join of one stain.
    DataError
        No such files, an image without its partner, or a table of groups that lacks images.

    References
    ----------
    Liu et al.: BCI: Breast Cancer Immunohistochemical Image Generation through Pyramid Pix2pix.
    CVPR Workshops 2022.
    """
    _refuse_options(stain, join, color)
    top = bci_folder(root)
    if top is None:
        raise DataError(
            f"'{root}' does not have the folders HE and IHC of BCI",
            "both contain files like 00001_train_1+.png",
            "Give the unpacked folder that contains both",
        )
    paths, notes = list_images(top)
    table = _rows(paths, _FOLDERS["he" if stain == "both" else stain], str(root))
    table["stain"] = "HE+IHC" if stain == "both" else _FOLDERS[stain]
    table["join"] = (join or DEFAULT_JOIN) if stain == "both" else "none"
    table["color"] = color
    if stain == "both":
        table["pair_path"] = _partners(table["path"], paths)
    synthetic = (top / MARK).is_file()
    owner = groups if groups is not None else (top / PATIENTS if synthetic else None)
    table["group"], group_notes = _groups(table["sample_id"], owner)
    phantom_notes = (SYNTHETIC,) if synthetic else ()
    have = set(table["label"])
    return Manifest(
        table,
        tuple(score for score in HER2_SCORES if score in have),
        root=top,
        ordinal=True,
        group_kind=NO_GROUPS if owner is None else "patient",
        name=("phantom" if synthetic else "BCI") + f" {table['stain'].iloc[0]}",
        notes=(*notes, *group_notes, *phantom_notes),
        split_by=split_by,
        layout="stain > train/test > image; labels: file names; patients: "
        + ("not known" if owner is None else "a table"),
    )


def _refuse_options(stain: str, join: str | None, color: str) -> None:
    for option, value, known in (
        ("stain", stain, STAINS),
        ("join", DEFAULT_JOIN if join is None else join, JOINS),
        ("color", color, COLORS),
    ):
        check_choice(option, value, known)
    if join is not None and stain != "both":
        raise UsageError(
            f"join '{join}' was given for stain '{stain}' alone",
            "a join makes one input of both stains",
            "Remove the join, or read both stains: --stain both",
        )


def _groups(
    sample_ids: pd.Series, owner: str | os.PathLike[str] | None
) -> tuple[list[str], tuple[str, ...]]:
    """The patient of each image and the caveats about them; without a table, the image itself."""
    if owner is None:
        return list(sample_ids), (NO_PATIENTS,)
    given = table_with(owner, "file", "patient", what="A table of groups")
    return _owners(sample_ids, given), given.notes


def bci_folder(root: str | os.PathLike[str]) -> Path | None:
    """The folder with HE and IHC at or one below `root`, or None."""
    top = Path(root)
    if not top.is_dir():
        return None
    for candidate in [top, *sorted(p for p in top.iterdir() if p.is_dir())]:
        if all((candidate / folder).is_dir() for folder in _FOLDERS.values()):
            return candidate
    return None


def _rows(paths: list[str], folder: str, root: str) -> pd.DataFrame:
    records, unnamed = [], []
    for path in paths:
        parts = PurePosixPath(path).parts
        if parts[0] != folder:
            continue
        match = _NAME.fullmatch(PurePosixPath(path).stem)
        if match is None or len(parts) != 3 or parts[1] != match["split"]:
            unnamed.append(path)
        else:
            stem = PurePosixPath(path).stem
            records.append(
                {"sample_id": stem, "path": path, "label": match["score"], "split": match["split"]}
            )
    if unnamed or not records:
        raise DataError(
            f"{len(unnamed)} of {len(unnamed) + len(records)} files in '{root}' ({folder}) do not have a BCI name"
            + (f" (first: {unnamed[0]})" if unnamed else ""),
            "BCI files are named like train/00001_train_1+.png",
            "Move them out of the data, or restore the names of the archive",
        )
    return pd.DataFrame.from_records(records)


def _partners(he_paths: pd.Series, paths: list[str]) -> list[str]:
    have = set(paths)
    wanted = [_FOLDERS["ihc"] + path.removeprefix(_FOLDERS["he"]) for path in he_paths]
    missing = [path for path in wanted if path not in have]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} H&E images have no IHC image (first: {first_few(missing, 3)})",
            "each H&E image needs its IHC partner",
            "Restore the IHC images, or use one stain: stain='he'",
        )
    return wanted


def _owners(sample_ids: pd.Series, given: UserTable) -> list[str]:
    table, path = given.frame, given.path
    stems = [PurePosixPath(posix(file)).name.removesuffix(".png") for file in table["file"]]
    patients = known_groups(table["patient"], stems, where=f"column 'patient' of '{path}'")
    rows = pd.DataFrame({"file": stems, "patient": patients}).drop_duplicates()
    if rows["file"].duplicated().any():
        raise DataError(
            f"'{path}' has more than one row for {first_few(rows['file'][rows['file'].duplicated()].unique(), 3)}",
            "each image has one patient",
            "Keep one row of each image",
        )
    owner = dict(zip(rows["file"], rows["patient"], strict=True))
    without = [i for i in sample_ids if i not in owner]
    if without:
        raise DataError(
            f"{len(without)} of {len(sample_ids)} images are not in the table of groups (first: {first_few(without, 3)})",
            "each image needs a patient",
            "Add them",
        )
    return [owner[i] for i in sample_ids]
