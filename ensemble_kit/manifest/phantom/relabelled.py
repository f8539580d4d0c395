"""Writes the IHC images of a phantom with two classes, as class folders or as a BreakHis archive.

Scores 0 and 1+ are the first class, 2+ and 3+ the second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ensemble_kit.files import read_csv, read_json, write_bytes, write_json
from ensemble_kit.manifest.phantom.write import MARK, PATIENTS, write_phantom

FileName = Callable[[str, str, bool, int], str]  # split, patient, is second class, index


def write_phantom_as(
    layout: str,
    out: str | os.PathLike[str],
    *,
    n_patients: int = 40,
    images_per_patient: int = 6,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Write a phantom in one of `LAYOUTS`. Nothing is done if it exists with the same settings.

    Parameters
    ----------
    layout : {"bci", "folders", "breakhis"}
        `folders` has `train/low/P001_00001.png` and `test/high/...`; `breakhis` has the archive's
        names and no split.
    out : path
        A new or empty folder.
    n_patients, images_per_patient, image_size, seed : int
        As for `write_phantom`.
    """
    folder = Path(out)
    pairs = write_phantom(
        folder if layout == "bci" else folder.with_name(f"{folder.name}-pairs"),
        n_patients=n_patients,
        images_per_patient=images_per_patient,
        image_size=image_size,
        seed=seed,
    )
    if layout == "bci":
        return pairs
    settings = {"layout": layout, **read_json(pairs / MARK)}
    if (folder / MARK).is_file() and read_json(folder / MARK) == settings:
        return folder
    owners = read_csv(pairs / PATIENTS).astype(str)
    for k, (file, patient) in enumerate(zip(owners["file"], owners["patient"], strict=True)):
        _, split, score = Path(file).stem.split("_")
        name = LAYOUTS[layout](split, patient, score in ("2+", "3+"), k)
        source = pairs / "IHC" / split / file
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, source.read_bytes())
    write_json(folder / MARK, settings)
    return folder


def _in_folders(split: str, patient: str, is_second: bool, index: int) -> str:
    return f"{split}/{'high' if is_second else 'low'}/{patient}_{index:05d}.png"


def _in_breakhis(_: str, patient: str, is_second: bool, index: int) -> str:
    slide = f"{'M_DC' if is_second else 'B_A'}-14-{10000 + int(patient[1:])}"
    kind = "malignant/SOB/ductal_carcinoma" if is_second else "benign/SOB/adenosis"
    return f"breast/{kind}/SOB_{slide.replace('-', '_', 1)}/100X/SOB_{slide}-100-{index:03d}.png"


LAYOUTS: dict[str, FileName] = {"folders": _in_folders, "breakhis": _in_breakhis}
