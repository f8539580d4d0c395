"""Writes a phantom data set in the layout of BCI. Each file is marked as synthetic."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.files import read_json, write_csv, write_json
from ensemble_kit.manifest.phantom.optics import stain_he, stain_ihc, stained_mask
from ensemble_kit.manifest.phantom.patients import Patient, draw_patients
from ensemble_kit.manifest.phantom.tissue import draw_tissue
from ensemble_kit.seeding import generator

MARK = "phantom.json"
PATIENTS = "patients.csv"
VERSION = 1


def write_phantom(
    out: str | os.PathLike[str],
    *,
    n_patients: int = 40,
    images_per_patient: int = 6,
    image_size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write synthetic HER2 tissue: paired H&E and IHC images, masks and patients.

    Writes `HE/{train,test}/00001_train_1+.png`, `IHC/...` and `masks/...` with the same names,
    `patients.csv` (file, patient), and last `phantom.json`. Nothing is done if the phantom exists
    with the same settings.

    Parameters
    ----------
    out : path
        A new or empty folder, or one that a phantom was written to.
    n_patients, images_per_patient : int
    image_size : int
        Pixels, square.
    seed : int
    progress : callable or None
        Called with (pairs written, total number of pairs).

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        Too few patients or too small images.
    DataError
        The folder has other content.
    """
    if images_per_patient < 1 or image_size < 32:
        raise UsageError(
            f"{images_per_patient} images of {image_size} pixels per patient are not possible",
            "a phantom has at least one image per patient, of at least 32 pixels",
            "Use e.g. --images-per-patient 6 --image-size 128",
        )
    folder = Path(out)
    settings = {
        "synthetic": True,
        "version": VERSION,
        "n_patients": n_patients,
        "images_per_patient": images_per_patient,
        "image_size": image_size,
        "seed": seed,
    }
    patients = draw_patients(n_patients, seed=seed)
    if _is_complete(folder, settings):
        return folder
    rows = []
    number = {"train": 0, "test": 0}
    total = n_patients * images_per_patient
    for k in range(total):
        # Patients alternate, so that neighbouring files are of different patients.
        patient = patients[k % n_patients]
        number[patient.split] += 1
        name = f"{number[patient.split]:05d}_{patient.split}_{patient.score}.png"
        rng = generator(seed, "phantom", patient.name, k // n_patients)
        _write_images(folder, patient, name, image_size, rng)
        rows.append((name, patient.name))
        if progress is not None:
            progress(k + 1, total)
    write_csv(
        folder / PATIENTS, pd.DataFrame(rows, columns=["file", "patient"]).sort_values("file")
    )
    write_json(folder / MARK, settings)
    return folder


def draw_pair(
    patient: Patient, image_size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """One field: H&E and IHC, uint8 (size, size, 3), and the mask of stained membranes."""
    tissue = draw_tissue(patient, image_size, rng)
    return stain_he(tissue, patient, rng), stain_ihc(tissue, patient, rng), stained_mask(tissue)


def _is_complete(folder: Path, settings: Mapping[str, object]) -> bool:
    if (folder / MARK).is_file():
        if read_json(folder / MARK) == settings:
            return True
        raise DataError(
            f"'{folder}' holds a phantom with other settings ({folder / MARK})",
            "a folder holds one phantom",
            "Choose another folder, or delete that one",
        )
    if folder.is_dir() and any(
        e.name not in ("HE", "IHC", "masks", PATIENTS) for e in folder.iterdir()
    ):
        raise DataError(
            f"'{folder}' is not empty",
            "a phantom is written to an empty folder",
            "Choose another folder",
        )
    return False


def _write_images(
    folder: Path, patient: Patient, name: str, image_size: int, rng: np.random.Generator
) -> None:
    for kind, pixels in zip(
        ("HE", "IHC", "masks"), draw_pair(patient, image_size, rng), strict=True
    ):
        target = folder / kind / patient.split / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_png(pixels))


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    about = PngInfo()
    about.add_text(
        "Description", "Synthetic tissue (ensemble-kit phantom); no patient, no diagnosis."
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=about, compress_level=1)
    return buffer.getvalue()
