"""The regions of highest evidence of a map as polygons, in GeoJSON for QuPath."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array

# Smallest value of a relative map inside a region.
HOT = 0.5
COLOR = (213, 94, 0)

Ring = list[list[float]]


def hot_regions(relative: Array, width: float, height: float, *, x: float = 0.0, y: float = 0.0) -> list[list[Ring]]:  # fmt: skip
    """Polygons around the cells with values of at least `HOT`.

    Parameters
    ----------
    relative : array, shape (rows, columns)
        A relative map, 0 to 1.
    width, height : float
        Size of the image in pixels.
    x, y : float
        Position of the image on its slide, in pixels.

    Returns
    -------
    list of polygons
        A polygon is its outer ring, then its holes. A ring ends at its first point.

    Examples
    --------
    >>> spot = np.zeros((4, 4))
    >>> spot[1, 2] = 1.0
    >>> [[[float(v) for v in p] for p in hot_regions(spot, 8, 8)[0][0]]][0][:2]
    [[5.0, 2.0], [6.0, 3.0]]
    """
    rows, columns = relative.shape
    padded = np.pad(relative, 1)  # closes regions at the border
    axes = Figure().add_subplot()
    drawn = axes.contourf(padded, levels=[HOT, 2.0])
    scale = np.array([width / columns, height / rows])
    corner, far = np.array([x, y]), np.array([x + width, y + height])
    rings = [
        np.clip((ring - 0.5) * scale + corner, corner, far)
        for path in drawn.get_paths()
        for ring in map(np.asarray, path.to_polygons(closed_only=True))
        if len(ring) > 3
    ]
    outer = [one for one in rings if _signed_area(one) > 0]
    holes = [one for one in rings if _signed_area(one) < 0]
    polygons: list[list[Ring]] = [[one.tolist()] for one in outer]
    for hole in holes:
        inside = [i for i, one in enumerate(outer) if _contains(one, hole[0])]
        if inside:
            smallest = min(inside, key=lambda i: _signed_area(outer[i]))
            polygons[smallest].append(hole.tolist())
    return polygons


def feature_collection(
    polygons: list[list[Ring]], *, name: str, classification: str, measurements: dict[str, float]
) -> dict[str, Any]:
    """Polygons as QuPath annotations."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {
                    "objectType": "annotation",
                    "name": f"{name} {i + 1}",
                    "classification": {"name": classification, "color": list(COLOR)},
                    "measurements": measurements,
                },
            }
            for i, rings in enumerate(polygons)
        ],
    }


def _signed_area(ring: Array) -> float:
    a, b = ring[:-1], ring[1:]
    return float((a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]).sum() / 2)


def _contains(ring: Array, point: Array) -> bool:
    """Whether a ray to the right crosses the ring an odd number of times."""
    a, b = ring[:-1], ring[1:]
    spans = (a[:, 1] > point[1]) != (b[:, 1] > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = a[:, 0] + (point[1] - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    return bool((spans & (at > point[0])).sum() % 2)
