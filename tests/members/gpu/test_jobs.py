"""Whole jobs on a GPU, on one that is pretended: begun, cut off, gone on with, stored, read back."""

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
CutOff = Callable[[Job, int], None]
Kept = Callable[[Job], dict[str, bytes]]
GPU = torch.device("cuda")


@pytest.fixture
def job_on_gpu(gpu: Any, make_job: MakeJob) -> MakeJob:
    """`make_job` for the pretended GPU."""

    def make(folder: str = "run", **settings: Any) -> Job:
        return dataclasses.replace(make_job(folder, **settings), device=GPU)

    return make


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp16": {"precision": "fp16"},
    "average": {"precision": "bf16", "regularize": {"ema_decay": 0.9}},
    "average of the last": {"regularize": {"average_last": 2}},
    "average beside, views": {"regularize": {"ema_decay": 0.9, "average_beside": True, "tta": "flips"}},
    "inner slice": {"select_on": "inner", "patience": 2, "schedule": "plateau"},
    "cached features": {"optim": {"head_only_epochs": 2, "cache_features": True}},
    "sgd": {"optim": {"name": "sgd", "clip_norm": 1.0, "layer_decay": 0.7}},
    "lookahead": {"optim": {"name": "lookahead_adamw"}},
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_job_that_was_cut_off_goes_on_there(
    kept: Kept, cut_off: CutOff, job_on_gpu: MakeJob, recipe: dict[str, Any]
) -> None:
    whole, cut = job_on_gpu("whole", **recipe), job_on_gpu("cut", **recipe)
    run_job(whole)
    cut_off(cut, 1)
    run_job(cut)
    assert kept(cut) == kept(whole)
    record = read_record(cut.folder)
    assert record is not None
    assert record["device"] == "cuda"


def test_a_job_begun_there_goes_on_without_a_gpu(cut_off: CutOff, job_on_gpu: MakeJob) -> None:
    job, whole = job_on_gpu("cut"), job_on_gpu("whole")
    cut_off(job, 2)
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


def test_tiles_that_stream_to_the_gpu_train_as_those_that_lie_there(
    kept: Kept, job_on_gpu: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident, streamed = job_on_gpu("resident"), job_on_gpu("streamed")
    run_job(resident)
    monkeypatch.setattr(loader, "fits", lambda *_: False)
    run_job(streamed)
    assert kept(streamed) == kept(resident)


def test_row_36_a_full_gpu_is_given_back_what_is_free_and_the_batch_in_parts(
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


def test_networks_are_measured_there(gpu: Any) -> None:
    speed = images_per_second("tiny_cnn", 16, 4, device="auto")
    assert set(speed) == {"train", "predict"}
    assert [wait for wait in gpu.waits if wait.call == "synchronize"]


def test_a_run_probes_the_gpu_and_trains_all_folds_there(
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
    assert [
        text for text in printed if "trains the fastest here (tiny_cnn 16 px, batch 16)" in text
    ]
    assert [(e.device, e.fold) for e in events if isinstance(e, JobStarted)] == [
        ("cuda", fold) for fold in range(3)
    ]
    stored = run.predictions("oof")
    assert np.isfinite(stored.logits).all()
