"""Jobs that leave out two folds: continuing after a kill, and several workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.files import digest_file
from ensemble_kit.launch.local import LocalEngine
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import Event, JobFinished
from ensemble_kit.members.jobs.status import run_status
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

RECIPE = Recipe(epochs=40, batch_size=8, learning_rate=1e-3)
TINY = Member("tiny_cnn", image_size=16, pretrained=False, recipe=RECIPE)


def train(trained: Any, folder: Path, **options: Any) -> list[Event]:
    events: list[Event] = []
    fit_members(
        [TINY], trained.manifest, trained.folds, Run(folder), device="cpu", nested=True,
        listener=events.append, **options,
    )  # fmt: skip
    return events


def stored_digests(folder: Path) -> dict[str, str]:
    files = [*folder.glob("predictions/*/*.npy"), *folder.glob("members/*/*/model.safetensors")]
    return {p.relative_to(folder).as_posix(): digest_file(p) for p in files}


@pytest.mark.slow
def test_a_killed_pair_job_gives_the_results_of_an_undisturbed_one(
    trained: Any, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    train(trained, run.path)
    want = stored_digests(run.path)
    assert len(want) == 6 + 3 + 2
    folder = run.fold_dir("tiny_cnn", "0-2")
    for path in folder.iterdir():
        path.unlink()
    command = [sys.executable, "-m", "ensemble_kit", "run-job", str(run.path), "tiny_cnn", "0-2", "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(folder.glob("resume-*.json")) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    at = {job.fold: job for job in run_status(run)}["0-2"]
    assert at.state == "waiting"
    assert at.epoch is not None
    assert at.epoch >= 1
    events = train(trained, run.path)
    assert [e.fold for e in events if isinstance(e, JobFinished)] == ["0-2"]
    assert stored_digests(run.path) == want


@pytest.mark.slow
def test_two_workers_give_the_same_results_as_one_process(trained: Any, tmp_path: Path) -> None:
    train(trained, tmp_path / "one")
    events = train(trained, tmp_path / "two", engine=LocalEngine(2))
    done = [e.fold for e in events if isinstance(e, JobFinished)]
    assert sorted(map(str, done)) == ["0", "0-1", "0-2", "1", "1-2", "2"]
    assert stored_digests(tmp_path / "two") == stored_digests(tmp_path / "one")
