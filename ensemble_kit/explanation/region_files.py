"""The regions of highest evidence of one image as GeoJSON, on the image or on its slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble_kit.explanation.explain import Explanation
from ensemble_kit.explanation.fuse import on_grid, relative
from ensemble_kit.explanation.regions import feature_collection, hot_regions
from ensemble_kit.inference.qupath import place_of
from ensemble_kit.inference.sources import Source

# Cells on the longer side. Finer maps would give hundreds of regions.
CELLS = 32


def regions_of(source: Source, found: Explanation, row: int) -> dict[str, Any]:
    """Polygons of the ensemble's map of image `row`, in pixels of the image.

    If the file name has a tile position, they are in pixels of the slide.
    """
    rows, columns = found.ensemble.shape[1:]
    most = max(rows, columns) / CELLS
    cells = (rows, columns) if most <= 1 else (round(rows / most), round(columns / most))
    heat = relative(on_grid(found.ensemble[row][None], cells)[0])
    place = place_of(source.name)
    if place is None:
        height, width = source.read(source.path).shape[:2]
        polygons = hot_regions(heat, width, height)
    else:
        polygons = hot_regions(heat, place.width, place.height, x=place.x, y=place.y)
    wanted = str(found.class_names[row])
    p = float(found.predictions.proba[row, found.explained[row]])
    return feature_collection(
        polygons, name=f"{found.method} {Path(source.name).stem}", classification=wanted,
        measurements={f"p_{wanted}": p},
    )  # fmt: skip
