"""Jobs of one tiny network, for tests of engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kit.files import cache_folder
from ensemble_kit.images.tiles.build import build_tiles
from ensemble_kit.members.jobs.job import CROP, Job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run


@pytest.fixture
def make_job(trained: Any, tmp_path: Path) -> Callable[..., Job]:
    """A job of `tiny_cnn` in `tmp_path/run`; keywords change the recipe."""

    def make(*, fold: int = 0, precision: str = "fp32", **recipe: Any) -> Job:
        settings = {"epochs": 1, "batch_size": 16, "learning_rate": 3e-3, **recipe}
        member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(**settings))
        tiles = build_tiles(trained.manifest, 16, cache_dir=cache_folder(), crop=CROP)
        return Job(
            Run(tmp_path / "run"), member, fold, trained.manifest, trained.folds, tiles,
            torch.device("cpu"), precision,
        )  # fmt: skip

    return make
