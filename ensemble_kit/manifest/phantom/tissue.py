"""Draws the tissue of one image: cells, nuclei, membranes and stroma, as maps of amounts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.manifest.phantom.patients import Patient

Map = npt.NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Tissue:
    """Maps of one field of view, each float32 (image_size, image_size), 0 .. 1.

    Parameters
    ----------
    nuclei, cytoplasm, stroma : array
        Amount of each.
    membrane : array
        The tumour cells' membranes, stained or not.
    stained : array
        Optical density of DAB on the membranes.
    """

    nuclei: Map
    cytoplasm: Map
    stroma: Map
    membrane: Map
    stained: Map


@dataclasses.dataclass(frozen=True, eq=False)
class _Cells:
    """Centres and traits of all cells (n_cells,), and each pixel's nearest cell."""

    index: npt.NDArray[np.int64]
    dx: Map
    dy: Map
    edge: Map
    y: Map
    x: Map


def draw_tissue(patient: Patient, image_size: int, rng: np.random.Generator) -> Tissue:
    """One field of view of a patient.

    Parameters
    ----------
    patient : Patient
    image_size : int
        Pixels; cells keep their size relative to the image.
    rng : numpy.random.Generator
    """
    scale = image_size / 128
    spacing = patient.spacing * scale
    # Fields differ within a patient: nests are larger here, the section is thicker there.
    nests = _nests(patient.tumour, image_size, rng)
    cells = _cells(spacing, image_size, rng)
    cy = np.clip(cells.y, 0, image_size - 1).astype(int)
    cx = np.clip(cells.x, 0, image_size - 1).astype(int)
    tumour = nests[cy, cx] > 0.5
    nuclei = _nuclei(cells, tumour, patient, spacing, rng)
    width = max(0.75, 0.075 * spacing)
    membrane = np.exp(-((cells.edge / width) ** 2)) * tumour[cells.index]
    stained = membrane * _dab(cells, tumour, patient, rng)
    fibres = _fibres(image_size, rng)
    return Tissue(
        nuclei=nuclei,
        cytoplasm=(tumour[cells.index] * (0.75 + 0.25 * smooth_noise(image_size, 10, rng))).astype(
            np.float32
        ),
        stroma=(~tumour[cells.index] * fibres).astype(np.float32),
        membrane=membrane.astype(np.float32),
        stained=stained.astype(np.float32),
    )


def smooth_noise(image_size: int, n_waves: int, rng: np.random.Generator) -> Map:
    """Smooth noise of 0 .. 1 with about `n_waves` bumps per side, shape (image_size, image_size)."""
    coarse = rng.random((n_waves + 2, n_waves + 2), dtype=np.float32)
    place = np.arange(image_size) * (n_waves / image_size) + rng.random()
    low = place.astype(int)
    part = (place - low).astype(np.float32)
    part = part * part * (3 - 2 * part)
    # Interpolated along one axis, then the other: two small products instead of a resampling.
    rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _nests(share: float, image_size: int, rng: np.random.Generator) -> Map:
    field = 0.7 * smooth_noise(image_size, 3, rng) + 0.3 * smooth_noise(image_size, 7, rng)
    own = float(np.clip(share + rng.normal(0, 0.12), 0.2, 0.97))
    level = np.quantile(field[::4, ::4], 1 - own)
    return (field > level).astype(np.float32)


def _cells(spacing: float, image_size: int, rng: np.random.Generator) -> _Cells:
    """A jittered hexagonal lattice, and for each pixel its nearest cell and the way to the next."""
    step_y = spacing * 0.87
    n_rows, n_cols = int(image_size / step_y) + 5, int(image_size / spacing) + 5
    row, col = np.mgrid[0:n_rows, 0:n_cols].astype(np.float32)
    y = (row - 2 + rng.normal(0, 0.16, row.shape)) * step_y
    x = (col - 2 + 0.5 * (row % 2) + rng.normal(0, 0.16, row.shape)) * spacing
    pixel_y, pixel_x = np.mgrid[0:image_size, 0:image_size].astype(np.float32)
    # Borders bend a little, so that no cell is a polygon.
    pixel_y += (smooth_noise(image_size, 14, rng) - 0.5) * 0.35 * spacing
    pixel_x += (smooth_noise(image_size, 14, rng) - 0.5) * 0.35 * spacing
    home_row = np.rint(pixel_y / step_y).astype(np.int64) + 2
    home_col = np.rint(pixel_x / spacing).astype(np.int64) + 2
    first = np.full(pixel_y.shape, np.inf, np.float32)
    second = first.copy()
    index = np.zeros(pixel_y.shape, np.int64)
    flat_y, flat_x = y.ravel().astype(np.float32), x.ravel().astype(np.float32)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            there = np.clip(home_row + dr, 0, n_rows - 1) * n_cols + np.clip(
                home_col + dc, 0, n_cols - 1
            )
            distance = (pixel_y - flat_y[there]) ** 2 + (pixel_x - flat_x[there]) ** 2
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            first = np.where(nearer, distance, first)
            index = np.where(nearer, there, index)
    edge = (np.sqrt(second) - np.sqrt(first)) / 2
    return _Cells(index, pixel_x - flat_x[index], pixel_y - flat_y[index], edge, flat_y, flat_x)


def _nuclei(
    cells: _Cells,
    tumour: npt.NDArray[np.bool_],
    patient: Patient,
    spacing: float,
    rng: np.random.Generator,
) -> Map:
    n = len(tumour)
    lymphocyte = ~tumour & (rng.random(n) < patient.lymphocytes)
    spindle = ~tumour & ~lymphocyte
    radius = spacing * patient.nucleus * np.exp(rng.normal(0, patient.variety, n))
    radius = np.where(lymphocyte, spacing * 0.24, radius)
    stretch = np.where(spindle, rng.uniform(2.0, 3.2, n), np.exp(np.abs(rng.normal(0, 0.16, n))))
    turn = np.where(spindle, rng.normal(rng.uniform(0, np.pi), 0.5, n), rng.uniform(0, np.pi, n))
    present = np.where(spindle, rng.random(n) < 0.55, rng.random(n) < 0.96)
    major = radius * np.sqrt(stretch) * present
    minor = radius / np.sqrt(stretch) * np.where(spindle, 0.75, 1.0)
    cos, sin = np.cos(turn).astype(np.float32), np.sin(turn).astype(np.float32)
    i = cells.index
    along = (cells.dx * cos[i] + cells.dy * sin[i]) / np.maximum(major, 0.1).astype(np.float32)[i]
    across = (cells.dy * cos[i] - cells.dx * sin[i]) / np.maximum(minor, 0.1).astype(np.float32)[i]
    reach = np.sqrt(along**2 + across**2)
    inside = 1 / (1 + np.exp(np.clip((reach - 1) * 9, -30, 30)))
    # Chromatin: a darker rim, a paler middle in tumour nuclei, dense lymphocytes.
    density = np.where(lymphocyte, 1.25, np.where(spindle, 0.95, rng.uniform(0.6, 1.0, n))).astype(
        np.float32
    )[i]
    rim = 0.72 + 0.38 * np.clip(reach, 0, 1) ** 2
    grain = 0.8 + 0.4 * rng.random(reach.shape, dtype=np.float32)
    return (inside * density * rim * grain * present[i]).astype(np.float32)


def _dab(
    cells: _Cells, tumour: npt.NDArray[np.bool_], patient: Patient, rng: np.random.Generator
) -> Map:
    """Optical density of DAB at each pixel, as if all pixels were membrane."""
    n = len(tumour)
    share = np.clip(patient.positive + rng.normal(0, 0.08), 0, 1)
    positive = tumour & (rng.random(n) < share)
    strength = (
        patient.intensity * np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.22, n)) * positive
    )
    closed = np.clip(patient.completeness + rng.normal(0, 0.12, n), 0.05, 1.3)
    phase, phase3 = rng.uniform(0, 2 * np.pi, (2, n))
    i = cells.index
    angle = np.arctan2(cells.dy, cells.dx)
    around = 0.5 + 0.34 * np.cos(angle - phase[i]) + 0.16 * np.cos(3 * angle + phase3[i])
    arc = 1 / (1 + np.exp(np.clip((around - closed[i]) * 14, -30, 30)))
    return (strength[i] * arc).astype(np.float32)


def _fibres(image_size: int, rng: np.random.Generator) -> Map:
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[0:image_size, 0:image_size].astype(np.float32) * np.float32(128 / image_size)
    bent = 16 * smooth_noise(image_size, 4, rng) + 5 * smooth_noise(image_size, 11, rng)
    phase = np.float32(0.5 * np.cos(turn)) * x + np.float32(0.5 * np.sin(turn)) * y + bent
    # Bundles fade in and out, and leave clefts of bare glass.
    bundle = smooth_noise(image_size, 9, rng)
    cleft = np.clip((smooth_noise(image_size, 6, rng) - 0.22) * 8, 0, 1)
    fibre = 0.45 + 0.30 * bundle * np.sin(phase) + 0.5 * smooth_noise(image_size, 20, rng)
    return np.clip(fibre * cleft, 0, None)
