"""Tiles become QuPath objects at the position in their names. Names without a position are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.files import read_csv

CLI = Callable[..., tuple[int, str]]


@pytest.fixture
def tiles(slides: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for i, name in enumerate(["S1 [x=0,y=0,w=16,h=16]", "S1 [d=2,x=16,y=8,w=16,h=16]", "S 2 [x=32,y=0,w=16,h=16]"]):  # fmt: skip
        shutil.copy(slides / "benign" / f"P00_{i}.png", folder / f"{name}.png")
    (folder / "S1 [x=99,y=0,w=16,h=16].png").write_text("no image")
    return folder


def test_each_slide_has_its_tiles_with_class_probabilities_and_votes(
    cli: CLI, stacked: Any, tiles: Path, tmp_path: Path
) -> None:
    options = "--run", stacked.run.path, "--method", "simplex", "--device", "cpu"
    code, printed = cli("predict", tiles, "--geojson", tmp_path / "q", *options)
    assert code == 0, printed
    assert sorted(p.name for p in (tmp_path / "q").iterdir()) == ["S 2.geojson", "S1.geojson"]
    rows = read_csv(tmp_path / "predictions.csv").set_index("image")
    features = json.loads((tmp_path / "q" / "S1.geojson").read_text())["features"]
    assert len(features) == 2
    one = next(f for f in features if f["geometry"]["coordinates"][0][0] == [16, 8])
    row = rows.loc[(tiles / "S1 [d=2,x=16,y=8,w=16,h=16].png").as_posix()]
    assert one["geometry"]["coordinates"][0][2] == [32, 24]
    assert one["properties"]["classification"]["name"] == row["predicted"]
    assert one["properties"]["measurements"]["p_benign"] == float(row["p_benign"])
    assert one["properties"]["metadata"]["vote_tiny_cnn"] == row["vote_tiny_cnn"]
    assert one["properties"]["metadata"]["decision"] == row["decision"]


def test_names_without_a_position_are_refused_and_no_file_is_written(
    cli: CLI, stacked: Any, slides: Path, tmp_path: Path
) -> None:
    code, printed = cli("predict", slides, "--geojson", "q", "--run", stacked.run.path)
    assert code == 2
    assert "P00_0.png" in printed
    assert not list(tmp_path.iterdir())
