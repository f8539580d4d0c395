"""A small job on painted slides, for tests of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kit.files import cache_folder
from ensemble_kit.images.tiles.build import Tiles, build_tiles
from ensemble_kit.members.jobs.events import EpochEnded, Event
from ensemble_kit.members.jobs.job import CROP, Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiles(trained: Any) -> Tiles:
    return build_tiles(trained.manifest, 16, cache_dir=cache_folder(), crop=CROP)


@pytest.fixture
def make_job(trained: Any, tiles: Tiles, tmp_path: Path) -> Callable[..., Job]:
    """A job of `tiny_cnn` on fold 0 in a fresh run folder; keywords change the recipe."""

    def make(
        folder: str = "run", *, fold: int = 0, member: dict[str, Any] | None = None, seed: int = 0,
        precision: str = "fp32", **recipe: Any,
    ) -> Job:  # fmt: skip
        settings = {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, **recipe}
        made = Member(
            **{
                "network": "tiny_cnn", "image_size": 16, "pretrained": False,
                "recipe": Recipe(**settings), **(member or {}),
            }
        )  # fmt: skip
        run = Run(tmp_path / folder)
        return Job(
            run, made, fold, trained.manifest, trained.folds, tiles, torch.device("cpu"), precision, seed
        )  # fmt: skip

    return make


@pytest.fixture
def stored_files() -> Callable[[Job], dict[str, bytes]]:
    """The logits and weights of a job and its extra checkpoints, by file."""

    def read(job: Job) -> dict[str, bytes]:
        paths = [p for name in ("*.npy", "*.safetensors") for p in sorted(job.folder.rglob(name))]
        return {str(path.relative_to(job.folder)): path.read_bytes() for path in paths}

    return read


class StoppedError(Exception):
    """Stops a training between two epochs."""


@pytest.fixture
def interrupt() -> Callable[[Job, int], None]:
    """Run a job and stop it after this number of epochs."""

    def stop(job: Job, after: int) -> None:
        def listener(event: Event) -> None:
            if isinstance(event, EpochEnded) and event.epoch + 1 == after:
                raise StoppedError

        with pytest.raises(StoppedError):
            run_job(job, listener)

    return stop


@pytest.fixture
def with_pixels(trained: Any) -> Callable[[Job, str], Job]:
    """The same job over tiles in which the images of one part are all black."""

    def change(job: Job, part: str) -> Job:
        if part == "test":
            ids = trained.manifest.part("test").sample_ids
        else:
            train = trained.manifest.part("train")
            in_fold = job.folds.of(train) == job.fold
            ids = train.sample_ids[in_fold if part == "held-out" else ~in_fold]
        pixels = job.tiles.pixels.copy()
        pixels[job.tiles.rows(ids)] = 0
        return dataclasses.replace(job, tiles=dataclasses.replace(job.tiles, pixels=pixels))

    return change
