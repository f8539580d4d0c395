"""Whole jobs on a fake GPU: started, interrupted, resumed, stored, and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kit.images.loading import tile_loader as loader
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs import choose_precision as probe
from ensemble_kit.members.jobs.events import Event, JobStarted, Notice
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.pooled_features import features_of_finished
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training import step as step_module
from ensemble_kit.members.training.throughput import images_per_second
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

MakeJob = Callable[..., Job]
Interrupt = Callable[[Job, int], None]
StoredFiles = Callable[[Job], dict[str, bytes]]
GPU = torch.device("cuda")


@pytest.fixture
def job_on_gpu(gpu: Any, make_job: MakeJob) -> MakeJob:
    """`make_job` for the fake GPU."""

    def make(folder: str = "run", **settings: Any) -> Job:
        return dataclasses.replace(make_job(folder, **settings), device=GPU)

    return make


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp16": {"precision": "fp16"},
    "average": {"precision": "bf16", "regularize": {"ema_decay": 0.9}},
    "average of the last": {"regularize": {"average_last": 2}},
    "average beside, views": {"regularize": {"ema_decay": 0.9, "average_beside": True, "tta": "flips"}},
    "validation split": {"select_on": "inner", "patience": 2, "schedule": "plateau"},
    "cached features": {"optim": {"head_only_epochs": 2, "cache_features": True}},
    "sgd": {"optim": {"name": "sgd", "clip_norm": 1.0, "layer_decay": 0.7}},
    "lookahead": {"optim": {"name": "lookahead_adamw"}},
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_an_interrupted_job_resumes_on_the_gpu(
    stored_files: StoredFiles, interrupt: Interrupt, job_on_gpu: MakeJob, recipe: dict[str, Any]
) -> None:
    whole, cut = job_on_gpu("whole", **recipe), job_on_gpu("cut", **recipe)
    run_job(whole)
    interrupt(cut, 1)
    run_job(cut)
    assert stored_files(cut) == stored_files(whole)
    record = read_record(cut.folder)
    assert record is not None
    assert record["device"] == "cuda"


def test_a_job_begun_on_a_gpu_resumes_without_one(
    interrupt: Interrupt, job_on_gpu: MakeJob
) -> None:
    job, whole = job_on_gpu("cut"), job_on_gpu("whole")
    interrupt(job, 2)
    run_job(dataclasses.replace(job, device=torch.device("cpu")))
    run_job(whole)
    for part in ("oof", "test"):
        mine, other = (np.load(j.folder / f"logits-{part}.npy") for j in (job, whole))
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("member", [{}, {"head": [8]}, {"color": "hed"}], ids=str)
def test_features_are_those_of_the_stored_network_on_either_device(
    job_on_gpu: MakeJob, member: dict[str, Any]
) -> None:
    job = dataclasses.replace(job_on_gpu(member=member), keep_features=True)
    run_job(job)
    here = features_of_finished(dataclasses.replace(job, device=torch.device("cpu")))
    for mine, there in zip(here[""], features_of_finished(job)[""], strict=True):
        assert mine.shape == there.shape
        np.testing.assert_allclose(mine, there, rtol=1e-3, atol=1e-4)


def test_streamed_tiles_train_like_tiles_on_the_gpu(
    stored_files: StoredFiles, job_on_gpu: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident, streamed = job_on_gpu("resident"), job_on_gpu("streamed")
    run_job(resident)
    monkeypatch.setattr(loader, "fits", lambda *_: False)
    run_job(streamed)
    assert stored_files(streamed) == stored_files(resident)


def test_row_36_on_a_full_gpu_memory_is_released_and_the_batch_split(
    job_on_gpu: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step_module._forward_backward

    def full(*args: Any) -> Any:
        if args[-1] < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(*args)

    monkeypatch.setattr(step_module, "_forward_backward", full)
    events: list[Event] = []
    job = job_on_gpu()
    run_job(job, events.append)
    printed = [event.text for event in events if isinstance(event, Notice)]
    assert [text for text in printed if "computed in 4 parts" in text]
    assert torch.cuda.empty_cache.call_count == 2  # type: ignore[attr-defined]
    record = read_record(job.folder)
    assert record is not None
    assert record["micro_batches"] == 4


def test_images_per_second_are_measured_on_the_gpu(gpu: Any) -> None:
    speed = images_per_second("tiny_cnn", 16, 4, device="auto")
    assert set(speed) == {"train", "predict"}
    assert [wait for wait in gpu.waits if wait.call == "synchronize"]


def test_a_run_measures_precisions_and_trains_all_folds_on_the_gpu(
    gpu: Any, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "WORTH_A_PROBE", 0.0)
    run, recipe = Run(tmp_path), Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=recipe)
    events: list[Event] = []
    fit_members(
        [member], trained.manifest, trained.folds, run, device="auto", listener=events.append
    )
    printed = [event.text for event in events if isinstance(event, Notice)]
    assert [text for text in printed if "(tiny_cnn 16 px, batch 16)" in text]
    assert [(e.device, e.fold) for e in events if isinstance(e, JobStarted)] == [
        ("cuda", fold) for fold in range(3)
    ]
    stored = run.predictions("oof")
    assert np.isfinite(stored.logits).all()
