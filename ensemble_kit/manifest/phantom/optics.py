"""Converts amounts of stain into pixels: Beer-Lambert, then the scanner.

Stain vectors are those of Ruifrok & Johnston (Anal Quant Cytol Histol 23:291-299, 2001), unit
length, as optical densities of red, green and blue.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from ensemble_kit.manifest.phantom.patients import Patient
from ensemble_kit.manifest.phantom.tissue import Map, Tissue

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
DAB = (0.268, 0.570, 0.776)
# Optical density of DAB above which a membrane counts as stained in the mask.
STAINED_FROM = 0.1


def stain_he(tissue: Tissue, patient: Patient, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The field in haematoxylin and eosin, uint8 (image_size, image_size, 3)."""
    haematoxylin = patient.haematoxylin * (0.85 * tissue.nuclei + 0.09 * tissue.cytoplasm + 0.02)
    eosin = patient.eosin * (
        0.20 * tissue.cytoplasm + 0.38 * tissue.stroma + 0.06 * tissue.membrane + 0.02
    )
    eosin = eosin * (1 - 0.5 * np.clip(tissue.nuclei, 0, 1))
    return _scan([(haematoxylin, HAEMATOXYLIN), (eosin, EOSIN)], patient, rng)


def stain_ihc(tissue: Tissue, patient: Patient, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The field in DAB for HER2 with haematoxylin behind it, uint8 (image_size, image_size, 3)."""
    haematoxylin = patient.haematoxylin * (0.55 * tissue.nuclei + 0.05 * tissue.cytoplasm + 0.03)
    unspecific = patient.dab_background * (0.8 * tissue.cytoplasm + 0.6 * tissue.stroma + 0.1)
    return _scan([(haematoxylin, HAEMATOXYLIN), (tissue.stained + unspecific, DAB)], patient, rng)


def stained_mask(tissue: Tissue) -> npt.NDArray[np.uint8]:
    """255 where a membrane is stained, else 0; uint8 (image_size, image_size)."""
    return np.where(tissue.stained > STAINED_FROM, 255, 0).astype(np.uint8)


def _scan(
    stains: list[tuple[Map, tuple[float, float, float]]], patient: Patient, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    thickness = np.float32(np.exp(rng.normal(0, 0.06)))
    amounts = np.stack([gaussian_filter(amount, patient.blur) for amount, _ in stains], axis=-1)
    vectors = np.array([vector for _, vector in stains], dtype=np.float32)
    density = thickness * amounts.astype(np.float32) @ vectors
    light = np.array(patient.white, dtype=np.float32) * np.exp(-np.float32(np.log(10)) * density)
    noise = rng.standard_normal(light.shape, dtype=np.float32) * np.float32(0.012)
    return np.clip((light + noise) * 255 + 0.5, 0, 255).astype(np.uint8)
