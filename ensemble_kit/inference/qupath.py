"""A table of predicted tiles as GeoJSON for QuPath: one file per slide.

Positions come from the file names of QuPath's tile exporter: `SLIDE [x=1024,y=0,w=512,h=512].png`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.files import read_csv, write_json
from ensemble_kit.inference.ensemble import Ensemble

_PLACE = re.compile(r"(?P<slide>.+?)[ _]*\[(?P<values>[a-z]=[0-9.]+(?:,[a-z]=[0-9.]+)*)\]")
_COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))  # fmt: skip
UNCERTAINTY = ("disagreement", "entropy", "mutual_information")


@dataclasses.dataclass(frozen=True)
class TilePlace:
    """The position of a tile on its slide, in pixels of the full resolution."""

    slide: str
    x: float
    y: float
    width: float
    height: float

    def polygon(self) -> dict[str, Any]:
        """The tile as a GeoJSON geometry."""
        x0, y0, x1, y1 = self.x, self.y, self.x + self.width, self.y + self.height
        return {
            "type": "Polygon",
            "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]],
        }


def place_of(name: str) -> TilePlace | None:
    """The position in a tile's name. None if the name has no position.

    Examples
    --------
    >>> place_of("tiles/S1 [d=2,x=1024,y=0,w=512,h=512].png")
    TilePlace(slide='S1', x=1024.0, y=0.0, width=512.0, height=512.0)
    >>> place_of("S1.png") is None
    True
    """
    found = _PLACE.match(Path(name).name)
    if found is None:
        return None
    try:
        values = {pair[0]: float(pair[2:]) for pair in found["values"].split(",")}
        return TilePlace(found["slide"], *(values[key] for key in "xywh"))
    except (KeyError, ValueError):
        return None


def check_names(names: Sequence[str]) -> None:
    """Raise `UsageError` if a tile's name has no position. It names the first tiles."""
    lacking = [name for name in names if place_of(name) is None]
    if lacking:
        raise UsageError(
            f"{len(lacking)} of {len(names)} file names have no tile position (first: "
            f"{first_few(lacking, 2)})",
            "--geojson needs names like 'SLIDE [x=1024,y=0,w=512,h=512].png'",
            "Export the tiles with QuPath, or leave --geojson out",
        )


def write_geojson(ensemble: Ensemble, table: Path, folder: Path) -> list[Path]:
    """Write `folder/SLIDE.geojson` for each slide of a table of predictions.

    Each readable tile becomes an object with its class. Probabilities and uncertainty are its
    measurements. Votes, prediction set and decision are its metadata.
    """
    rows = read_csv(table)
    rows = rows[rows["error"] == ""]
    by_slide: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_dict("records"):
        place = place_of(row["image"])
        assert place is not None  # check_names
        by_slide.setdefault(place.slide, []).append(_feature(ensemble, place, row))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for slide, features in by_slide.items():
        written.append(folder / f"{slide}.geojson")
        write_json(written[-1], {"type": "FeatureCollection", "features": features})
    if not written:
        raise DataError(
            "No tile could be predicted", f"'{table}' has no readable tile", "Check the tiles"
        )
    return written


def _feature(ensemble: Ensemble, place: TilePlace, row: dict[str, str]) -> dict[str, Any]:
    class_name = row["predicted"]
    measured = {f"p_{c}": float(row[f"p_{c}"]) for c in ensemble.class_names}
    measured |= {name: float(row[name]) for name in UNCERTAINTY}
    words = _present(row, [*(f"vote_{m}" for m in ensemble.member_names), "set", "decision", "caveat"])  # fmt: skip
    properties: dict[str, Any] = {"objectType": "tile", "measurements": measured, "metadata": words}
    if class_name:
        c = ensemble.class_names.index(class_name)
        properties["classification"] = {
            "name": class_name,
            "color": list(_COLORS[c % len(_COLORS)]),
        }
    return {"type": "Feature", "geometry": place.polygon(), "properties": properties}


def _present(row: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: row[name] for name in names if not pd.isna(row.get(name)) and row[name] != ""}
